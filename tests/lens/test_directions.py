"""Directions and autoencoders: formulas in loops, files by hand, and files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import classlens
from classlens import Directions, read_directions
from tests import zoo
from tests.refusals import refused

PLACE = {"site": "resid_post", "block": "11"}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoencoder() -> dict[str, Tensor]:
    return {
        "W_dec": drawn(5, 3),
        "W_enc": drawn(3, 5, seed=1),
        "b_enc": drawn(5, seed=2),
        "b_dec": drawn(3, seed=3),
    }


@pytest.mark.parametrize("name", ["W_enc", "encoder"])
def test_coefficients_of_an_autoencoder(tmp_path: Path, name: str) -> None:
    """Stored in either layout, one feature of one token after another."""
    tensors = autoencoder()
    stored = dict(tensors)
    if name == "encoder":
        stored |= {"encoder": stored.pop("W_enc").T.contiguous(), "directions": stored.pop("W_dec")}
    save_file(stored, tmp_path / "sae.safetensors", PLACE)
    directions = read_directions(tmp_path / "sae.safetensors")
    assert (directions.site, directions.block) == ("resid_post", 11)
    assert torch.equal(directions.directions, tensors["W_dec"])
    states = drawn(2, 4, 3, seed=4)
    coefficients = directions.coefficients(states)
    assert coefficients.shape == (2, 4, 5)
    assert (coefficients == 0).any()
    for image in range(2):
        for token in range(4):
            for feature in range(5):
                total = float(tensors["b_enc"][feature])
                for channel in range(3):
                    centered = float(states[image, token, channel] - tensors["b_dec"][channel])
                    total += centered * float(tensors["W_enc"][channel, feature])
                assert float(coefficients[image, token, feature]) == pytest.approx(max(0.0, total), abs=1e-12)


def test_projections_are_least_squares_of_one_direction() -> None:
    rows, states, center = drawn(4, 3), drawn(6, 3, seed=1), drawn(3, seed=2)
    for bias in (None, center):
        coefficients = Directions(rows, "mlp_out", 2, decoder_bias=bias).coefficients(states)
        centered = (states if bias is None else states - bias).numpy()
        for feature in range(4):
            (expected, *_) = np.linalg.lstsq(rows[feature, :, None].numpy(), centered.T)
            np.testing.assert_allclose(coefficients[:, feature], expected[0], rtol=0, atol=1e-12)
    halves = Directions(rows.bfloat16(), "mlp_out", 2).coefficients(states.bfloat16())
    assert halves.dtype == torch.float32


def test_the_file_and_the_arguments_name_the_tokens(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    save_file({"directions": drawn(4, 3).float()}, path, PLACE)
    directions = read_directions(path, site="attn_out", block=2)
    assert (directions.site, directions.block, directions.encoder) == ("attn_out", 2, None)
    save_file({"directions": drawn(4, 3)}, path)
    refused(lambda: read_directions(path, block=1), "names no site", "give site=")
    refused(lambda: read_directions(path, site="mlp_out"), "names no block", "give block=")
    for block in ("x", "-1", "1.5", "²", ""):
        save_file({"directions": drawn(4, 3)}, path, {**PLACE, "block": block})
        refused(lambda: read_directions(path), f"block {block!r}", "expected a number")
    save_file({"directions": drawn(4, 3)}, path, {**PLACE, "site": "resid"})
    refused(lambda: read_directions(path), "'resid'", "resid_post")


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "no directions": ({"W_dec": None}, "holds no tensor directions or W_dec"),
    "both names": ({"directions": drawn(5, 3)}, "holds both directions and W_dec"),
    "another encoder": ({"threshold": drawn(5)}, "holds a tensor 'threshold'"),
    "not finite": ({"b_enc": torch.full((5,), torch.nan)}, "not finite"),
    "whole numbers": ({"b_enc": torch.ones(5).int()}, "int32"),
    "encoder": ({"W_enc": drawn(4, 3)}, "encoder of shape [4, 3] does not fit"),
    "encoder bias": ({"b_enc": drawn(3)}, "encoder bias of shape [3] does not fit"),
    "decoder bias": ({"b_dec": drawn(5)}, "decoder bias of shape [5] does not fit"),
    "dims": ({"W_dec": drawn(5)}, "directions of shape [5]"),
    "no features": ({"W_dec": drawn(0, 3)}, "directions of shape [0, 3]"),
    "square": ({"W_dec": drawn(3, 3), "W_enc": drawn(3, 3), "b_enc": drawn(3)}, "layout of its encoder cannot be told"),
    "bias alone": ({"W_enc": None}, "encoder_bias was given without an encoder"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_damaged_files_are_refused(tmp_path: Path, kind: str) -> None:
    changes, message = CHANGES[kind]
    tensors = {name: tensor for name, tensor in (autoencoder() | changes).items() if tensor is not None}
    save_file(tensors, tmp_path / "sae.safetensors", PLACE)
    refused(lambda: read_directions(tmp_path / "sae.safetensors"), message)


def test_other_files_are_refused(tmp_path: Path) -> None:
    refused(lambda: read_directions(tmp_path / "none.safetensors"), "cannot be read", "give a safetensors file")
    (tmp_path / "text").write_text("directions")
    refused(lambda: read_directions(tmp_path / "text"), "cannot be read")
    refused(lambda: read_directions(tmp_path), "not a regular file")


def test_what_cannot_be_a_set_of_directions() -> None:
    rows = drawn(4, 3)
    refused(lambda: Directions(torch.cat([rows, rows[:1] * 0]), "mlp_out", 0), "row 4 of directions is zero")
    Directions(rows * 0, "mlp_out", 0, encoder=rows)
    refused(lambda: Directions(rows, "mlp_out", 0, encoder_bias=drawn(4)), "without an encoder")
    refused(lambda: Directions(rows / 0, "mlp_out", 0), "not finite")
    refused(lambda: Directions(rows, "mlp_out", 0, encoder=drawn(3, 4)), "encoder")
    refused(lambda: Directions(rows, "mlp_out", -1), "block")
    refused(lambda: Directions(rows, "mlp_out", 0).coefficients(drawn(2, 4)), "states")


def test_the_classes_of_a_direction() -> None:
    model: Any = zoo.build("cls_layer_scale", torch.float32)
    names = [f"kind {number}" for number in range(zoo.CLASSES)]
    lens = classlens.load(model, class_names=names)
    rows = drawn(6, 24)
    classes = classlens.direction_classes(lens, Directions(rows, "resid_post", 2), 4, k=5)
    embedding = model.head.weight.detach().double()
    scores = embedding @ rows[4]
    best = scores.argsort(descending=True)[:5]
    assert classes.category.values.tolist() == best.tolist()
    assert classes.class_name.values.tolist() == [names[index] for index in best]
    cosines = scores / embedding.norm(dim=1) / rows[4].norm()
    np.testing.assert_allclose(classes.score, scores[best], rtol=0, atol=1e-5)
    np.testing.assert_allclose(classes.cosine, cosines[best], rtol=0, atol=1e-6)
    assert classes.attrs["feature"] == 4
    narrow = Directions(drawn(6, 12), "resid_post", 2)
    refused(lambda: classlens.direction_classes(lens, narrow, 0), "directions of width 12", "have width 24")
    refused(lambda: classlens.direction_classes(lens, Directions(rows, "resid_post", 2), 6), "feature", "from 0 to 5")
