"""Reducing every token to facts while the model runs, its states dropped at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from classlens.core.memories import Memories, agree_by_class, agree_by_value, match_top1, memories, strongest
from classlens.core.probes import LinearProbes
from classlens.core.scores import BlockFacts, Facts
from classlens.core.space import ClassSpace
from classlens.forward.hooks import Receiver, evaluating, watching
from classlens.forward.states import read_states
from classlens.models.view import ModelView

Put = Callable[[str, int, Tensor | slice, Facts], None]
Sublayer = Literal["attn", "mlp"]
SUBLAYERS: tuple[Sublayer, ...] = ("attn", "mlp")
BY = ("class", "value", "random_class")
"""How key-value agreement is asked: of the image's class as the reference does, as the paper's text reads, and as a
control of a random class as the reference does."""


@dataclass(frozen=True)
class Agreement:
    """What the strongest memories of some tokens say, ``[rows]`` each: see ``core.memories``."""

    by: Mapping[str, Bool[Tensor, " rows"]]
    match: Bool[Tensor, " rows"]


PutAgreement = Callable[[Sublayer, int, Tensor | slice, Agreement], None]


class MemoryTables:
    """The memories of every sublayer, for each class space of a model; from parameters alone, made once."""

    def __init__(self, view: ModelView) -> None:
        made: dict[tuple[int, Sublayer, int], Memories] = {}
        for number, block in enumerate(view.blocks):
            for readout in view.readouts:
                space = readout.space
                made[id(space), "attn", number] = memories(space.embedding, block.attn)
                made[id(space), "mlp", number] = memories(space.embedding, block.mlp)
        self._made = made

    def of(self, space: ClassSpace, sublayer: Sublayer, block: int) -> Memories:
        return self._made[id(space), sublayer, block]


@dataclass(frozen=True, eq=False)
class AgreementRequest:
    """Asks ``reduce`` for agreement as well; ``control`` is a class for each image that is drawn at random."""

    tables: MemoryTables
    control: Int[Tensor, " image"]
    put: PutAgreement


def reduce(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    target: Int[Tensor, " image"],
    sites: Collection[str],
    put: Put,
    memorized: AgreementRequest | None = None,
) -> Float[Tensor, "image category"]:
    """One forward pass; ``put(site, block, tokens, facts)`` takes facts as rows, image by image. Returns the logits.

    Beside the pass itself, memory holds one ``[rows, classes]`` buffer (see ``BlockFacts``). Agreement needs the top-1
    classes of ``attn_out`` and ``mlp_out``, so both have to be among the sites.
    """
    size = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    groups: list[_Group] = []
    for space, group in view.spaces(size.count):
        rows = partial(_rows, count=size.count if isinstance(group, slice) else len(group), device=view.device)
        control = None if memorized is None else rows(memorized.control)
        facts = BlockFacts(space, rows(target), sites, view.space_by_site(space))
        groups.append(_Group(space, group, facts, rows(target), control, put, memorized))

    def feed(name: Literal["embed", "attn_out", "mlp_out"], block: int, x: Tensor) -> None:
        if name == "embed" and block > 0:
            return
        for group in groups:
            group.feed(name, x)

    def use(sublayer: Sublayer, block: int, coefficients: Tensor) -> None:
        for group in groups:
            group.use(sublayer, block, coefficients)

    receivers: dict[str, Receiver] = {
        "resid_pre": partial(feed, "embed"),
        "attn_out": partial(feed, "attn_out"),
        "mlp_out": partial(feed, "mlp_out"),
    }
    opened = nullcontext if memorized is None else view.exposing_coefficients
    if memorized is not None:
        # Before the sublayer's output, which passes later.
        receivers = {f"{name}_coefficients": partial(use, name) for name in SUBLAYERS} | receivers
    with evaluating(view.module), opened(), watching(view, receivers):
        return view.run(pixels.to(view.device, view.dtype))


def reduce_by_probes(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    target: Int[Tensor, " image"],
    sites: Collection[str],
    put: Put,
    probes: Callable[[str, int], Sequence[LinearProbes]],
) -> Float[Tensor, "image category"]:
    """``reduce`` with the scores of probes, ``probes(site, block)``, in the place of class logits."""

    def receive(site: str, block: int, x: Tensor) -> None:
        for one in probes(site, block):
            put(site, block, one.tokens, one.facts(x, target))

    return read_states(view, pixels, sites, receive)


def _rows(images: Tensor, *, count: int, device: torch.device) -> Tensor:
    return images.to(device).repeat_interleave(count)


class _Group:
    """Tokens that are projected through one class space."""

    def __init__(
        self,
        space: ClassSpace,
        tokens: Tensor | slice,
        facts: BlockFacts,
        target: Tensor,
        control: Tensor | None,
        put: Put,
        memorized: AgreementRequest | None,
    ) -> None:
        self._space, self._tokens, self._target, self._control = space, tokens, target, control
        self._facts, self._put, self._memorized = facts, put, memorized
        self._used: dict[tuple[Sublayer, int], Tensor] = {}

    def feed(self, name: Literal["embed", "attn_out", "mlp_out"], x: Tensor) -> None:
        for site, block, found in self._facts.feed(name, x[:, self._tokens].flatten(0, 1)):
            self._put(site, block, self._tokens, found)
            for sublayer in SUBLAYERS:
                if site == f"{sublayer}_out" and (sublayer, block) in self._used:
                    self._agree(sublayer, block, self._used.pop((sublayer, block)), found.top1)

    def use(self, sublayer: Sublayer, block: int, coefficients: Tensor) -> None:
        self._used[sublayer, block] = strongest(coefficients[:, self._tokens].flatten(0, 1))

    def _agree(self, sublayer: Sublayer, block: int, used: Tensor, top1: Tensor) -> None:
        asked = self._memorized
        if asked is None or self._control is None:
            return
        known = asked.tables.of(self._space, sublayer, block)
        answers = (
            agree_by_class(used, known, self._target),
            agree_by_value(used, known, self._target),
            agree_by_class(used, known, self._control),
        )
        asked.put(
            sublayer,
            block,
            self._tokens,
            Agreement(dict(zip(BY, answers, strict=True)), match_top1(used, known, top1)),
        )
