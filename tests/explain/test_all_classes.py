"""The class gradient of all classes at once is that of one class after another."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import classlens
from classlens.core.attention import Loss
from classlens.explain import all_classes, class_gradient
from tests import zoo
from tests.models.test_timm_linear_head import backbone_of, linear
from tests.models.tiny_timm import FAMILIES
from tests.refusals import refused

# The gradient of cross_entropy is that of logit, and a term that all classes share: each variant with both.
PAIRS: list[tuple[str, Loss]] = [(name, "cross_entropy") for name in zoo.VARIANTS]
PAIRS += [(name, "logit") for name in zoo.KINDS]


@pytest.mark.parametrize(("name", "loss"), PAIRS)
def test_every_class_is_each_class(name: str, loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a block can be folded or not, however many numbers are held at once."""
    trace = classlens.load(zoo.build(name)).trace(zoo.pixels(name))
    single = [trace.explain(c, loss=loss, method="class_gradient") for c in range(zoo.CLASSES)]
    for scratch in (all_classes._SCRATCH, 1):
        monkeypatch.setattr(all_classes, "_SCRATCH", scratch)
        every = trace.explain_every_class(loss=loss)
        assert every.dims == ("image", "category", "token")
        assert every.class_name.values.tolist() == list(trace.classes.names)
        assert every.attrs == single[0].attrs == {"method": "class_gradient", "loss": loss}
        for c, maps in enumerate(single):
            # float64; norms magnify by ten or so.
            np.testing.assert_allclose(every.sel(category=c), maps.sum(("block", "head")), atol=1e-9)
    parts = list(trace.explain_classes(step=4, loss=loss))
    assert sum(part.sizes["category"] for part in parts) == zoo.CLASSES
    for part in parts:
        assert part.dims == ("image", "category", "block", "head", "token")
        for c in part.category.values:
            np.testing.assert_allclose(part.sel(category=c), single[int(c)], atol=1e-9)


def two_readouts(name: str) -> tuple[Any, dict[str, Any]]:
    """A model of two heads, and one head in two halves, with what it is loaded with."""
    if name == "two heads":
        module: Any = FAMILIES["DeiT distilled"].make()
        zoo.randomize(module)
        return module.double().eval(), {}
    return backbone_of("vit_small_patch14_reg4_dinov2"), {"head": linear(48)}


@pytest.mark.parametrize("name", ["two heads", "two halves"])
def test_every_class_of_a_model_with_two_readouts(name: str) -> None:
    """The term that all classes share has the weight of its readout, too."""
    module, options = two_readouts(name)
    lens = classlens.load(module, **options)
    assert len(lens.view.readouts) == 2
    pixels = torch.randn(2, 3, *lens.view.input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    trace = lens.trace(pixels)
    every = trace.explain_every_class(loss="cross_entropy")
    parts = list(trace.explain_classes(step=3, loss="cross_entropy"))
    for c in range(lens.view.num_classes):
        single = trace.explain(c, method="class_gradient")
        assert np.abs(single).max() > 1e-4
        np.testing.assert_allclose(every.sel(category=c), single.sum(("block", "head")), atol=1e-10)
        (part,) = (part for part in parts if c in part.category)
        np.testing.assert_allclose(part.sel(category=c), single, atol=1e-10)


class Largest(TorchDispatchMode):
    """Sizes of the tensors that operations allocate, in numbers; views and in-place results are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        outputs = (x for x in tree_leaves(result) if isinstance(x, torch.Tensor))
        self.sizes += [x.numel() for x in outputs if x.untyped_storage().data_ptr() not in inputs]
        return result


@pytest.mark.parametrize(
    ("pool", "post_norm", "loss"),
    [
        ("token", False, "logit"),
        ("token", False, "cross_entropy"),
        ("avg", False, "cross_entropy"),
        ("token", True, "cross_entropy"),
    ],
)
def test_many_classes_need_little_beside_the_result(
    pool: Literal["token", "avg"], post_norm: bool, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second tensor as large as the result, nor any near it, whether matrices are folded or not."""
    images, tokens, classes, width, scratch = 24, 16, 200, 16, 2**13
    model: Any = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=width,
        depth=2,
        num_heads=2,
        num_classes=classes,
        global_pool=pool,
        block_fn=ResPostBlock if post_norm else Block,
    )
    zoo.randomize(model)
    trace = classlens.load(model.eval()).trace(torch.rand(images, 3, 32, 32))
    monkeypatch.setattr(all_classes, "_SCRATCH", scratch)
    monkeypatch.setattr(class_gradient, "_ROWS", tokens)
    with Largest() as allocated:
        maps = trace.explain_every_class(loss=loss)
    result = images * tokens * classes
    assert maps.size == result
    largest = sorted(allocated.sizes)[::-1]
    assert largest.count(result) == 1
    # The scratch, one matrix a block for all classes, and logits of the queries of one image, with some air.
    allowed = max(scratch, classes * width, tokens * classes)
    assert allowed < result / 7
    assert largest[1] <= 1.5 * allowed, largest[:4]


def test_few_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = classlens.load(zoo.build("avg")).trace(zoo.pixels("avg"))
    together = trace.explain_every_class().values
    monkeypatch.setattr(class_gradient, "_ROWS", 1)
    np.testing.assert_allclose(trace.explain_every_class().values, together, atol=1e-12)


def test_float32_is_near_float64() -> None:
    single, double = (
        classlens.load(zoo.build("cls", dtype)).trace(zoo.pixels("cls", dtype=dtype)).explain_every_class().values
        for dtype in (torch.float32, torch.float64)
    )
    assert single.dtype == np.float32
    # Sums of a hundred products, rounded at 6e-8 of the largest.
    np.testing.assert_allclose(single, double, atol=1e-5 * np.abs(double).max())


def test_refusals() -> None:
    trace = classlens.load(zoo.build("cls_registers")).trace(zoo.pixels("cls_registers"))
    refused(lambda: trace.explain_every_class(loss="double_softmax"), "'double_softmax' has no form for all classes")
    refused(lambda: trace.explain_every_class(loss="hinge"), "loss 'hinge' is not known")  # type: ignore[arg-type]
    refused(lambda: trace.explain_every_class(query="reg"), "'reg' is no prefix token")
    for step in (0, 1.5, "3"):
        refused(lambda step=step: next(trace.explain_classes(step)), "step ", "a whole number of at least 1")  # type: ignore[misc]
