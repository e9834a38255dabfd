"""Ablation to the means of a data set, against hooks of one's own on the modules of timm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

import classlens
from classlens import AblateHeads, AblateNeurons, AblateSublayer, Edit, KeepTokens, Lens, Means
from classlens.models.digest import weights_digest
from classlens.models.transforms import paper_transform
from tests import zoo
from tests.data.pictures import folder
from tests.models.tiny_timm import SIZE_32
from tests.refusals import refused
from tests.tasks.means.loops import Values, class_means_of, means_of
from tests.tasks.tiny import DATA_CLASSES, labels_of, lens_of, pixels_of

NAME = "cls_registers"
PREFIX, TOKENS = 3, 7
# Means are float32: logits of order 10 differ in the seventh digit, a few times over.
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 9, DATA_CLASSES)


@pytest.fixture(scope="module")
def lens() -> Lens:
    return lens_of(NAME)


@pytest.fixture(scope="module")
def means(lens: Lens, data: str, tmp_path_factory: pytest.TempPathFactory) -> Means:
    out = tmp_path_factory.mktemp("means") / "means.safetensors"
    classlens.means(lens, data, out, by_class=True, workers=0)
    return classlens.load_means(out)


@pytest.fixture(scope="module")
def literal(lens: Lens, data: str) -> Values:
    return means_of(lens.view.module, pixels_of(lens, data).double())


@pytest.fixture(scope="module")
def of_dogs(lens: Lens, data: str) -> Values:
    """Means over the dogs, put at every token: image tokens share one."""
    by_class = class_means_of(lens.view.module, pixels_of(lens, data).double(), labels_of(data), PREFIX)
    kinds = [min(token, PREFIX) for token in range(TOKENS)]
    return {key: values[kinds] for key, values in by_class[1].items()}


@contextmanager
def replaced(module: Any, values: Values, columns: dict[str, list[int]], tokens: list[int]) -> Iterator[None]:
    """Hooks that put means in the place of some columns, by the name of what passes, at some tokens."""

    def put(key: str, x: Tensor) -> Tensor:
        x = x.clone()
        for token in tokens:
            for column in columns[key]:
                x[:, token, column] = values[key][token, column]
        return x

    handles = []
    for number, block in enumerate(module.blocks):
        places = {
            "attn_out": (block.drop_path1, "output"),
            "mlp_out": (block.drop_path2, "output"),
            "attn_coefficients": (block.attn.proj, "input"),
            "mlp_coefficients": (block.mlp.fc2, "input"),
        }
        for point, (part, end) in places.items():
            key = f"{point}.{number}"
            if key not in columns:
                continue
            if end == "output":
                handles.append(part.register_forward_hook(lambda _, __, out, key=key: put(key, out)))
            else:
                handles.append(part.register_forward_pre_hook(lambda _, args, key=key: (put(key, args[0]),)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def head(*heads: int) -> list[int]:
    return [8 * number + channel for number in heads for channel in range(8)]


EVERY = list(range(24))
CASES: dict[str, tuple[Callable[[Means], Edit], dict[str, list[int]], list[int]]] = {
    "heads": (
        lambda to: AblateHeads([2, 0], blocks=[1], to=to),
        {"attn_coefficients.1": head(2, 0)},
        list(range(TOKENS)),
    ),
    "heads, some tokens": (
        lambda to: AblateHeads(1, tokens="image", to=to),
        {f"attn_coefficients.{block}": head(1) for block in range(3)},
        [3, 4, 5, 6],
    ),
    "neurons": (
        lambda to: AblateNeurons([40, 3, 17], blocks=[0, 2], tokens=[0, 5], to=to),
        {"mlp_coefficients.0": [3, 17, 40], "mlp_coefficients.2": [3, 17, 40]},
        [0, 5],
    ),
    "channels": (
        lambda to: AblateNeurons([9, 1], sublayer="attn", blocks=2, to=to),
        {"attn_coefficients.2": [1, 9]},
        list(range(TOKENS)),
    ),
    "attention": (lambda to: AblateSublayer("attn", blocks=0, to=to), {"attn_out.0": EVERY}, list(range(TOKENS))),
    "mlp": (
        lambda to: AblateSublayer("mlp", tokens="prefix", to=to),
        {f"mlp_out.{block}": EVERY for block in range(3)},
        [0, 1, 2],
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", ["all images", "dogs"])
def test_ablated_to_means(lens: Lens, means: Means, literal: Values, of_dogs: Values, case: str, which: str) -> None:
    edit, columns, tokens = CASES[case]
    to, values = (means, literal) if which == "all images" else (means.by_class("dog"), of_dogs)
    module: Any = lens.view.module
    x = zoo.pixels(NAME, 4)
    with torch.no_grad():
        plain = module(x)
        with replaced(module, values, columns, tokens):
            expected = module(x)
        with lens.edit(edit(to)):
            found = module(x)
            alone = torch.cat([module(image[None]) for image in x])
    torch.testing.assert_close(found, expected, **CLOSE)
    assert float((found - plain).abs().max()) > 1e-2
    # Whatever else is in the batch; products of other sizes round differently.
    torch.testing.assert_close(alone, found, rtol=0, atol=1e-11)


def test_dropped_tokens_keep_the_places_of_the_others(lens: Lens, means: Means, literal: Values) -> None:
    """Against a model that embeds the kept tokens alone, whose means are those of their own places."""
    kept = [0, 1, 2, 4, 6]
    module: Any = lens.view.module
    x = zoo.pixels(NAME, 2)
    own = {key: values[kept] for key, values in literal.items()}
    columns = {"attn_coefficients.1": head(0), "mlp_out.2": EVERY}
    mask = torch.tensor([token in kept for token in range(TOKENS)])
    edits: list[Edit] = [AblateHeads(0, blocks=1, to=means), AblateSublayer("mlp", blocks=2, to=means)]
    with torch.no_grad():
        first = module.blocks[0].register_forward_pre_hook(lambda _, args: (args[0][:, kept],))
        with replaced(module, own, columns, list(range(len(kept)))):
            expected = module(x)
        first.remove()
        for order in ([KeepTokens(mask), *edits], [*edits, KeepTokens(mask)]):
            with lens.edit(*order):
                torch.testing.assert_close(module(x), expected, **CLOSE)


def test_heads_before_an_inner_norm(data: str, tmp_path: Path) -> None:
    module: Any = timm.create_model("vit_tiny_patch16_224", **SIZE_32, scale_attn_norm=True)
    zoo.randomize(module)
    lens = classlens.load(module.double().eval(), transform=paper_transform((32, 32)))
    means = classlens.means(lens, data, tmp_path / "means.safetensors", workers=0).means
    literal = means_of(module, pixels_of(lens, data).double())
    channels = module.blocks[1].attn.head_dim
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def put(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        joined = args[0].clone()
        joined[..., channels : 2 * channels] = literal["attn_joined.1"][:, channels : 2 * channels]
        return (joined,)

    with torch.no_grad():
        with lens.edit(AblateHeads(1, blocks=1, to=means)):
            found = module(x)
        handle = module.blocks[1].attn.norm.register_forward_pre_hook(put)
        expected = module(x)
        handle.remove()
        assert not torch.allclose(found, module(x))
    torch.testing.assert_close(found, expected, **CLOSE)


def entered(lens: Lens, edit: Edit) -> Callable[[], None]:
    def enter() -> None:
        with lens.edit(edit):
            pytest.fail("entered")

    return enter


def edits(to: Means) -> list[Edit]:
    return [AblateHeads(0, to=to), AblateNeurons([0], to=to), AblateSublayer("mlp", to=to)]


def test_means_of_another_model(means: Means) -> None:
    """Of the same shape, of another shape, and of other class embeddings."""
    others = [zoo.build(NAME, seed=5), zoo.build("cls"), zoo.build(NAME, torch.float32)]
    with torch.no_grad():
        others.append(zoo.build(NAME))
        others[-1].head.weight[0, 0] += 1e-6
    for module in others:
        other = classlens.load(module)
        before = zoo.snapshot(module)
        for edit in (*edits(means), *edits(means.by_class(0))):
            refused(entered(other, edit), "to= has means of model", "with other weights", "`classlens means`")
        assert zoo.snapshot(module) == before


def test_weights_that_have_changed_since(means: Means) -> None:
    module: Any = zoo.build(NAME)
    lens = classlens.load(module)
    with lens.edit(AblateHeads(0, to=means)):
        pass
    with torch.no_grad():
        module.blocks[0].mlp.fc1.bias[0] += 1
    refused(entered(lens, AblateHeads(0, to=means)), "with other weights")
    with torch.no_grad():
        module.blocks[0].mlp.fc1.bias[0] = zoo.build(NAME).blocks[0].mlp.fc1.bias[0]
    with lens.edit(AblateHeads(0, to=means)):
        pass


def test_another_number_of_tokens(data: str, tmp_path: Path) -> None:
    """A model of any size takes its means at their size alone; its weights are the same at every size."""
    lens = classlens.load(zoo.build("cls_dynamic"), transform=paper_transform((16, 16)))
    assert lens.view.any_size
    means = classlens.means(lens, data, tmp_path / "means.safetensors", workers=0).means
    assert means.tokens.count == 5
    for edit in edits(means):
        with lens.edit(edit):
            lens.trace(torch.zeros(1, 3, 16, 16))
            refused(lambda: lens.trace(torch.zeros(1, 3, 16, 32)), "or means of this number of tokens")
    fixed = classlens.load(zoo.build("cls"))
    own = replace(means, weights=weights_digest(fixed.view), tokens=replace(means.tokens, grid=(1, 4)))
    refused(entered(fixed, AblateHeads(0, to=own)), "5 tokens (1×4 image tokens)", "5 tokens (2×2 image tokens)")


def test_values_that_a_file_lacks(lens: Lens, means: Means) -> None:
    every: dict[str, Callable[[Means], Edit]] = {
        "attn_out": lambda to: AblateSublayer("attn", to=to),
        "mlp_out": lambda to: AblateSublayer("mlp", to=to),
        "attn_coefficients": lambda to: AblateHeads(0, to=to),
        "mlp_coefficients": lambda to: AblateNeurons(0, to=to),
    }
    for key, values in means.values.items():
        point, _, block = key.partition(".")
        says = f"at {point} of block {block}, but model"
        narrow = replace(means, values={**means.values, key: values[:, :5]})
        refused(entered(lens, every[point](narrow)), f"5 channels {says}")
        lacking = replace(means, values={other: given for other, given in means.values.items() if other != key})
        refused(entered(lens, every[point](lacking)), f"no values {says}")


def test_classes_without_means(means: Means) -> None:
    refused(lambda: means.by_class("other 3"), "category 'other 3' has no images", "images of this class")
    refused(lambda: means.by_class("cta"), "class 'cta' is not one", "did you mean 'cat'")
    refused(lambda: means.by_class(11), "class 11 is not one")
    dogs = means.by_class("dog")
    assert (dogs.images, dogs.data) == (3, f"{means.data}, dog")
    refused(lambda: dogs.by_class("dog"), "not by class", "--by-class")
    assert torch.equal(means.by_class(1).values["mlp_out.2"], dogs.values["mlp_out.2"])


def test_explanations_of_a_model_ablated_to_means(lens: Lens, means: Means) -> None:
    """What the means add is part of the exact sum (law 3)."""
    x = zoo.pixels(NAME, 2)
    for edit in edits(means):
        with lens.edit(edit):
            trace = lens.trace(x)
            parts = trace.attribution(1)
        total = parts["embed"] + parts["attention"].sum(["block", "head"]) + parts["mlp"].sum("block")
        total = total + parts["bias"] + parts["edit"].sum("block")
        np.testing.assert_allclose(total, trace.model_logits[:, 1], rtol=0, atol=1e-9)
