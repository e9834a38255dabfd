"""Edits in the models of every library: tokens are really dropped, every edit acts, no trace is left (law 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    Edit,
    EditStep,
    KeepTokens,
    Lens,
    NoCls,
    Patch,
    SelfOnly,
)
from classlens.forward.edits.patch import PATCH_SITES
from classlens.models.view import ModelView
from tests import zoo
from tests.forward.edits.random_means import random_means
from tests.forward.models import IMPLEMENTATIONS, OTHERS, POOLINGS, POSITIONAL, pixels_of, view_of


def loaded(name: str) -> tuple[Lens, Tensor]:
    """The lens of a model in float64 and pixels of two images."""
    view = view_of(name)
    return classlens.load(view.module), pixels_of(view)


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


@pytest.mark.parametrize("name", [name for name in (*IMPLEMENTATIONS, *POOLINGS) if name not in POSITIONAL])
def test_kept_tokens_are_what_dropping_gives(name: str) -> None:
    lens, x = loaded(name)
    view = lens.view
    start = len(view.prefix)
    mask = torch.ones(2, count_of(view), dtype=torch.bool)
    mask[0, start] = mask[0, -1] = mask[1, start + 1] = False
    with torch.no_grad():
        with lens.edit(KeepTokens(mask)):
            logits = view.run(x)
        first = view.blocks[0].points["resid_pre"].module
        for image in range(2):
            with dropped(first, mask[image]):
                expected = view.run(x[image : image + 1])
            torch.testing.assert_close(logits[image : image + 1], expected, rtol=0, atol=1e-10)
        assert not torch.allclose(logits, view.run(x))


class Interrupted(Exception):
    pass


class Lost(Edit):
    """An edit of a place that no block has, which shows when the others are in place."""

    label = about = "lost"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        yield EditStep("attention", len(view.blocks) - 1, self.change)
        yield EditStep("nowhere", 0, self.change)

    @staticmethod
    def change(x: Tensor, _: slice) -> Tensor:
        return x


def count_of(view: ModelView) -> int:
    return view.tokens(view.input_size).count


Kind = Callable[[ModelView, Tensor], Edit]


def kinds_of() -> dict[str, list[Kind]]:
    """Edits of every kind, by the name of their class; arguments differ."""
    return {
        "KeepTokens": [lambda view, _: KeepTokens(torch.arange(count_of(view)) < count_of(view) - 1)],
        "SelfOnly": [lambda *_: SelfOnly(blocks=0), lambda *_: SelfOnly()],
        "CutAttention": [
            lambda *_: CutAttention("all", [0, 1], renormalize=True, heads=[0]),
            lambda *_: CutAttention("all", [1], renormalize=True),
        ],
        "AblateHeads": [lambda view, _: AblateHeads([1], to=random_means(view))],
        "AblateNeurons": [
            lambda *_: AblateNeurons([0, 5], blocks=0),
            lambda *_: AblateNeurons([1], blocks=0, sublayer="attn", to=torch.tensor(0.25)),
        ],
        "AblateSublayer": [
            lambda view, _: AblateSublayer("attn", blocks=1, to=random_means(view)),
            lambda view, _: AblateSublayer("mlp", blocks=1, to=random_means(view)),
            lambda *_: AblateSublayer("attn", blocks=[1]),
        ],
        "Patch": [
            *(lambda _, x, site=site: Patch(site, x.flip(0), blocks=0, tokens="image") for site in PATCH_SITES[:-1]),
            lambda _, x: Patch("heads", x.flip(0), blocks=1, heads=[0]),
        ],
        "NoCls": [lambda *_: NoCls(renormalize=True)],
    }


def kinds(view: ModelView, x: Tensor) -> list[Edit]:
    """Every kind of edit that the model can do."""
    shown = {name for name, point in view.blocks[0].points.items() if point.editable}
    edits = [kind(view, x) for kinds in kinds_of().values() for kind in kinds]
    return [edit for edit in edits if _can(edit, view, shown)]


def _can(edit: Edit, view: ModelView, shown: set[str]) -> bool:
    if isinstance(edit, NoCls):
        return "cls" in view.prefix
    if isinstance(edit, AblateSublayer):
        return f"{edit.sublayer}_out" in shown
    if isinstance(edit, Patch):
        place = {"resid_post": "mlp_out", "embed": "resid_pre"}.get(edit.site, edit.site)
        return edit.site == "heads" or place in shown
    return True


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_edit_acts_and_leaves_no_trace(name: str) -> None:
    lens, x = loaded(name)
    module = lens.view.module
    next(iter(module.parameters())).requires_grad_(False)
    with torch.no_grad():
        expected = lens.view.run(x)
    parts = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]
    for part in parts[:1]:
        part.train()  # a flag that is not like the others
    before = zoo.snapshot(module)
    edits = kinds(lens.view, x)

    def untouched() -> None:
        assert zoo.snapshot(module) == before
        with torch.no_grad():
            assert torch.equal(lens.view.run(x), expected)

    for edit in edits:
        with lens.edit(edit), torch.no_grad():
            changed = lens.view.run(x)
        assert changed.shape == expected.shape
        assert bool(torch.isfinite(changed).all())
        assert float((changed - expected).abs().max()) > 1e-6, edit
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
    other = KeepTokens(torch.ones(5, count_of(lens.view), dtype=torch.bool))
    with pytest.raises(ClasslensError, match="tokens of 5 images were given, but 2 run at once"), lens.edit(other):
        lens.view.run(x)
    untouched()


@pytest.mark.parametrize("name", OTHERS)
def test_some_edits_act_on_every_other_model(name: str) -> None:
    """Every pair of a library and a kind of edit, at different options, norms and heads."""
    lens, x = loaded(name)
    before = zoo.snapshot(lens.view.module)
    with torch.no_grad():
        expected = lens.view.run(x)
    edits = kinds(lens.view, x)
    start = OTHERS.index(name)
    for step in range(3):
        edit = edits[(start + 5 * step) % len(edits)]
        with pytest.raises(Interrupted), lens.edit(edit), torch.no_grad():
            changed = lens.view.run(x)
            raise Interrupted
        assert bool(torch.isfinite(changed).all())
        assert float((changed - expected).abs().max()) > 1e-6, edit
    assert zoo.snapshot(lens.view.module) == before
    with torch.no_grad():
        assert torch.equal(lens.view.run(x), expected)
