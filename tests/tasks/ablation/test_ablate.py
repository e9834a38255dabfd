"""Effects of every image against a model written out; tests against edited models; resumed and refused runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import classlens
from classlens import AblateHeads, AblateSublayer, Cluster, Lens, Means, Progress, ablate
from classlens.data.class_mapping import map_classes
from classlens.data.open_dataset import open_dataset
from classlens.models.transforms import paper_transform
from classlens.store.open_store import group_names, open_group
from classlens.tasks.ablation.ablate import STORE
from classlens.tasks.ablation.result import AblateResult
from tests import zoo
from tests.data.pictures import assert_same, folder, picture
from tests.forward.edits.by_hand import by_hand
from tests.forward.edits.random_means import random_means
from tests.forward.models import EVERY
from tests.refusals import refused

VARIANT = "cls_layer_scale"
NAMES = ["cat", "dog", "ship"]
IMAGES = 48
SETTINGS: dict[str, Any] = {"heads": 2, "draws": 3, "batch_size": 8, "workers": 0, "seed": 4}


class Ablation(NamedTuple):
    lens: Lens
    means: Means
    data: str
    out: Path
    result: AblateResult


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    root = tmp_path_factory.mktemp("ablation")
    data = folder(root / "photos", IMAGES, NAMES)
    lens = tiny()
    means = random_means(lens.view)
    result = ablate(lens, data, root / "out", to=means, **SETTINGS)
    return Ablation(lens, means, data, root / "out", result)


def tiny() -> Lens:
    """A model in float64 that says one of the three classes about as often as each other one."""
    module: Any = zoo.build(VARIANT, torch.float64, seed=1)
    with torch.no_grad():
        module.head.bias[len(NAMES) :] -= 50
        module.head.weight[: len(NAMES)] *= 3
    others = [f"other {number}" for number in range(zoo.CLASSES - len(NAMES))]
    return classlens.load(module, class_names=[*NAMES, *others], transform=paper_transform(zoo.VARIANTS[VARIANT].size))


def image(ablation: Ablation, number: int) -> tuple[Tensor, int]:
    dataset = open_dataset(ablation.data)
    labels = map_classes(dataset, ablation.lens.classes, model_name="tiny")
    return ablation.lens.preprocessing(dataset.picture(number), "")[None].double(), int(labels[number])


def log_odds(logits: Tensor, label: int) -> float:
    p = logits[0].softmax(dim=0)[label]
    return float(torch.log(p / (1 - p)))


def test_effects_of_every_head_against_the_model_written_out(ablation: Ablation) -> None:
    store = open_group(ablation.out / STORE, "effects").load()
    vit: Any = ablation.lens.view.module
    channels = vit.blocks[0].attn.head_dim
    for number in (0, 11, 29):
        x, label = image(ablation, number)
        intact = by_hand(vit, x)
        row = store.isel(image=number)
        assert (int(row.label), int(row.predicted)) == (label, int(intact.argmax()))
        assert float(row.log_odds) == pytest.approx(log_odds(intact, label), abs=1e-5)
        passed: dict[int, Tensor] = {}
        direct = direct_by_hand(vit, x, label, passed)
        slopes = slopes_by_hand(vit, x, label)
        for block in range(3):
            for head in range(3):
                mean = ablation.means.values[f"attn_coefficients.{block}"][:, head * channels : (head + 1) * channels]

                def put_in(at: int, z: Tensor, block: int = block, head: int = head, mean: Tensor = mean) -> Tensor:
                    z = z.clone()
                    if at == block:
                        z[0, head] = mean
                    return z

                without = by_hand(vit, x, heads=put_in)
                at = {"block": block, "head": head}
                # The store keeps float32.
                expected = log_odds(intact, label) - log_odds(without, label)
                assert float(row.ablation.sel(at)) == pytest.approx(expected, abs=1e-5)
                assert int(row.predicted_without.sel(at)) == int(without.argmax())
                slope = slopes[block][0, head] * (mean - passed[block][0, head])
                assert float(row.attribution_patching.sel(at)) == pytest.approx(-float(slope.sum()), abs=1e-5)
                of_cls = passed[block][0, head, 0] - mean[0]
                assert float(row.attribution.sel(at)) == pytest.approx(float(direct[block][head] @ of_cls), abs=1e-5)


def direct_by_hand(vit: Any, x: Tensor, label: int, passed: dict[int, Tensor]) -> list[list[Tensor]]:
    """``[block][head]``: the slope of the log odds by the head's output at ``[CLS]``, along the direct path alone."""
    last: list[Tensor] = []
    handle = vit.norm.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0][0, 0]))
    logits = by_hand(vit, x, heads=lambda block, z: passed.setdefault(block, z))
    handle.remove()
    rivals = logits[0].clone()
    rivals[label] = -torch.inf
    weights = -rivals.softmax(dim=0)
    weights[label] = 1
    # Centering and the scale of the norm, which is held: the slope by the last hidden state.
    slope = (weights @ vit.head.weight) * vit.norm.weight / (last[0].var(unbiased=False) + vit.norm.eps).sqrt()
    slope = slope - slope.mean()
    found = []
    for block in vit.blocks:
        by_unit = (slope * block.ls1.gamma) @ block.attn.proj.weight
        found.append(list(by_unit.detach().unflatten(0, (3, -1))))
    return found


def slopes_by_hand(vit: Any, x: Tensor, label: int) -> list[Tensor]:
    """By block, autograd of the log odds by the output of every head at every token, in the model written out."""
    leaves: list[Tensor] = []

    def leaf(_: int, z: Tensor) -> Tensor:
        leaves.append(z if z.requires_grad else z.requires_grad_())
        return leaves[-1]

    with torch.enable_grad():
        p = by_hand.__wrapped__(vit, x, heads=leaf)[0].softmax(dim=0)[label]  # type: ignore[attr-defined]
        return list(torch.autograd.grad(torch.log(p / (1 - p)), leaves))


def test_held_out_accuracy_against_edited_models(ablation: Ablation) -> None:
    """Halves, heads and losses, one image and one set of heads at a time."""
    effects = open_group(ablation.out / STORE, "effects").load()
    (group,) = [name for name in group_names(ablation.out / STORE) if name.startswith("held_out")]
    tested = open_group(ablation.out / STORE, group).load()
    names, images = effects["image"].values.tolist(), tested["image"].values.tolist()
    assert len(images) == 24
    assert sorted(tested["label"].values.tolist()) == [0] * 8 + [1] * 8 + [2] * 8
    choosing = effects.isel(image=[names.index(name) for name in names if name not in images])
    table = ablation.result.held_out.set_index(["measure", "class", "score", "images"]).loc["accuracy"]
    right = {name: int(image(ablation, names.index(name))[1] == predicted(ablation, name)) for name in images}
    assert 0 < sum(right.values()) < 24
    for label, name in enumerate(NAMES):
        own = choosing.isel(image=choosing["label"].values == label)
        for score in ("ablation", "attribution", "attribution_patching", "class_gradient"):
            mean = own[score].mean("image").values
            best = sorted((-mean[block, head], block, head) for block in range(3) for head in range(3))[:2]
            edits = [AblateHeads([head], blocks=[block], to=ablation.means) for _, block, head in best]
            row = table.loc[(name, score, "of the class")]
            assert row["parts"] == " ".join(sorted(f"{block}.{head}" for _, block, head in best))
            for chosen, inside in (("of the class", True), ("of others", False)):
                members = [
                    one
                    for one, category in zip(images, tested["label"].values, strict=True)
                    if (category == label) == inside
                ]
                lost = [right[one] - (predicted(ablation, one, edits) == label_of(ablation, one)) for one in members]
                row = table.loc[(name, score, chosen)]
                assert row["drop"] == pytest.approx(np.mean(lost))
                assert row["intact"] == pytest.approx(np.mean([right[one] for one in members]))
                assert row["low"] <= row["drop"] <= row["high"]
                assert row["number"] == len(members)
    odds = ablation.result.held_out.set_index(["measure", "class", "score", "images"]).loc["log odds"]
    members = [one for one, category in zip(images, tested["label"].values, strict=True) if category == 2]
    row = odds.loc[("ship", "class_gradient", "of the class")]
    edits = [AblateHeads([int(part[2])], blocks=[int(part[0])], to=ablation.means) for part in row["parts"].split()]
    fallen = [odds_of(ablation, one) - odds_of(ablation, one, edits) for one in members]
    assert row["drop"] == pytest.approx(np.mean(fallen), abs=1e-5)
    of_all = table.loc["all"]
    for score in ("ablation", "chance"):
        each = [table.loc[(name, score, "of the class")]["drop"] for name in NAMES]
        assert of_all.loc[(score, "of the class")]["drop"] == pytest.approx(np.mean(each))
        for name in [*NAMES, "all"]:
            row, chance = table.loc[(name, score, "of the class")], table.loc[(name, "chance", "of the class")]
            assert row["beyond_chance"] == pytest.approx(row["drop"] - chance["drop"])


def logits_of(ablation: Ablation, name: str, edits: Any = ()) -> Tensor:
    dataset = open_dataset(ablation.data)
    x, _ = image(ablation, dataset.names.index(name))
    with ablation.lens.edit(*edits), torch.no_grad():
        logits: Tensor = ablation.lens.view.module(x)
    return logits


def predicted(ablation: Ablation, name: str, edits: Any = ()) -> int:
    return int(logits_of(ablation, name, edits).argmax())


def odds_of(ablation: Ablation, name: str, edits: Any = ()) -> float:
    return log_odds(logits_of(ablation, name, edits), label_of(ablation, name))


def label_of(ablation: Ablation, name: str) -> int:
    return image(ablation, open_dataset(ablation.data).names.index(name))[1]


def test_what_tips_confusions(ablation: Ablation) -> None:
    """Contrasts against ``trace.attribution`` of two classes; the test against edited models."""
    effects = open_group(ablation.out / STORE, "effects").load()
    (group,) = [name for name in group_names(ablation.out / STORE) if name.startswith("held_out")]
    tested = set(open_group(ablation.out / STORE, group)["image"].values.tolist())
    pairs = ablation.result.pairs
    assert len(pairs), "no confusion to test"
    (label, rival), rows = next(iter(pairs.groupby(["label", "rival"], sort=False)))
    index, other = NAMES.index(label), NAMES.index(rival)
    groups: dict[str, list[list[float]]] = {"confused": [], "right": []}
    for number, name in enumerate(effects["image"].values.tolist()):
        top = int(effects["predicted"].values[number])
        if name in tested or effects["label"].values[number] != index or top not in (index, other):
            continue
        trace = ablation.lens.trace(image(ablation, number)[0])
        to, own = (trace.attribution(category).isel(image=0) for category in (other, index))
        values = [
            float((to[part] - own[part]).isel(at))
            for block in range(3)
            for part, at in [
                *(("attention", {"block": block, "head": head}) for head in range(3)),
                ("mlp", {"block": block}),
            ]
        ]
        groups["right" if top == index else "confused"].append(values)
    difference = np.mean(groups["confused"], axis=0) - np.mean(groups["right"], axis=0)
    assert rows["difference"].to_numpy() == pytest.approx(difference, abs=1e-5)
    assert rows["part"].tolist()[:5] == ["0.0", "0.1", "0.2", "MLP 0", "1.0"]
    assert (rows["confused"] == len(groups["confused"])).all()
    assert (rows["right"] == len(groups["right"])).all()
    assert ((rows["low"] <= rows["difference"]) & (rows["difference"] <= rows["high"])).all()
    assert (rows["p_holm"] >= rows["p"]).all()

    best = rows.iloc[np.argsort(-difference, kind="stable")[:2]]["part"].tolist()
    edits = [
        AblateSublayer("mlp", blocks=int(part[4:]), to=ablation.means)
        if part.startswith("MLP")
        else AblateHeads([int(part[2])], blocks=[int(part[0])], to=ablation.means)
        for part in best
    ]
    test = ablation.result.pair_tests
    test = test[(test["label"] == label) & (test["rival"] == rival)].set_index("images")
    assert sorted(test.loc["right", "parts"].replace("MLP ", "MLP_").split()) == sorted(
        part.replace("MLP ", "MLP_") for part in best
    )
    for images, prediction in (("confused", other), ("right", index)):
        members = [
            name
            for name in sorted(tested)
            if label_of(ablation, name) == index and predicted(ablation, name) == prediction
        ]
        assert test.loc[images, "number"] == len(members)
        if members:
            kept = np.mean([predicted(ablation, name, edits) == index for name in members])
            assert test.loc[images, "value"] == pytest.approx(kept)


def test_a_stopped_run_resumes(ablation: Ablation, tmp_path: Path) -> None:
    out, reports = tmp_path / "run", []

    def stop(progress: Progress) -> None:
        reports.append(progress)
        if progress.done > max(progress.before, 8):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ablate(ablation.lens, ablation.data, out, to=ablation.means, **SETTINGS, report=stop)
    resumed = ablate(ablation.lens, ablation.data, out, to=ablation.means, **SETTINGS)
    assert_same(out / STORE, ablation.out / STORE)
    for table in ("effects", "agreement", "held_out", "pairs", "pair_tests"):
        pd.testing.assert_frame_equal(getattr(resumed, table), getattr(ablation.result, table))
    more = ablate(ablation.lens, ablation.data, out, to=ablation.means, **{**SETTINGS, "heads": 1})
    assert more.held_out["parts"].str.fullmatch(r"\d\.\d|3 random sets|").all()
    pd.testing.assert_frame_equal(more.effects, resumed.effects)


def test_the_only_head_that_writes_is_found(tmp_path: Path) -> None:
    """Every other head's columns of the output projection are 0: scores, and what is lost by chance."""
    lens = tiny()
    vit: Any = lens.view.module
    with torch.no_grad():
        for number, block in enumerate(vit.blocks):
            block.attn.proj.weight[:, [c for c in range(24) if number != 1 or not 8 <= c < 16]] = 0
    lens = classlens.load(vit, class_names=lens.classes.names, transform=lens.preprocessing.transform)
    data = folder(tmp_path / "photos", 12, NAMES)
    result = ablate(lens, data, tmp_path / "out", to="zero", heads=1, batch_size=8, workers=0)
    effects = result.effects[
        (result.effects["images"] == "all") & result.effects["score"].isin(["ablation", "attribution"])
    ]
    inert = effects[(effects["block"] != 1) | (effects["head"] != 1)]
    assert np.abs(inert["value"]).max() < 1e-6 < np.abs(effects["value"]).max()


def test_an_unreadable_image_is_left_out(ablation: Ablation, tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", 12, NAMES)
    (tmp_path / "photos" / "cat" / "0003.png").write_text("no picture")
    given = {**SETTINGS, "to": ablation.means}
    refused(lambda: ablate(ablation.lens, data, tmp_path / "out", **given), "0003.png")
    result = ablate(ablation.lens, data, tmp_path / "out", **given, skip_bad=True)
    assert list(result.run.skipped) == ["cat/0003.png"]
    number = result.effects[result.effects["score"] == "ablation"].groupby("images")["number"].first()
    assert (number["all"], number["cat"], number["dog"], number["right"] + number["wrong"]) == (11, 3, 4, 11)
    tested = result.held_out[result.held_out["images"] == "of the class"].groupby("class")["number"].first()
    assert (tested["cat"], tested["dog"], tested["all"]) == (1, 2, 5)
    picture(3).save(tmp_path / "photos" / "cat" / "0003.png")
    mended = ablate(ablation.lens, data, tmp_path / "out", **given)
    whole = ablate(ablation.lens, data, tmp_path / "whole", **given)
    for table in ("effects", "held_out", "pairs", "pair_tests"):
        pd.testing.assert_frame_equal(getattr(mended, table), getattr(whole, table))
    for number in (1, 4, 7):
        (tmp_path / "photos" / "dog" / f"{number:04}.png").write_text("no picture")
    given["skip_bad"] = True
    left = ablate(ablation.lens, data, tmp_path / "few", **given)
    assert set(left.held_out["class"]) == {"cat", "ship", "all"}
    refused(lambda: ablate(ablation.lens, data, tmp_path / "named", **given, classes="dog"), "'dog' has fewer than two")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_gives_the_same_store(tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", 24, ["cat", "dog"])
    given: dict[str, Any] = {"to": "zero", "heads": 2, "draws": 2, "batch_size": 8}
    local = ablate("builtin:cifar10", data, tmp_path / "local", **given, workers=0)
    cluster: dict[str, Any] = {"engine": "ray", "cluster": Cluster(actors=2)}
    spread = ablate("builtin:cifar10", data, tmp_path / "ray", **given, **cluster)
    assert_same(tmp_path / "local" / STORE, tmp_path / "ray" / STORE)
    pd.testing.assert_frame_equal(local.held_out, spread.held_out)


def test_refusals(ablation: Ablation, tmp_path: Path) -> None:
    lens, data = ablation.lens, ablation.data
    settings = {**SETTINGS, "to": "zero"}

    def run(**given: Any) -> object:
        return ablate(lens, data, tmp_path / "new", **{**settings, **given})

    refused(lambda: run(heads=9), "heads is 9", "has 9 heads", "smaller number")
    refused(lambda: run(classes=["cats"]), "'cats'", "did you mean 'cat'")
    refused(lambda: run(classes=["other 0"]), "class 'other 0' has 0 images", "at least two")
    refused(lambda: run(to="mean"), "mean", "means")
    refused(lambda: run(to=tmp_path / "none.safetensors"), "none.safetensors")
    refused(lambda: run(to=random_means(classlens.load(zoo.build("cls")).view)), "other weights")
    siglip = classlens.load(EVERY["timm SigLIP"]().eval(), class_names=[*NAMES, *"abcd"])
    refused(lambda: ablate(siglip, data, tmp_path / "new", **settings), "pools by attention", "[CLS] head")
    refused(lambda: run(per_class=1), "one image of each class", "at least two")
    refused(lambda: ablate(lens, data, ablation.out, **settings), "to ")
    refused(lambda: run(classes=[]), "classes has no names", "'all'")
    with lens.edit(AblateHeads([0], blocks=[0])):
        refused(lambda: run(), "runs with edits", "outside of lens.edit")
    (tmp_path / "letter.txt").write_text("dear")
    refused(lambda: ablate(lens, data, tmp_path, **settings), repr(str(tmp_path)), STORE)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
