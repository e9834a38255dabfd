"""Variants that run as one batch, against one whole pass for each variant, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens import AblateHeads, AblateNeurons, ClasslensError, Edit, EditStep, KeepTokens, Patch
from classlens.forward.edits.columns import joined_heads
from classlens.forward.edits.edit import editing
from classlens.forward.hooks import watching
from classlens.forward.run import run
from classlens.forward.sweep import Part, References, SweepReceiver, Variant, sweep
from classlens.forward.sweep_parts import SWEEP_PARTS
from classlens.models.view import ModelView
from tests import zoo
from tests.forward.edits.by_hand import by_hand
from tests.forward.models import IMPLEMENTATIONS, OTHERS, POOLINGS, pixels_of, view_of


class Kept(SweepReceiver):
    """Logits by image and variant; None for what has not come."""

    def __init__(self, images: int, variants: int) -> None:
        self.base: list[Tensor | None] = [None] * images
        self.source: list[Tensor | None] = [None] * images
        self.logits: list[list[Tensor | None]] = [[None] * variants for _ in range(images)]

    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        self.base[images] = list(base)
        self.source[images] = [None] * len(base) if source is None else list(source)

    def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
        for image, variant, row in zip(images, variants, logits, strict=True):
            assert self.logits[image][variant] is None
            self.logits[image][variant] = row


def swept(view: ModelView, base: Tensor, source: Tensor, parts: Sequence[Part], batch_size: int = 64) -> Tensor:
    """Logits ``[image, part, category]``."""
    return together(view, base, source, [(part,) for part in parts], batch_size)


def together(
    view: ModelView, base: Tensor, source: Tensor | References, variants: Sequence[Variant], batch_size: int = 64
) -> Tensor:
    """Logits ``[image, variant, category]``."""
    kept = Kept(len(base), len(variants))
    sweep(view, base, source, variants, kept, batch_size=batch_size)
    rows: list[Any] = kept.logits
    return torch.stack([torch.stack(row) for row in rows])


def close(logits: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10 * max(1.0, float(expected.abs().max())))


def edits_of(view: ModelView, source: Tensor, block: int) -> list[tuple[Part, Edit]]:
    """Parts of every kind in a block, each with the edit of a whole pass that does the same."""
    coefficients: dict[int, Tensor] = {}
    run(view, source, {"mlp_coefficients": coefficients.__setitem__})
    token, unit, head = 1, 3, view.blocks[block].heads - 1
    kinds, last = SWEEP_PARTS, len(view.blocks) - 1
    units = AblateNeurons([unit], block, to=coefficients[block][..., [unit]])
    found: list[tuple[Part, Edit]] = [
        (kinds["heads"].part(view, block, head, "resid_pre"), Patch("heads", source, block, heads=[head])),
        (kinds["units"].part(view, block, unit, "resid_pre"), units),
    ]
    if view.blocks[block].points["mlp_out"].editable:
        of_tokens = [
            (kinds["tokens"].part(view, block, token, site), Patch(site, source, block, tokens=token))
            for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        ]
        of_sublayers = [
            (kinds["sublayers"].part(view, block, "attn", "resid_pre"), Patch("attn_out", source, block)),
            (kinds["sublayers"].part(view, block, "mlp", "resid_pre"), Patch("mlp_out", source, block)),
        ]
        found += of_tokens + of_sublayers if block in (0, last) else of_sublayers
    return found


def same_as_whole_passes(name: str) -> None:
    view = view_of(name)
    base, source = pixels_of(view, 1, seed=3), pixels_of(view, 1, seed=4)
    pairs = [pair for block in range(len(view.blocks)) for pair in edits_of(view, source, block)]
    expected = []
    for _, edit in pairs:
        with editing(view, [edit]):
            expected.append(run(view, base)[0])
    before = zoo.snapshot(view.module)
    rows: list[int] = []
    with watching(view, {"resid_post": lambda block, x: rows.append(len(x)) if block == 0 else None}):
        logits = swept(view, base, source, [part for part, _ in pairs])
    assert rows[-1] < len(pairs), "variants do not branch off"
    assert zoo.snapshot(view.module) == before
    close(logits[0], torch.stack(expected))


@pytest.mark.parametrize("name", [*IMPLEMENTATIONS, *POOLINGS])
def test_every_library_against_whole_passes(name: str) -> None:
    same_as_whole_passes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OTHERS if name not in POOLINGS])
def test_every_other_model_against_whole_passes(name: str) -> None:
    same_as_whole_passes(name)


def every_part(view: ModelView, count: int) -> list[Part]:
    """All sublayers, heads, tokens and units of all blocks, in an order that is not that of blocks."""
    return [
        kind.part(view, block, label, site)
        for kind in SWEEP_PARTS.values()
        for block in reversed(range(len(view.blocks)))
        for site in (("resid_pre", "resid_post") if kind.dim == "token" else ("resid_pre",))
        for label in kind.labels(view, count, block, "all")
    ]


def test_parts_put_in_by_hand() -> None:
    """The model written out: heads, hidden units, and outputs of MLPs of two images, each with its own source."""
    vit: Any = zoo.build("cls_layer_scale")
    view = classlens.load(vit).view
    base, source = zoo.pixels("cls_layer_scale", 2), zoo.pixels("cls_layer_scale", 2, seed=5)
    passed: dict[tuple[str, int], Tensor] = {}
    names = ("heads", "hidden", "mlp")
    keep: dict[str, Any] = {
        name: lambda block, x, name=name: passed.setdefault((name, block), x.clone()) for name in names
    }
    by_hand(vit, source, **keep)
    parts, expected = [], []
    for block in (2, 0, 1):
        for name, label, place in (
            ("heads", 1, (slice(None), 1)),
            ("hidden", 7, (slice(None), slice(None), 7)),
            ("mlp", "mlp", (slice(None),)),
        ):

            def patched(number: int, x: Tensor, name: str = name, block: int = block, place: Any = place) -> Tensor:
                x = x.clone()
                if number == block:
                    x[place] = passed[name, block][place]
                return x

            kind = {"heads": "heads", "hidden": "units", "mlp": "sublayers"}[name]
            parts.append(SWEEP_PARTS[kind].part(view, block, label, "resid_pre"))
            expected.append(by_hand(vit, base, **{name: patched}))
    for batch_size in (1, 4, 64):
        close(swept(view, base, source, parts, batch_size), torch.stack(expected, dim=1))


def count(rows: list[int], _: int, x: Tensor) -> None:
    rows.append(len(x))


@pytest.mark.parametrize("name", ["cls_registers", "avg_post_norm"])
def test_any_batch_size(name: str) -> None:
    view = classlens.load(zoo.build(name)).view
    base, source = zoo.pixels(name, 3), zoo.pixels(name, 3, seed=5)
    parts = every_part(view, view.tokens(view.input_size).count)[::4]
    expected = swept(view, base, source, parts, 10**6)
    for batch_size in (1, 7):
        rows: list[int] = []
        with watching(view, {"resid_post": partial(count, rows)}):
            close(swept(view, base, source, parts, batch_size), expected)
        assert max(rows) == batch_size
    alone = swept(view, base[1:2], source[1:2], parts, 20)
    close(alone, expected[1:2])


def test_blocks_run_what_changes_alone() -> None:
    """All heads of three blocks in one batch: rows branch off where they change, and the own row ends with the last."""
    view = classlens.load(zoo.build("cls")).view
    parts = [SWEEP_PARTS["heads"].part(view, block, head, "resid_pre") for block in range(3) for head in range(3)]
    rows: list[int] = []
    with watching(view, {"resid_post": partial(count, rows)}):
        swept(view, zoo.pixels("cls", 1), zoo.pixels("cls", 1, seed=5), parts)
    assert rows[-3:] == [3 + 1, 6 + 1, 9]
    assert len(rows) == 4 * 3, "source, base, the check that rows can branch off, and one batch"


@pytest.mark.parametrize("name", ["cls_registers", "avg_post_norm", "avg_includes_prefix"])
def test_everything_and_nothing(name: str) -> None:
    view = classlens.load(zoo.build(name)).view
    base, source = zoo.pixels(name, 2), zoo.pixels(name, 2, seed=5)
    with torch.no_grad():
        clean, corrupt = view.run(source), view.run(base)
    whole = [Part(site, block) for site in ("resid_pre", "resid_post") for block in range(3)]
    close(swept(view, base, source, whole), clean[:, None].expand(-1, len(whole), -1))
    every = every_part(view, view.tokens(view.input_size).count)
    close(swept(view, base, base, every), corrupt[:, None].expand(-1, len(every), -1))
    nothing = [Part("resid_pre", 1, tokens=slice(0, 0)), Part("mlp_out", 0, columns=slice(3, 3))]
    close(swept(view, base, source, nothing), corrupt[:, None].expand(-1, 2, -1))


def test_a_model_whose_rows_cannot_branch_off_runs_whole() -> None:
    """Blocks that remember how many images were embedded: every variant is a pass of its own."""
    vit: Any = zoo.build("cls")
    embedded: list[int] = []
    vit.patch_embed.register_forward_hook(lambda _, __, output: embedded.append(len(output)))

    def check(_: Any, __: Any, output: Tensor) -> None:
        if len(output) != embedded[-1]:
            raise RuntimeError("another number of images")

    vit.blocks[1].register_forward_hook(check)
    view = classlens.load(vit).view
    base, source = zoo.pixels("cls", 3), zoo.pixels("cls", 3, seed=5)
    parts = every_part(view, 5)[::9]
    other = classlens.load(zoo.build("cls")).view
    for batch_size in (2, 64):
        close(swept(view, base, source, parts, batch_size), swept(other, base, source, parts))


@dataclass(frozen=True, eq=False)
class Shared(Edit):
    """Images get something of each other; equal images notice nothing."""

    label, about = "shared", "the mean over the images that run is added"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        yield EditStep("mlp_out", 1, lambda x, _: x + x.mean(dim=0, keepdim=True))


@pytest.mark.parametrize("kind", ["library", "own"])
def test_edits_that_depend_on_the_images_that_run_together(kind: str) -> None:
    view = classlens.load(zoo.build("cls_registers")).view
    images = 1 if kind == "own" else 3  # variants of one image must not run together either
    base, source = zoo.pixels("cls", images), zoo.pixels("cls", images, seed=5)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[[0, 1, 2], [3, 4, 5]] = False
    given = AblateHeads([1], blocks=0, to=torch.randn(3, 7, 8))
    edits: list[Edit] = [Shared()] if kind == "own" else [KeepTokens(mask), given]
    pairs = [pair for block in (1, 2) for pair in edits_of(view, source, block)]
    expected = []
    with editing(view, edits):
        logits = swept(view, base, source, [part for part, _ in pairs])
        for part, edit in [pair for block in (1, 2) for pair in edits_of(view, source, block)]:
            with editing(view, [edit]):
                expected.append(run(view, base))
            assert part in [part for part, _ in pairs]
    close(logits, torch.stack(expected, dim=1))
    assert float((logits - swept(view, base, source, [part for part, _ in pairs])).abs().max()) > 0.1


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("where", ["receiver", "block"])
def test_an_exception_in_the_middle_leaves_no_trace(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vit: Any = zoo.build("cls")
    view = classlens.load(vit).view
    base, source = zoo.pixels("cls", 2), zoo.pixels("cls", 2, seed=5)
    with torch.no_grad():
        expected = view.run(base)
    vit.blocks[2].norm1.train()
    before = zoo.snapshot(vit)
    parts, calls = every_part(view, 5), []

    class Raising(Kept):
        def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
            calls.append(zoo.snapshot(vit) == before)
            if len(calls) == 3:
                raise Interrupted

    class Stopping(Kept):
        def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
            monkeypatch.setattr(torch.nn.functional, "gelu", stopped)

    def stopped(*_: Any, **__: Any) -> Tensor:
        calls.append(zoo.snapshot(vit) != before)
        raise Interrupted

    receiver = (Raising if where == "receiver" else Stopping)(2, len(parts))
    with pytest.raises(Interrupted):
        sweep(view, base, source, [(part,) for part in parts], receiver, batch_size=5)
    assert calls[-1:] == [True]
    assert zoo.snapshot(vit) == before
    monkeypatch.undo()
    with torch.no_grad():
        assert torch.equal(view.run(base), expected)


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [
        ("timm cls_registers", 4),
        ("timm ViT, norm of joined heads", 1),
        ("torchvision", 64),
        ("open_clip tokens_first", 4),
        ("transformers ViTForImageClassification", 2),
    ],
)
def test_several_heads_become_references_together(name: str, batch_size: int) -> None:
    """One whole pass with an edit for each variant; rows of a variant go on through others that branch off."""
    view = view_of(name)
    base, last = pixels_of(view, 3, seed=3), len(view.blocks) - 1
    chosen = [[(last, 1), (0, 0)], [], [(1, 0)], [(0, 1), (1, 1), (last, 0)], [(last, 0)]]
    torch.manual_seed(0)
    references: dict[tuple[str, int], Tensor] = {}
    for block in range(last + 1):
        point, _ = joined_heads(view, block)
        passing: dict[str, Any] = {point: lambda block, x, point=point: references.setdefault((point, block), x[0])}
        run(view, base[:1], passing, exposing_coefficients=True)
    references = {key: torch.randn_like(value) for key, value in references.items()}
    heads = SWEEP_PARTS["heads"]
    variants = [tuple(heads.part(view, block, head, "resid_pre") for block, head in pairs) for pairs in chosen]
    expected = []
    for pairs in chosen:
        edits = []
        for block, head in pairs:
            point, channels = joined_heads(view, block)
            columns = slice(head * channels, (head + 1) * channels)
            edits.append(AblateHeads([head], blocks=block, to=references[point, block][:, columns]))
        with editing(view, edits):
            expected.append(run(view, base))
    close(together(view, base, references, variants, batch_size), torch.stack(expected, dim=1))


def test_a_part_that_cannot_be_replaced() -> None:
    view = view_of("timm parallel scaling, LayerScale, one bias")
    x = pixels_of(view, 1)
    assert not view.blocks[0].points["attn_out"].editable
    with pytest.raises(ClasslensError, match="attn_out, so it cannot be edited there: edit one of"):
        swept(view, x, x, [Part("attn_out", 0)])
    point, _ = joined_heads(view, 1)
    swept(view, x, x, [Part(point, 1)])
