"""Edits in the models of every library: tokens are really dropped, no trace is left (law 4), mistakes are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens import (
    AblateHeads,
    AblateNeurons,
    AblateSublayer,
    ClasslensError,
    CutAttention,
    KeepTokens,
    Lens,
    NoCls,
    Patch,
    SelfOnly,
)
from classlens.forward.edits.edits import PATCHED, Edit, Step
from classlens.models.view import ModelView
from tests import zoo
from tests.models.library_models import MODELS
from tests.models.tiny_timm import FAMILIES

Make = Callable[[], nn.Module]
_OTHERS: dict[str, Make] = {f"timm {name}": family.make for name, family in FAMILIES.items()}
EVERY: dict[str, Make] = {**MODELS, **_OTHERS}
# Their attention knows positions, so their blocks do not take another number of tokens: nothing to hold them against.
POSITIONS = ("BEiT", "Beit", "EVA", "DINOv3", "relative position", "RoPE", "PE, pool")


def loaded(name: str) -> tuple[Lens, Tensor]:
    """The lens of a model in float64 and pixels of two images."""
    module = EVERY[name]()
    if name not in MODELS:
        zoo.randomize(module)
    lens = classlens.load(module.eval().double())
    view = lens.view
    generator = torch.Generator().manual_seed(3)
    return lens, torch.randn(2, view.channels, *view.input_size, dtype=torch.float64, generator=generator)


@contextmanager
def dropped(first: nn.Module, kept: Tensor) -> Iterator[None]:
    """One image's tokens, all but the kept ones, taken out of the sequence before the first block."""

    def gather(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = next(iter(kwargs), "")
        x = args[0] if args else kwargs[name]
        left = x[:, kept] if x.shape[1] == len(kept) else x[kept]  # OpenCLIP may put tokens before images
        return ((left, *args[1:]), kwargs) if args else (args, {**kwargs, name: left})

    handle = first.register_forward_pre_hook(gather, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("name", [name for name in EVERY if not any(part in name for part in POSITIONS)])
def test_kept_tokens_are_what_dropping_gives(name: str) -> None:
    lens, x = loaded(name)
    view = lens.view
    count, start = view.tokens(view.input_size).count, len(view.prefix)
    mask = torch.ones(2, count, dtype=torch.bool)
    mask[0, start] = mask[0, -1] = mask[1, start + 1] = False
    with torch.no_grad():
        with lens.edit(KeepTokens(mask)):
            found = view.run(x)
        first = view.blocks[0].points["resid_pre"].module
        for image in range(2):
            with dropped(first, mask[image]):
                expected = view.run(x[image : image + 1])
            torch.testing.assert_close(found[image : image + 1], expected, rtol=0, atol=1e-10)
        assert not torch.allclose(found, view.run(x))


class Interrupted(Exception):
    pass


@dataclass
class Lost:
    """An edit of a place that no block has, which shows when the others are in place."""

    def steps(self, view: ModelView) -> Iterator[Step]:
        yield Step("attention", len(view.blocks) - 1, self.change)
        yield Step("nowhere", 0, self.change)

    @staticmethod
    def change(x: Tensor, _: slice) -> Tensor:
        return x


def kinds(lens: Lens, x: Tensor) -> list[Edit]:
    """Every kind of edit that the model can do, all at once."""
    view = lens.view
    count = view.tokens(view.input_size).count
    shown = [name for name, point in view.blocks[0].points.items() if point.editable]
    patched = [site for site in PATCHED if site != "heads" and (site in shown or site in ("embed", "resid_post"))]
    if "mlp_out" not in shown:
        patched = [site for site in patched if site != "resid_post"]
    # As many as run: within another context the source is edited as well, and one image has no mean.
    source = x.flip(0)
    edits: list[Edit] = [
        KeepTokens(torch.arange(count) != count - 1),
        SelfOnly(blocks=0),
        CutAttention("all", [0, 1], renormalize=True, heads=[0]),
        AblateHeads([1], to="mean"),
        AblateNeurons([0, 5], blocks=0),
        AblateNeurons([1], blocks=0, sublayer="attn", to=torch.tensor(0.25)),
        *(AblateSublayer(part, blocks=1, to="mean") for part in ("attn", "mlp") if f"{part}_out" in shown),
        *(Patch(site, source, blocks=0, tokens="image") for site in patched),
        Patch("heads", source, blocks=1, heads=[0]),
    ]
    return [*edits, NoCls(renormalize=True)] if "cls" in view.prefix else edits


@pytest.mark.parametrize("name", EVERY)
def test_no_trace_is_left(name: str) -> None:
    lens, x = loaded(name)
    module = lens.view.module
    next(iter(module.parameters())).requires_grad_(False)
    with torch.no_grad():
        expected = lens.view.run(x)
    parts = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]
    for part in parts[:1]:
        part.train()  # a flag that is not like the others
    before = zoo.snapshot(module)
    edits = kinds(lens, x)

    def untouched() -> None:
        assert zoo.snapshot(module) == before
        with torch.no_grad():
            assert torch.equal(lens.view.run(x), expected)

    for edit in edits:
        with lens.edit(edit), torch.no_grad():
            changed = lens.view.run(x)
        assert changed.shape == expected.shape
        assert bool(torch.isfinite(changed).all())
        assert zoo.snapshot(module) == before, edit
    untouched()
    with pytest.raises(Interrupted), lens.edit(*edits), torch.no_grad():
        assert not torch.allclose(lens.view.run(x), expected)
        assert zoo.snapshot(module) != before
        with lens.edit(*edits):
            raise Interrupted
    untouched()
    for wrong in (SelfOnly(blocks=99), Lost()):
        with pytest.raises(ClasslensError), lens.edit(*edits, wrong):
            pytest.fail("entered")
        untouched()
    count = lens.view.tokens(lens.view.input_size).count
    other = KeepTokens(torch.ones(5, count, dtype=torch.bool))
    with pytest.raises(ClasslensError, match="tokens of 5 images were given, but 2 run at once"), lens.edit(other):
        lens.view.run(x)
    untouched()


def told(edit: Edit, lens: Lens, x: Tensor) -> str:
    """What is said when a model runs with the edit: one sentence on one line."""
    before = zoo.snapshot(lens.view.module)
    with pytest.raises(ClasslensError) as caught, lens.edit(edit), torch.no_grad():
        lens.view.run(x)
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message
    assert zoo.snapshot(lens.view.module) == before
    return message


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (SelfOnly(blocks=3), "block 3 does not exist: model 'VisionTransformer' has blocks 0 to 2"),
        (AblateSublayer("mlp", blocks=[0, -1]), "block -1 does not exist"),
        (NoCls(heads=[3]), "head 3 does not exist: model 'VisionTransformer' has heads 0 to 2"),
        (AblateHeads([0, 7]), "head 7 does not exist"),
        (AblateNeurons([24], sublayer="attn"), "unit 24 does not exist"),
        (AblateHeads([0], tokens=[5]), "token 5 does not exist: the model has tokens 0 to 4"),
        (AblateHeads([0], tokens=slice(5, 9)), "slice(5, 9, None) takes no token: give some of 0 to 4"),
        (CutAttention([], "image"), "[] takes no token"),
        (CutAttention("image", "clss"), "no tokens called 'clss'"),
        (KeepTokens(torch.tensor([1, 0, 1, 1, 1])), "tokens to keep were given as torch.int64: give a bool mask"),
        (KeepTokens([True] * 5), "tokens to keep were given as list"),  # type: ignore[arg-type]
        (KeepTokens(torch.ones(6, dtype=torch.bool)), "a mask of shape [6] was given for 5 tokens"),
        (KeepTokens(torch.ones(2, 5, dtype=torch.bool)), "tokens of 2 images were given, but 3 run at once"),
        (AblateHeads([0], to=torch.zeros(2, 5, 8)), "a tensor of shape [2, 5, 8] was given to take the place of"),
        (Patch("attn_in", torch.zeros(1, 3, 16, 16)), "site 'attn_in' cannot be patched; did you mean 'attn_out'?"),
        (Patch("attn_out", torch.zeros(3, 16, 16)), "[3, 16, 16] was given as the source of a patch"),
        (Patch("attn_out", torch.zeros(1, 1, 16, 16)), "give pixels [image, 3, height, width]"),
        (Patch("attn_out", torch.zeros(1, 3, 24, 16)), "pixels are 24×16"),
        *[
            (
                Patch(site, torch.zeros(2, 3, 16, 16), heads=[0] if site == "heads" else None),
                "the source of a patch has 2 images of 5 tokens, but 3 of 5 run at once",
            )
            for site in PATCHED
        ],
    ],
)
def test_mistakes_are_told(edit: Edit, says: str) -> None:
    assert says in told(edit, classlens.load(zoo.build("cls")), zoo.pixels("cls"))


@pytest.mark.parametrize("site", PATCHED)
def test_a_source_of_more_images_makes_no_more_of_them(site: str) -> None:
    patch = Patch(site, zoo.pixels("cls"), heads=[0] if site == "heads" else None)
    assert "has 3 images" in told(patch, classlens.load(zoo.build("cls")), zoo.pixels("cls", 1))


@pytest.mark.parametrize(
    "edit", [AblateHeads([0], to="mean"), AblateNeurons([0], to="mean"), AblateSublayer("mlp", to="mean")]
)
def test_the_mean_of_one_image_is_none(edit: Edit) -> None:
    message = told(edit, classlens.load(zoo.build("cls")), zoo.pixels("cls", 1))
    assert message == "to='mean' is the mean over the images of a batch, and this one has 1: give a tensor"


def test_no_cls_without_one() -> None:
    message = told(NoCls(), classlens.load(zoo.build("avg")), zoo.pixels("avg"))
    assert message.startswith("model 'VisionTransformer' has no tokens called 'cls'")


def test_a_source_of_another_size_than_what_runs() -> None:
    lens = classlens.load(zoo.build("cls_dynamic"))
    patch = Patch("mlp_out", torch.zeros(1, 3, 16, 16))
    assert "has 1 images of 5 tokens, but 3 of 9 run at once" in told(patch, lens, zoo.pixels("cls_dynamic"))


def test_the_source_runs_once() -> None:
    model = zoo.build("cls")
    lens, runs = classlens.load(model), []
    handle = model.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    with lens.edit(Patch("resid_post", zoo.pixels("cls", 2), tokens="image")):
        assert runs == [2]
    handle.remove()


def test_an_image_that_keeps_nothing_of_what_is_pooled_has_no_logits() -> None:
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 1:] = False
    lens, x = classlens.load(zoo.build("avg_excludes_cls")), zoo.pixels("avg_excludes_cls")
    with lens.edit(KeepTokens(mask)), torch.no_grad():
        found = lens.view.run(x)
    assert torch.isnan(found).all(dim=1).tolist() == [False, True, False]
    with torch.no_grad():
        torch.testing.assert_close(found[[0, 2]], lens.view.run(x)[[0, 2]], rtol=0, atol=1e-12)
