"""All classes at once, and one against another, are what one class after another gives."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import classlens
from classlens.explain import all_classes as every_class
from classlens.explain import gradient
from classlens.forward.attention import attention_weights
from tests import zoo
from tests.models.test_timm_linear_head import backbone_of, linear
from tests.models.tiny_timm import FAMILIES
from tests.refusals import refused


@pytest.mark.parametrize("loss", ["logit", "cross_entropy"])
@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_every_class_is_each_class(name: str, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is folded or not, whatever is held at once."""
    trace = classlens.load(zoo.build(name)).trace(zoo.pixels(name))
    single = [trace.explain(c, loss=loss) for c in range(zoo.CLASSES)]
    for scratch in (every_class._SCRATCH, 1):
        monkeypatch.setattr(every_class, "_SCRATCH", scratch)
        every = trace.explain("all", loss=loss)
        assert every.dims == ("image", "category", "token")
        assert every.class_name.values.tolist() == list(trace.classes.names)
        for c, found in enumerate(single):
            # float64; norms magnify by ten or so.
            np.testing.assert_allclose(every.sel(category=c), found.sum(("block", "head")), atol=1e-9)
    some = list(trace.explain_classes(step=4, loss=loss))
    assert sum(part.sizes["category"] for part in some) == zoo.CLASSES
    for part in some:
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


@pytest.mark.parametrize("loss", ["logit", "cross_entropy"])
@pytest.mark.parametrize("name", ["two heads", "two halves"])
def test_every_class_of_a_model_with_two_readouts(name: str, loss: str) -> None:
    """Also what the softmax adds has the weight of its readout."""
    module, options = two_readouts(name)
    lens = classlens.load(module, **options)
    assert len(lens.view.readouts) == 2
    pixels = torch.randn(2, 3, *lens.view.input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    trace = lens.trace(pixels)
    every = trace.explain("all", loss=loss)
    some = list(trace.explain_classes(step=3, loss=loss))
    for c in range(lens.view.num_classes):
        single = trace.explain(c, loss=loss)
        assert np.abs(single).max() > 1e-4
        np.testing.assert_allclose(every.sel(category=c), single.sum(("block", "head")), atol=1e-10)
        (part,) = (part for part in some if c in part.category)
        np.testing.assert_allclose(part.sel(category=c), single, atol=1e-10)


class Largest(TorchDispatchMode):
    """Sizes of the tensors that operations make anew, in numbers; views and what is written in place are none."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        there = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = (x for x in tree_leaves(result) if isinstance(x, torch.Tensor))
        self.sizes += [x.numel() for x in made if x.untyped_storage().data_ptr() not in there]
        return result


@pytest.mark.parametrize("loss", ["logit", "cross_entropy"])
@pytest.mark.parametrize(("pool", "post_norm"), [("token", False), ("avg", False), ("token", True)])
def test_a_thousand_classes_need_little_beside_the_result(
    pool: Literal["token", "avg"], post_norm: bool, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second tensor as large as the result, nor any near it, whether matrices are folded or not."""
    model: Any = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=1000,
        global_pool=pool,
        block_fn=ResPostBlock if post_norm else Block,
    )
    zoo.randomize(model)
    images, tokens, classes, width = 32, 16, 1000, 32
    trace = classlens.load(model.eval()).trace(torch.rand(images, 3, 32, 32))
    monkeypatch.setattr(every_class, "_SCRATCH", 2**16)
    monkeypatch.setattr(gradient, "_ROWS", tokens)
    with Largest() as seen:
        found = trace.explain("all", loss=loss)
    result = images * tokens * classes
    assert found.size == result
    largest = sorted(seen.sizes)[::-1]
    assert largest.count(result) == 1
    # The scratch, one matrix a block for all classes, and logits of the queries of one image, with some air.
    allowed = max(2**16, classes * width, tokens * classes)
    assert allowed < result / 7
    assert largest[1] <= 1.5 * allowed, largest[:4]


def test_few_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = classlens.load(zoo.build("avg")).trace(zoo.pixels("avg"))
    whole = trace.explain("all").values
    monkeypatch.setattr(gradient, "_ROWS", 1)
    np.testing.assert_allclose(trace.explain("all").values, whole, atol=1e-12)


def test_float32_is_near_float64() -> None:
    single, double = (
        classlens.load(zoo.build("cls", dtype)).trace(zoo.pixels("cls", dtype=dtype)).explain("all").values
        for dtype in (torch.float32, torch.float64)
    )
    assert single.dtype == np.float32
    # Sums of a hundred products, rounded at 6e-8 of the largest.
    np.testing.assert_allclose(single, double, atol=1e-5 * np.abs(double).max())


@pytest.mark.parametrize("name", zoo.KINDS)
def test_why_this_class_and_not_that(name: str) -> None:
    trace = classlens.load(zoo.build(name)).trace(zoo.pixels(name))
    contrast = trace.explain(zoo.targets(), against=2)
    apart = trace.explain(zoo.targets(), loss="logit") - trace.explain(2, loss="logit")
    np.testing.assert_allclose(contrast, apart, atol=1e-10)
    assert contrast.attrs["loss"] == "logit"
    np.testing.assert_allclose(trace.explain(1, against=4), -trace.explain(4, against=1), atol=1e-12)
    assert not trace.explain(3, against=3).any()


def test_maps_of_every_class_lie_on_the_grid() -> None:
    trace = classlens.load(zoo.build("cls_not_square")).trace(zoo.pixels("cls_not_square"))
    maps = trace.map("all")
    assert maps.dims == ("image", "category", "row", "column")
    assert maps.sizes["row"] == 3
    np.testing.assert_array_equal(maps.values.reshape(3, zoo.CLASSES, 6), trace.explain("all").values)


@pytest.mark.parametrize(("query", "place"), [("cls", 0), ("reg1", 2), ((1, 0), 5), (4, 4)])
def test_another_query(query: object, place: int) -> None:
    """The gradient for a token's own attention, read through its own class space, by autograd."""
    from tests import literal

    name = "cls_registers"
    trace = classlens.load(zoo.build(name)).trace(zoo.pixels(name))
    wanted = literal.attention_gradient(
        zoo.build(name),
        zoo.pixels(name),
        zoo.targets(),
        loss="logit",
        pooled=(place,),
        image_tokens=slice(3, None),
    )
    found = trace.explain(zoo.targets(), loss="logit", query=query)
    np.testing.assert_allclose(found.values, wanted, atol=1e-9)
    every = trace.explain("all", query=query)
    for image, target in enumerate(zoo.targets().tolist()):
        np.testing.assert_allclose(every[image, target], wanted[image].sum(dim=(0, 1)), atol=1e-9)
    raw = trace.explain(method="attention", query=query)
    np.testing.assert_array_less(raw.sum("token"), 1)


@pytest.mark.parametrize("method", ["attention", "rollout", "chefer"])
@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.pooling == "map"])
def test_a_head_that_pools_by_attention_needs_a_query(name: str, method: str) -> None:
    """A plain mean over all rows is not what such a head reads."""
    module: Any = FAMILIES[name].make()
    zoo.randomize(module)
    trace = classlens.load(module.double().eval()).trace(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    refused(
        lambda: trace.explain(0, method=method), "query=(row, column)", "use class_gradient", "attention of its own"
    )
    rows = trace.recording.tokens.image
    place = rows.start + trace.recording.tokens.grid[1]
    weights = attention_weights(trace.recording.view, trace.recording.pixels)
    found = trace.explain(0, method=method, query=(1, 0))
    if method == "attention":
        np.testing.assert_allclose(found, weights[-1].mean(dim=1)[:, place, rows], atol=1e-12)
    assert float(found.max()) > 0
    assert float(trace.explain(0).max()) > 0


def test_refusals() -> None:
    trace = classlens.load(zoo.build("cls_registers")).trace(zoo.pixels("cls_registers"))
    refused(lambda: trace.explain(0, query="reg"), "'reg' is no prefix token", "'cls', 'reg0', 'reg1'")
    refused(lambda: trace.explain(0, query=(2, 0)), "grid of 2 by 2")
    refused(lambda: trace.explain(0, query=7), "0 to 6")
    refused(lambda: trace.explain("all", loss="double_softmax"), "is not folded")
    refused(lambda: trace.explain("all", against=2), "no option 'against'")
    refused(lambda: next(trace.explain_classes(step=0)), "step 0 cannot be used")
