"""Key/value memories while the model runs: do a token's strongest units stand for its class?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from classlens.core.memories import Memories, agree_by_class, agree_by_value, match_top1, memories, strongest
from classlens.core.space import ClassSpace
from classlens.models.view import ModelView

Sublayer = Literal["attn", "mlp"]
SUBLAYERS: tuple[Sublayer, ...] = ("attn", "mlp")
COEFFICIENTS: Mapping[str, Sublayer] = {f"{sublayer}_coefficients": sublayer for sublayer in SUBLAYERS}
"""Block points at which memory coefficients pass, with their sublayer."""
BY = ("class", "value", "random_class")
"""Definitions of key-value agreement: by the image's class (the published code), by value vectors (the paper's text,
section 5), and by a random class as a control (the published code)."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of each token by each definition, and whether a token's top-1 class matches its strongest units."""

    by: Mapping[str, Bool[Tensor, " rows"]]
    match: Bool[Tensor, " rows"]


ReceiveAgreement = Callable[[Sublayer, int, Tensor | slice, Agreement], None]


class MemoryTables:
    """The memories of every sublayer, for each class space of a model; computed once, from parameters alone."""

    def __init__(self, view: ModelView) -> None:
        self._tables: dict[tuple[int, Sublayer, int], Memories] = {}
        for number, block in enumerate(view.blocks):
            for readout in view.readouts:
                space = readout.space
                self._tables[id(space), "attn", number] = memories(space.embedding, block.attn)
                self._tables[id(space), "mlp", number] = memories(space.embedding, block.mlp)

    def of(self, space: ClassSpace, sublayer: Sublayer, block: int) -> Memories:
        return self._tables[id(space), sublayer, block]


@dataclass(frozen=True, eq=False)
class AgreementRequest:
    """Asks ``reduce_tokens`` for agreement as well.

    ``control`` is a random class for each image; ``receive(sublayer, block, tokens, agreement)`` takes rows, image by
    image.
    """

    tables: MemoryTables
    control: Int[Tensor, " image"]
    receive: ReceiveAgreement


class TokenAgreement:
    """Agreement of the tokens of one class space, sublayer after sublayer; ``target`` and ``control`` are by row."""

    def __init__(
        self,
        request: AgreementRequest,
        space: ClassSpace,
        tokens: Tensor | slice,
        target: Int[Tensor, " rows"],
        control: Int[Tensor, " rows"],
    ) -> None:
        self._request, self._space, self._tokens, self._target, self._control = request, space, tokens, target, control
        self._units: dict[str, Int[Tensor, "rows strongest"]] = {}

    def add_coefficients(self, sublayer: Sublayer, coefficients: Float[Tensor, "rows memory"]) -> None:
        """Keep the strongest units until the output of their sublayer has its top-1 classes."""
        self._units[f"{sublayer}_out"] = strongest(coefficients)

    def add_top1(self, site: str, block: int, top1: Int[Tensor, " rows"]) -> None:
        """Hand over the agreement of a sublayer if ``site`` is its output."""
        if site not in self._units:
            return
        units = self._units.pop(site)
        sublayer: Sublayer = "attn" if site == "attn_out" else "mlp"
        table = self._request.tables.of(self._space, sublayer, block)
        agreements = (
            agree_by_class(units, table, self._target),
            agree_by_value(units, table, self._target),
            agree_by_class(units, table, self._control),
        )
        agreement = Agreement(dict(zip(BY, agreements, strict=True)), match_top1(units, table, top1))
        self._request.receive(sublayer, block, self._tokens, agreement)
