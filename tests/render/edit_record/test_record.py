"""Records of edited passes against a timm ViT written out, in which the test makes the change itself."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import classlens
from classlens import ClasslensError, Lens
from classlens.render.edit_record import edit_record, plan_of
from tests import zoo
from tests.forward.edits.by_hand import by_hand, model, pixels
from tests.forward.edits.random_means import random_means


def close(value: float, expected: Tensor) -> None:
    # Both compute in float64; the order of sums differs.
    assert value == pytest.approx(float(expected), abs=1e-9)


def recorded(lens: Lens, x: Tensor, *edits: dict[str, Any], **options: Any) -> dict[str, Any]:
    keys = ("target", "against", "source")
    plan = plan_of({"edits": list(edits), **{key: options.pop(key) for key in keys if key in options}})
    if "pixels" in options:
        options["source"] = options.pop("pixels")
    return edit_record(lens, lens.trace(x), plan, **options)


def assert_outputs(record: dict[str, Any], original: Tensor, edited: Tensor) -> None:
    """Logits, probabilities and changes of every class that the record names, and both predictions."""
    for name, logits in (("original", original[0]), ("edited", edited[0])):
        shares = logits.softmax(dim=0)
        for row in record["classes"]:
            close(row[name]["logit"], logits[row["index"]])
            close(row[name]["probability"], shares[row["index"]])
            assert row["change"]["logit"] == row["edited"]["logit"] - row["original"]["logit"]
        assert record["predictions"][name]["index"] == int(logits.argmax())
        assert set(logits.topk(5).indices.tolist()) <= {row["index"] for row in record["classes"]}
        # The last depth is the output.
        close(record["trajectory"][name]["target"][-1], shares[record["target"]["index"]])
    assert record["classes"][0]["index"] == record["target"]["index"]


def test_heads_units_and_sublayers_by_hand() -> None:
    built, x = model(), pixels(1)

    def heads(number: int, x: Tensor) -> Tensor:
        if number == 1:
            x = x.clone()
            x[:, 1] = 0
        return x

    def hidden(number: int, units: Tensor) -> Tensor:
        if number == 0:
            units = units.clone()
            units[..., [2, 5]] = 0
        return units

    def mlp(number: int, x: Tensor) -> Tensor:
        return x if number != 2 else torch.zeros_like(x)

    record = recorded(
        classlens.load(built),
        x,
        {"edit": "AblateHeads", "heads": [1], "blocks": [1]},
        {"edit": "AblateNeurons", "units": [2, 5], "blocks": [0]},
        {"edit": "AblateSublayer", "sublayer": "mlp", "blocks": [2]},
        target=7,
    )
    assert record["target"]["index"] == 7
    assert_outputs(record, by_hand(built, x), by_hand(built, x, heads=heads, hidden=hidden, mlp=mlp))


def test_dropped_tokens_are_left_out_of_the_sequence() -> None:
    built, x = model(), pixels(1)
    kept = [0, 1, 3]
    without = copy.deepcopy(built)
    embed = without._pos_embed
    without._pos_embed = lambda patches: embed(patches)[:, kept]
    record = recorded(classlens.load(built), x, {"edit": "KeepTokens", "mask": kept}, target=2)
    assert_outputs(record, by_hand(built, x), by_hand(without, x))
    assert record["dropped"] == [2, 4]
    empty = [[value is None for value in row] for row in record["map"]["edited"]]
    assert empty == [[False, True], [False, True]]
    assert [[value is None for value in row] for row in record["map"]["difference"]] == empty
    assert all(None not in row for row in record["map"]["original"])
    assert [token for token, rank in enumerate(record["ranks"]["edited"]) if rank is None] == [2, 4]
    assert None not in record["ranks"]["original"]


def test_attention_to_cls_is_cut_and_means_are_put_in() -> None:
    built, x = model(), pixels(1)
    lens = classlens.load(built)
    means = random_means(lens.view)

    def weights(_: int, rows: Tensor) -> Tensor:
        rows = rows.clone()
        rows[:, :, 1:, 0] = 0
        return rows

    def mlp(number: int, x: Tensor) -> Tensor:
        return x if number != 1 else means.values["mlp_out.1"][None]

    record = recorded(
        lens,
        x,
        {"edit": "NoCls"},
        {"edit": "AblateSublayer", "sublayer": "mlp", "blocks": 1, "to": "means"},
        means=means,
    )
    assert_outputs(record, by_hand(built, x), by_hand(built, x, weights=weights, mlp=mlp))


def test_patch_takes_tokens_of_the_other_photo() -> None:
    built, x, other = model(), pixels(1), pixels(1, seed=8)
    outputs: list[Tensor] = []

    def keep(_: int, x: Tensor) -> Tensor:
        outputs.append(x)
        return x

    by_hand(built, other, mlp=keep)

    def mlp(number: int, x: Tensor) -> Tensor:
        if number == 1:
            x = x.clone()
            x[:, [1, 2]] = outputs[1][:, [1, 2]]
        return x

    edit = {"edit": "Patch", "site": "mlp_out", "blocks": [1], "tokens": [1, 2]}
    record = recorded(classlens.load(built), x, edit, source={"photo": 4}, pixels=other)
    assert_outputs(record, by_hand(built, x), by_hand(built, x, mlp=mlp))


def test_trajectory_reads_cls_after_every_block() -> None:
    built, x = model(), pixels(1)
    states: list[Tensor] = []
    for number in range(len(built.blocks) + 1):
        cut = copy.deepcopy(built)
        cut.blocks = cut.blocks[:number]

        def heads(block: int, x: Tensor) -> Tensor:
            return x if block != 0 else torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], dim=1)

        states.append(by_hand(cut, x, heads=heads)[0])
    record = recorded(classlens.load(built), x, {"edit": "AblateHeads", "heads": [0], "blocks": [0]}, target=4)
    values = record["trajectory"]["edited"]
    for depth, logits in enumerate(states):
        close(values["target"][depth], logits.softmax(dim=0)[4])
        assert values["top"][depth] == logits.topk(5).indices.tolist()
        rivals = torch.cat([logits[:4], logits[5:]])
        close(values["margin"][depth], logits[4] - rivals.max())
    assert {str(index) for top in values["top"] for index in top} <= set(record["names"])


def test_numbers_are_those_of_python() -> None:
    lens, x = classlens.load("builtin:cifar10"), torch.rand(1, 3, 32, 32)
    record = recorded(
        lens,
        x,
        {"edit": "AblateHeads", "heads": [0, 3], "blocks": [4, 5]},
        {"edit": "SelfOnly", "blocks": [1]},
        target=3,
        against=5,
    )
    with lens.edit(classlens.AblateHeads([0, 3], blocks=[4, 5]), classlens.SelfOnly(blocks=[1])):
        trace = lens.trace(x)
        picture = trace.map(3, against=5).values[0]
        rank = trace.rank("resid_post", 3).values[0, -1]
    np.testing.assert_allclose(record["map"]["edited"], picture, rtol=0, atol=1e-6)
    np.testing.assert_allclose(record["map"]["original"], lens.trace(x).map(3, against=5).values[0], rtol=0, atol=1e-6)
    less = picture - lens.trace(x).map(3, against=5).values[0]
    np.testing.assert_allclose(record["map"]["difference"], less, rtol=0, atol=1e-6)
    assert record["ranks"]["edited"] == rank.tolist()
    for row in record["classes"]:
        assert row["edited"]["logit"] == pytest.approx(float(trace.model_logits[0, row["index"]]), abs=1e-6)
    assert [row["index"] for row in record["classes"][:2]] == [3, 5]


def test_labels_have_no_trajectory() -> None:
    lens = classlens.load(model(), multi_label=True)
    record = recorded(lens, pixels(1), {"edit": "NoCls"})
    assert record["trajectory"] is None
    assert record["ranks"] is None
    for row in record["classes"]:
        assert row["edited"]["probability"] == pytest.approx(1 / (1 + np.exp(-row["edited"]["logit"])), abs=1e-12)


@pytest.mark.parametrize(
    ("edits", "options", "message"),
    [
        ([{"edit": "KeepTokens", "mask": [1, 2]}], {}, "drop every token that the head reads: keep [CLS]"),
        ([{"edit": "KeepTokens", "mask": [0, 99]}], {}, "token 99 does not exist: the model has tokens 0 to 4"),
        ([{"edit": "AblateHeads", "heads": [0], "blocks": [9]}], {}, "block 9 does not exist"),
        ([{"edit": "AblateHeads", "heads": [9]}], {}, "head 9 does not exist"),
        ([{"edit": "AblateNeurons", "units": [999]}], {}, "unit 999 does not exist"),
        ([{"edit": "CutAttention", "queries": [77], "keys": [0]}], {}, "token 77 does not exist"),
        ([{"edit": "AblateHeads", "heads": [0], "to": "means"}], {}, "puts in means, but none were given"),
        ([{"edit": "Patch", "site": "mlp_out"}], {"source": {"photo": 1}}, "needs the photo"),
        ([{"edit": "NoCls"}], {"target": 99}, "class 99 is not one of"),
    ],
)
def test_what_the_model_does_not_have_is_refused(edits: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClasslensError) as caught:
        recorded(classlens.load(zoo.build("cls_layer_scale")), pixels(1), *edits, **options)
    assert message in str(caught.value)


def test_original_is_one_photo_without_edits() -> None:
    lens = classlens.load(model())
    with pytest.raises(ClasslensError, match="a trace of 2 images"):
        edit_record(lens, lens.trace(pixels(2)), plan_of({"edits": []}))
    record = recorded(lens, pixels(1))
    assert all(row["change"]["logit"] == 0 for row in record["classes"])
