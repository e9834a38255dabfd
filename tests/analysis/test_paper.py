"""The paper in one go, on the built-in model and a few images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from classlens.analysis import paper
from classlens.analysis.paper import Reproduction, reproduce, slug
from classlens.analysis.published import REMOVAL_METHODS
from classlens.core.stats import Statistics
from classlens.data.dataset import Dataset
from classlens.engine.progress import Progress
from classlens.lens.load import load
from classlens.store.open_store import open_group
from tests.data.pictures import folder
from tests.refusals import refused

QUICK = Statistics(permutations=20, resamples=20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 20)


@pytest.fixture
def removal_model(monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that counts as one with published areas."""
    monkeypatch.setattr(paper, "REMOVAL_MODELS", ("builtin:cifar10",))
    return "builtin:cifar10"


@pytest.fixture(scope="module")
def two_images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 2)


def test_all_that_can_be_measured_is(data: str, tmp_path: Path) -> None:
    reports: list[tuple[str, Progress]] = []

    def run() -> Reproduction:
        return reproduce(
            [data],
            ["builtin:cifar10", "paper:vit-b-16-cifar100"],
            tmp_path / "stores",
            per_class=2,
            statistics=QUICK,
            report=lambda model, progress: reports.append((model, progress)),
        )

    reproduction = run()
    (store,) = reproduction.analysis.stores
    assert (store["images"], store["memories"]) == (20, True)
    assert store["conditions"] == ["clean", "random_init", "self_only", "no_cls"]
    assert "key_value_agreement" in reproduction.analysis.tables
    assert "class_vs_context" not in reproduction.analysis.tables
    assert list(reproduction.problems) == ["paper:vit-b-16-cifar100"]
    assert reproduction.problems["paper:vit-b-16-cifar100"].startswith("timm does not have the weights of model")
    assert reproduction.removal == {}
    model, last = reports[-1]
    assert (model, last.done, last.before) == ("builtin:cifar10", 20, 0)
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["builtin-cifar10.zarr"]
    run()
    assert reports[-1][1].before == 20, "continued, not measured again"


def test_a_model_takes_the_data_whose_classes_it_knows(data: str, tmp_path: Path) -> None:
    other = folder(tmp_path / "other", 4, classes=("aardvark", "zebu"))
    reproduction = reproduce(
        [other, data], "builtin:cifar10", tmp_path / "stores", per_class=1, memories=False, statistics=QUICK
    )
    assert reproduction.analysis.stores[0]["data"] == data
    refused(
        lambda: reproduce([other], ["builtin:cifar10"], tmp_path / "others", per_class=1, statistics=QUICK),
        "none of 1 models could be measured",
        "aardvark",
    )


def test_class_names_of_a_model(two_images: str, tmp_path: Path) -> None:
    names = load("builtin:cifar10").classes.names
    labels = []
    for order in (names, names[::-1]):
        reproduce(
            [two_images],
            ["builtin:cifar10"],
            tmp_path / order[0],
            class_names={"builtin:cifar10": order},
            memories=False,
            statistics=QUICK,
        )
        store = open_group(str(tmp_path / order[0] / "builtin-cifar10.zarr"), "clean")
        labels.append(store["label"].values.tolist())
    assert labels[1] == [len(names) - 1 - label for label in labels[0]]


def test_refusals(data: str, tmp_path: Path) -> None:
    refused(lambda: reproduce([data], [], tmp_path), "no models were given")
    refused(lambda: reproduce([], "all", tmp_path), "no data were given")
    for by_model in (
        {"checkpoints": {"paper:vit-b-32": Path("x")}},
        {"class_names": {"paper:vit-b-32": ["cat"]}},
        {"ranks": {"paper:vit-b-32": "x"}},
    ):
        refused(
            lambda by_model=by_model: reproduce([data], ["builtin:cifar10"], tmp_path, **by_model),  # type: ignore[misc]
            "'paper:vit-b-32'",
            "not among the models",
        )
    ranks = {"builtin:cifar10": "probes.zarr"}
    refused(lambda: reproduce([data], ["builtin:cifar10"], tmp_path, ranks=ranks), "add --removal")
    refused(lambda: reproduce(["folder:/nowhere"], "all", tmp_path), "/nowhere")
    assert list(tmp_path.iterdir()) == []


def test_names_of_stores() -> None:
    assert slug("paper:vit-b-32") == "paper-vit-b-32"
    assert slug("google/vit base@x") == "google-vit-base-x"
    assert slug("../..") == "model"


@pytest.mark.slow
def test_token_removal_where_the_paper_has_it(two_images: str, tmp_path: Path, removal_model: str) -> None:
    reproduction = reproduce(
        [two_images], [removal_model], tmp_path / "stores", memories=False, statistics=QUICK, removal=True
    )
    scores = reproduction.removal[removal_model]
    assert list(scores["method"].unique()) == ["class_gradient:loss=double_softmax", "chefer", "random"]
    assert set(scores["images"]) == {2}
    store = open_group(tmp_path / "stores" / "builtin-cifar10-removal" / "evaluation.zarr", "removal.chefer")
    assert store["kept"].values.tolist() == list(range(64, 0, -1))


def test_token_removal_by_probe_importance_where_ranks_are_given(
    two_images: str, tmp_path: Path, removal_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def evaluate(model: str, data: Dataset, out: Path, **options: Any) -> SimpleNamespace:
        calls.append(options)
        return SimpleNamespace(scores=f"scores of {out.name}")

    monkeypatch.setattr(paper, "evaluate", evaluate)
    reproduction = reproduce(
        [two_images],
        [removal_model],
        tmp_path,
        memories=False,
        statistics=QUICK,
        removal=True,
        ranks={removal_model: "probes/probes.zarr"},
    )
    assert reproduction.removal == {removal_model: "scores of builtin-cifar10-removal"}
    (options,) = calls
    assert options["ranks"] == "probes/probes.zarr"
    assert options["methods"] == list(REMOVAL_METHODS.values())
    assert (options["metrics"], options["steps"]) == (["removal"], "all")


def test_a_removal_that_fails_leaves_the_measurements(two_images: str, tmp_path: Path, removal_model: str) -> None:
    blocked = tmp_path / "stores" / "builtin-cifar10-removal"
    blocked.mkdir(parents=True)
    (blocked / "letter.txt").write_text("dear")
    reproduction = reproduce(
        [two_images], [removal_model], tmp_path / "stores", memories=False, statistics=QUICK, removal=True
    )
    assert [store["name"] for store in reproduction.analysis.stores] == [removal_model]
    assert "other files" in reproduction.problems[removal_model]
    assert reproduction.removal == {}
