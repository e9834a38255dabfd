"""Basis of a release: workflows call targets that exist, texts come from the changelog, the version from the tag."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="the source distribution has no workflows")


def jobs(workflow: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(WORKFLOWS[workflow].read_text(encoding="utf-8"))["jobs"]
    return parsed


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in jobs(workflow).values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_workflows_call_what_there_is(workflow: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for command in [step["run"] for step in steps(workflow) if "run" in step]:
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets, command
        for script in re.findall(r"[\w./]+\.py\b", command):
            assert (ROOT / script).is_file(), command
        assert words[0] in {"make", "python", "git", "gh"}, command


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_workflows_have_few_rights_and_fixed_actions(workflow: str) -> None:
    parsed = yaml.safe_load(WORKFLOWS[workflow].read_text(encoding="utf-8"))
    assert set(parsed["permissions"].values()) <= {"read"}
    writing = {
        (name, scope)
        for name, job in parsed["jobs"].items()
        for scope, right in job.get("permissions", {}).items()
        if right == "write"
    }
    signing = {("pypi", "id-token"), *(("github", scope) for scope in ("contents", "id-token", "attestations"))}
    assert writing == (signing if workflow == "release" else set())
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"(actions|pypa)/[\w-]+@(v\d+|release/v1|[0-9a-f]{40})", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"fetch-depth": 0, "persist-credentials": False}


def test_every_python_is_tested_and_classified() -> None:
    tested = jobs("ci")["tests"]["strategy"]["matrix"]["python"]
    start = "Programming Language :: Python :: 3."
    assert tested == [f"3.{each.removeprefix(start)}" for each in PROJECT["classifiers"] if each.startswith(start)]
    assert PROJECT["requires-python"] == f">={tested[0]}"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_texts_of_a_release() -> None:
    release = script("release_notes")
    changelog = "# C\n\n## [0.2.0] - unreleased\n\n- b\n\n## [0.1.0] - 2026-01-02\n\n### Added\n\n- a\n\n"
    changelog += "## [0.0.1] - 2026-01-01\n"
    assert release.notes(changelog, "0.1.0") == "### Added\n\n- a"
    for version, part in (("0.2.0", "'unreleased'"), ("0.3.0", "no section"), ("0.0.1", "says nothing")):
        with pytest.raises(ValueError, match=part):
            release.notes(changelog, version)
    files = ["classlens-0.1.0-py3-none-any.whl", "classlens-0.1.0.tar.gz"]
    release.check("0.1.0", "a: b\nversion: 0.1.0\nc: d\n", files)
    for citation, given, part in (
        ("a: b\nversion: 0.1.0.1\n", files, "CITATION"),
        ("a: b\nversion: 0.1.0\n", files[:1], "tar.gz"),
        ("a: b\nversion: 0.1.0\n", ["classlens-0.1.0.dev3-py3-none-any.whl", files[1]], "has no classlens-0.1.0-"),
    ):
        with pytest.raises(ValueError, match=part):
            release.check("0.1.0", citation, given)


def test_the_version_is_that_of_the_tag(tmp_path: Path) -> None:
    pytest.importorskip("hatch_vcs")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)

    def call(*command: str) -> str:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "SETUPTOOLS_"))}
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def version() -> str:
        return call(sys.executable, "-m", "hatchling", "version")

    assert version() == "0.1.0.dev0", "without git"
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    call("git", "init", "--quiet")
    call("git", "add", ".")
    call(*git, "commit", "--quiet", "-m", "first")
    assert re.fullmatch(r"0\.1(\.0)?\.dev1\+g\w+", version()), "without a tag"
    call(*git, "tag", "-m", "1.2.3", "v1.2.3")
    assert version() == "1.2.3"
    call(*git, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert re.fullmatch(r"1\.2\.4\.dev1\+g\w+", version())
    # An unpacked source distribution has its version in PKG-INFO, wherever it lies.
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: classlens\nVersion: 1.2.3\n")
    shutil.rmtree(tmp_path / ".git")
    assert version() == "1.2.3"
