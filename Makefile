# Needs make and Python 3.11 or newer with venv; every target sets up what it needs in $(VENV).

VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin
# Tests and modules are compiled once, not in every process.
unexport PYTHONDONTWRITEBYTECODE
# One process for each core. Each takes whole files, so that costly fixtures are made once. ARGS="-n 0" is one process.
PARALLEL = -n logical --maxprocesses 8 --dist loadfile
# Tests of libraries that ask for newer versions than the lowest that classlens itself takes.
EXTRAS = tests/models/test_transformers.py tests/models/test_transformers_models.py tests/models/test_open_clip.py
# Tests of peft and of the Trainer, with the versions of transformers that they ask for.
NEWER = tests/models/test_lora.py tests/models/test_trainer_folder.py tests/models/tiny_transformers.py
# Left out on the lowest versions: slow tests, pages in a browser, checks of annotations, hooks of the documentation (which
# is built with newer ones), and tests of mathematics in torch
# (which is the same version there), of stopping and resuming, or of the repository itself.
SAME = core/test_attention.py core/test_memories.py core/test_probes.py core/test_scores.py core/test_space.py \
	core/test_steps.py docs explain forward tasks/evaluation/test_cascade.py tasks/probes/test_training.py \
	tasks/tokens/test_resume.py tasks/tuned_lens test_conftest.py test_imports.py test_release.py
LOWEST = JAXTYPING_DISABLE=1 $(VENV)-lowest$(1)/bin/python -m pytest -p no:cacheprovider $(PARALLEL) \
	-m "not slow and not browser"

ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then command -v $$python; break; fi; done)
endif

# An environment is finished when its stamp exists. The stamp's name is a checksum of what the environment depends on.
KEY := $(shell { sed '/^\[tool\./,$$d' pyproject.toml; pwd; $(if $(PYTHON),$(PYTHON) -V;) } | cksum | cut -d' ' -f1)
stamp = $(VENV)/.classlens-$(1)-$(KEY)
# The stamp of an extra, or of a larger one that is installed already.
env = $(firstword $(wildcard $(foreach extra,$(2),$(call stamp,$(extra)))) $(call stamp,$(1)))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-slow test-lowest mutants lint format types models-table docs example wheel extras sbom bench dev python clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

$(VENV)/.classlens-%-$(KEY):
	$(if $(PYTHON),,$(error classlens needs Python 3.11 or newer with venv: install it (on Debian: apt install python3 python3-venv), or name it with make PYTHON=/path/to/python3))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "classlens needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V)" >&2; exit 1; }
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
		|| $(PYTHON) -m venv $$(test -e $(VENV)/pyvenv.cfg && echo --clear) $(VENV)
	@find $(VENV) -maxdepth 1 -name '.classlens-*' ! -name '*-$(KEY)' -delete
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[$*]'
	@touch $@

demo: $(call env,demo,full dev) ## inspect a photo of a cat with the built-in model and write demo-report/
	@$(BIN)/classlens inspect --out demo-report \
		"$$($(BIN)/python -c 'import pathlib, skimage; print(pathlib.Path(skimage.__file__).with_name("data") / "chelsea.png")')"
	@echo "Open it in a browser: file://$(CURDIR)/demo-report/report.html"

test: $(call env,full,dev) ## run the tests but the slow ones; ARGS="-k name" chooses
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

test-slow: $(call env,full,dev) ## run the slow tests: real Ray, random kills, models of real size
	@$(BIN)/python -m pytest $(PARALLEL) -m slow $(ARGS)

test-lowest: $(call env,test,dev) ## run the tests on the lowest versions that pyproject.toml allows
	@$(BIN)/python .ci/lowest.py $(VENV)-lowest
	@$(call LOWEST,) $(EXTRAS:%=--ignore=%) $(NEWER:%=--ignore=%) $(SAME:%=--ignore=tests/%) $(ARGS)
	@$(BIN)/python .ci/lowest.py $(VENV)-lowest-extras transformers open-clip
	@$(call LOWEST,-extras) $(EXTRAS) tests/models/test_contract.py -k "transformers or open_clip" $(ARGS)

mutants: $(call env,dev,) ## change core/ in small ways and count the changes that its tests notice; takes an hour
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[mutation]'
	@JAXTYPING_DISABLE=1 $(BIN)/mutmut run $(ARGS)
	@$(BIN)/mutmut results

lint: $(call env,dev,) ## check style and what may import what
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo --no-cache

format: $(call env,dev,) ## correct style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(call env,dev,) ## check types
	@$(BIN)/mypy

models-table: $(call env,full,dev) ## measure the table of docs/models.md anew
	@$(BIN)/python docs/models_table.py

example: $(call env,full,dev) ## measure the worked example of the docs anew; PHOTOS=FOLDER
	@$(BIN)/python docs/example.py $(PHOTOS)

docs: $(call env,dev,) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(call env,dev,) ## build wheel and sdist into dist/ and check their contents
	@$(BIN)/python .ci/wheel.py dist

extras: $(call env,dev,) ## install the wheel of dist/ with each extra, and run a command of each
	@$(BIN)/python .ci/extras.py dist

sbom: $(call env,dev,) ## list what the wheel of dist/ is made with, as CycloneDX JSON
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[release]'
	@$(BIN)/python .ci/sbom.py dist

bench: $(call env,full,dev) ## run the benchmarks, one after another
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

dev: $(call env,dev,) ## set up everything for working on classlens

python: ## print the Python that environments are made with
	@echo $(PYTHON)

clean: ## remove files that other targets wrote; environments stay
	rm -rf build dist site .docs_cache demo-report mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests training benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
