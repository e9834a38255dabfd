"""Every result carries its names: dims, coordinates, and selection by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import classlens
from classlens.lens.coords import array, method_attrs, token_coords
from classlens.models.view import Tokens
from tests import zoo

NAMES = tuple(f"kind {letter}" for letter in "abcdefghijk")


def _trace(name: str) -> classlens.Trace:
    return classlens.load(zoo.build(name), class_names=NAMES).trace(zoo.pixels(name))


def test_prefix_tokens_stand_outside_the_grid() -> None:
    coords = token_coords(Tokens(("cls", "reg0"), (2, 3)))
    assert coords["token"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert coords["token_kind"][1].tolist() == ["cls", "reg0"] + ["image"] * 6
    assert coords["row"][1].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert coords["column"][1].tolist() == [-1, -1, 0, 1, 2, 0, 1, 2]


def test_image_tokens_keep_their_own_index() -> None:
    coords = token_coords(Tokens(("cls", "reg0"), (1, 2)), image_only=True)
    assert coords["token"].tolist() == [2, 3]
    assert coords["token_kind"][1].tolist() == ["image", "image"]
    assert coords["row"][1].tolist() == [0, 0]
    assert coords["column"][1].tolist() == [0, 1]


def test_an_array_is_labeled_without_a_copy() -> None:
    values = torch.zeros(2, 3)
    labeled = array(
        values, ("image", "block"), {"image": ["a", "b"], "head": [0], "row": ("token", [1])}, name="x", k="v"
    )
    assert set(labeled.coords) == {"image"}
    assert labeled.name == "x"
    assert labeled.attrs == {"k": "v"}
    values[1, 2] = 5
    assert labeled.sel(image="b").values[2] == 5


def test_attributes_name_a_method_and_leave_its_options_alone() -> None:
    options = {"against": 3, "query": None}
    assert method_attrs("class_gradient", options) == {"method": "class_gradient", "against": "3", "loss": "logit"}
    assert options == {"against": 3, "query": None}
    assert method_attrs("class_gradient", {}) == {"method": "class_gradient", "loss": "cross_entropy"}
    assert method_attrs("rollout", {"query": (1, 0)}) == {"method": "rollout", "query": "(1, 0)"}


@pytest.mark.parametrize("name", ["cls_registers", "avg", "cls_not_square", "cls_dynamic", "avg_includes_prefix"])
def test_coordinates_name_every_axis(name: str) -> None:
    variant, trace = zoo.VARIANTS[name], _trace(name)
    rows, columns = variant.grid
    prefix = len(variant.prefix)
    kinds = [*variant.prefix, *["image"] * (rows * columns)]
    logits = trace.logits("mlp_out")
    assert logits.sizes == {"image": 3, "block": 3, "token": prefix + rows * columns, "category": zoo.CLASSES}
    facts = trace.facts(("attn_out", "resid_post"), zoo.targets())
    for labeled in (logits, facts, trace.rank("embed", 0), trace.top("mlp_out", 2)):
        assert labeled.image.values.tolist() == ["image 0", "image 1", "image 2"]
        assert labeled.token_kind.values.tolist() == kinds
        grid = [(row, column) for row in range(rows) for column in range(columns)]
        places = list(zip(labeled.row.values.tolist(), labeled.column.values.tolist(), strict=True))
        assert places == [(-1, -1)] * prefix + grid
    assert logits.block.values.tolist() == [0, 1, 2]
    assert logits.class_name.values.tolist() == list(NAMES)
    assert trace.logits("embed").block.values.tolist() == [0]
    assert facts.target.values.tolist() == zoo.targets().tolist()
    assert facts.target_name.values.tolist() == [NAMES[index] for index in zoo.targets()]

    explained = trace.explain("kind c", loss="logit", method="class_gradient")
    assert explained.sizes == {"image": 3, "block": 3, "head": 3, "token": rows * columns}
    assert explained.token.values.tolist() == list(range(prefix, prefix + rows * columns))
    assert set(explained.token_kind.values) == {"image"}
    assert explained.target_name.values.tolist() == ["kind c"] * 3
    assert explained.attrs["loss"] == "logit"

    mapped = trace.map("kind c")
    assert mapped.sizes == {"image": 3, "row": rows, "column": columns}
    assert mapped.row.values.tolist() == list(range(rows))
    assert mapped.target_name.values.tolist() == ["kind c"] * 3

    parts = trace.attribution("kind c")
    assert parts.attention_token.sizes == {"image": 3, "block": 3, "head": 3, "token": len(kinds)}
    assert parts.attention_token.token_kind.values.tolist() == kinds
    assert parts.mlp.dims == ("image", "block")
    assert parts.embed.dims == parts.bias.dims == parts.logit.dims == ("image",)


def test_selection_by_name_is_indexing() -> None:
    trace = _trace("cls_registers")
    logits = trace.logits("resid_post")
    selected = logits.sel(image="image 1", block=2, category=NAMES.index("kind d"))
    np.testing.assert_array_equal(selected, logits.values[1, 2, :, 3])
    np.testing.assert_array_equal(
        logits.swap_dims(category="class_name").sel(class_name="kind d"), logits.values[..., 3]
    )
    image_tokens = logits.where(logits.token_kind == "image", drop=True)
    np.testing.assert_array_equal(image_tokens, logits.values[:, :, 3:])
    corner = logits.isel(token=(logits.row == 1) & (logits.column == 0))
    np.testing.assert_array_equal(corner.squeeze("token"), logits.values[:, :, 3 + 2])
    by_kind = trace.identifiability("resid_post", 0).groupby("token_kind").mean(["image", "token"])
    assert sorted(by_kind.token_kind.values) == ["cls", "image", "reg0", "reg1"]
    facts = trace.facts(("attn_out", "resid_post"), zoo.targets())
    np.testing.assert_array_equal(facts.logit.sel(site="resid_post"), facts.logit.values[:, 1])
    explained, mapped = trace.explain(), trace.map()
    np.testing.assert_allclose(
        explained.sum(("block", "head")).isel(token=3), mapped.sel(row=1, column=1), rtol=0, atol=1e-12
    )


def test_output_and_predictions_carry_class_names() -> None:
    trace = _trace("cls")
    assert trace.model_logits.dims == ("image", "category")
    assert trace.model_logits.class_name.values.tolist() == list(NAMES)
    best = trace.model_logits.argmax("category")
    np.testing.assert_array_equal(trace.predictions, best)
    assert trace.predictions.class_name.values.tolist() == [NAMES[index] for index in best.values]
