"""The paper in one go, on the built-in model and a few images."""

from __future__ import annotations

from pathlib import Path

import pytest

from classlens.analysis import paper
from classlens.analysis.paper import reproduce, slug
from classlens.core.stats import Statistics
from classlens.engine.progress import Progress
from classlens.store.open_store import open_group
from tests.data.pictures import folder
from tests.refusals import refused

QUICK = Statistics(permutations=20, resamples=20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 30)


def test_all_that_can_be_measured_is(data: str, tmp_path: Path) -> None:
    seen: list[tuple[str, Progress]] = []

    def run() -> list[str]:
        made = reproduce(
            [data],
            ["builtin:cifar10", "paper:vit-b-16-cifar100"],
            tmp_path / "stores",
            per_class=2,
            statistics=QUICK,
            report=lambda model, now: seen.append((model, now)),
        )
        (store,) = made.analysis.stores
        assert (store["images"], store["memories"]) == (20, True)
        assert store["conditions"] == ["clean", "random_init", "self_only", "no_cls"]
        assert "key_value_agreement" in made.analysis.tables
        assert "class_vs_context" not in made.analysis.tables
        return [f"{model}: {why}" for model, why in made.problems.items()]

    (problem,) = run()
    assert problem.startswith("paper:vit-b-16-cifar100: the weights of model")
    assert seen[-1][0] == "builtin:cifar10"
    assert (seen[-1][1].done, seen[-1][1].before) == (20, 0)
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["builtin-cifar10.zarr"]
    run()
    assert seen[-1][1].before == 20, "gone on with, not measured again"


def test_a_model_takes_the_data_whose_classes_it_knows(data: str, tmp_path: Path) -> None:
    other = folder(tmp_path / "other", 4, classes=("aardvark", "zebu"))
    made = reproduce([other, data], ["builtin:cifar10"], tmp_path / "stores", per_class=1, statistics=QUICK)
    assert made.analysis.stores[0]["data"] == data
    refused(
        lambda: reproduce([other], ["builtin:cifar10"], tmp_path / "others", per_class=1, statistics=QUICK),
        "none of 1 models could be measured",
        "aardvark",
    )


def test_refusals(data: str, tmp_path: Path) -> None:
    refused(lambda: reproduce([data], [], tmp_path), "no models were given")
    refused(lambda: reproduce([], None, tmp_path), "no data were given")
    refused(
        lambda: reproduce([data], ["builtin:cifar10"], tmp_path, checkpoints={"paper:vit-b-32": Path("x")}),
        "'paper:vit-b-32'",
        "not among the models",
    )
    refused(lambda: reproduce(["folder:/nowhere"], None, tmp_path), "/nowhere")
    assert list(tmp_path.iterdir()) == []


def test_names_of_stores() -> None:
    assert slug("paper:vit-b-32") == "paper-vit-b-32"
    assert slug("google/vit base@x") == "google-vit-base-x"
    assert slug("../..") == "model"


def test_token_removal_where_the_paper_has_it(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "REMOVAL_MODELS", ("builtin:cifar10",))
    made = reproduce([data], ["builtin:cifar10"], tmp_path / "stores", per_class=1, statistics=QUICK, removal=True)
    scores = made.removal["builtin:cifar10"]
    assert list(scores["method"].unique()) == ["class_gradient:loss=double_softmax", "chefer", "random"]
    assert set(scores["images"]) == {10}
    store = open_group(tmp_path / "stores" / "builtin-cifar10-removal" / "evaluation.zarr", "removal.chefer")
    assert store["kept"].values.tolist() == list(range(64, 0, -1))
    without = reproduce([data], ["builtin:cifar10"], tmp_path / "stores", per_class=1, statistics=QUICK)
    assert without.removal == {}


def test_a_removal_that_fails_leaves_what_was_measured(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classlens.analysis.paper.REMOVAL_MODELS", ("builtin:cifar10",))
    blocked = tmp_path / "stores" / "builtin-cifar10-removal"
    blocked.mkdir(parents=True)
    (blocked / "letter.txt").write_text("dear")
    made = reproduce([data], ["builtin:cifar10"], tmp_path / "stores", per_class=1, statistics=QUICK, removal=True)
    assert [store["name"] for store in made.analysis.stores] == ["builtin:cifar10"]
    assert "other things" in made.problems["builtin:cifar10"]
    assert made.removal == {}
