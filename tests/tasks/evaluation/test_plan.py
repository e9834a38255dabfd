"""Metrics and methods that model and data allow, and reasons for those that they do not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm

import classlens
from classlens import Lens, evaluate
from classlens.engine.batch_size import choose_batch_size
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.importance import parse_methods
from classlens.tasks.evaluation.plan import most_passes
from classlens.tasks.evaluation.registry import METRICS
from tests.data.pictures import folder, imagenet_s
from tests.refusals import refused
from tests.tasks.evaluation.runs import SETTINGS, tiny_lens

WNIDS = ("n01440764", "n01443537", "n02123045")
WNID_NAMES = ("goldfish", "tench, Tinca tinca", "tabby, tabby cat")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"metrics": ["segmentation"]}, ("'segmentation'", "no masks", "leave it out")),
        ({"metrics": ["randomization"]}, ("'randomization'", "no random twin", "leave it out")),
        ({"metrics": ["completeness"]}, ("none of the metrics completeness", "rollout")),
        ({"metrics": "all", "methods": ["stored_rank:condition=probe"]}, ("'stored_rank'", "--ranks")),
        ({"metrics": ["pointing"], "limit": 3}, ("'pointing'", "fewer than four classes", "leave it out")),
    ],
)
def test_metrics_that_cannot_be_measured(
    lens: Lens, data: str, tmp_path: Path, options: dict[str, Any], names: tuple[str, ...]
) -> None:
    refused(lambda: evaluate(lens, data, tmp_path / "run", **{**SETTINGS, **options}), *names)
    assert not (tmp_path / "run").exists()


def test_all_metrics_of_data_with_masks_and_a_model_without_a_twin(tmp_path: Path) -> None:
    lens = tiny_lens(names=WNID_NAMES)
    spec = imagenet_s(tmp_path / "data", WNIDS, 3)
    methods = ["class_gradient", "logit_attribution"]
    result = evaluate(lens, spec, tmp_path / "run", methods=methods, steps=2, permutations=1, workers=0)
    assert set(result.missing) == {"randomization", "pointing"}
    assert "no random twin" in result.missing["randomization"]
    by_name = {f"{name}_{fill}" for name in ("masking", "insertion", "deletion") for fill in ("black", "blur")}
    assert set(result.scores["metric"]) == set(METRICS) - set(result.missing) - by_name
    assert "four classes" in result.missing["pointing"]
    store = open_group(tmp_path / "run" / STORE, "segmentation.class_gradient").load()
    # Rows 38 and 39 of 40 are of unknown class: floor((row + 0.5) · 40 / 24) is 39 for row 23, and 37 for row 22.
    assert store["pixels"].values.tolist() == [23 * 16] * 9
    assert (store["intersection"].values <= 23 * 8).all()
    scores = result.scores[result.scores.metric == "segmentation"]
    assert set(scores["measure"]) == {"pixel_accuracy", "mean_iou", "mean_ap"}
    assert set(result.scores[result.scores.metric == "completeness"]["method"]) == {"logit_attribution"}


def test_batches_are_small_where_an_image_takes_many_passes() -> None:
    """The work that a stop loses, one metric of one method for a batch, hardly depends on the choice of metrics."""
    view = classlens.load(timm.create_model("vit_tiny_patch16_224", pretrained=False).eval()).view
    tokens = view.tokens((224, 224))

    def size(metrics: list[str], methods: list[str], **settings: Any) -> int:
        passes = partial(most_passes, metrics, parse_methods(methods), EvaluationSettings(**settings))
        return choose_batch_size("auto", None, view, tokens, passes)

    assert size(["pointing"], ["log_odds"]) == size(["removal"], ["log_odds"], steps=2) == 16
    assert size(["pointing", "removal"], ["log_odds"], steps=25) == 16
    assert size(["pointing", "removal"], ["log_odds", "random"], steps=25) == 2
    assert size(["removal"], ["random"], steps="all", permutations=100) == 1


def test_methods_that_a_model_does_not_allow(tmp_path: Path) -> None:
    """A head that pools by attention has no attribution and no pooled row: left out of all, refused by name."""
    model = timm.create_model(
        "vit_base_patch16_siglip_224", pretrained=False, num_classes=3, img_size=32, embed_dim=24, depth=2, num_heads=2
    ).eval()
    names = ["cat", "dog", "frog"]
    lens = classlens.load(model, class_names=names, transform=paper_transform((32, 32)))
    spec = folder(tmp_path / "images", 6, names)
    options: dict[str, Any] = {"metrics": ["class_sensitivity"]}
    refused(lambda: evaluate(lens, spec, tmp_path / "no", methods=["logit_attribution"], **options), "attribution")
    result = evaluate(lens, spec, tmp_path / "run", **options)
    assert "logit_attribution" in result.missing
    for method in ("attention", "rollout", "chefer"):
        assert "pools tokens by an attention of its own" in result.missing[method]
        assert method not in set(result.scores["method"])
        refused(lambda method=method: evaluate(lens, spec, tmp_path / "no", methods=[method], **options), "query=")  # type: ignore[misc]
    assert "class_gradient" in set(result.scores["method"])
    assert "logit_attribution" not in set(result.scores["method"])
