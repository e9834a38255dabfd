"""Tokens handed over while the model runs, and reduced to facts at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.core.scores import BlockFacts, Facts
from classlens.core.space import ClassSpace
from classlens.forward.agreement import COEFFICIENTS, AgreementRequest, TokenAgreement
from classlens.forward.hooks import Receiver
from classlens.forward.run import run
from classlens.models.view import SITES, ModelView

ReceiveFacts = Callable[[str, int, Tensor | slice, Facts], None]

_SUMS = frozenset({"resid_pre", "resid_mid", "resid_post"})


def stream(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    names: Collection[str],
    receive: Callable[[str, int, Tensor], None],
    *,
    inputs: Receiver | None = None,
    outputs: Receiver | None = None,
) -> Float[Tensor, "image category"]:
    """One forward pass; ``receive(name, block, tensor)`` is called in the order in which tensors pass.

        stream(view, pixels, ["attn_out", "resid_post"], lambda site, block, tokens: ...)

    Args:
        names: sites (``[image, token, width]``), and points of blocks such as ``values`` or ``mlp_coefficients``;
            blocks without such a point are skipped. The residual stream is summed from its parts (law 1), and only
            where one of its sites is wanted.
        inputs: called with the input of each block as it passes, ``[image, token, width]``.
        outputs: called with the output of each block, which is the input of the next one; that of the last block is
            summed from its parts.

    Returns:
        The model's own logits.
    """
    blocks = len(view.blocks)
    # Blocks over which the residual stream is summed.
    first = blocks if outputs is None else blocks - 1
    summed = range(first if _SUMS.isdisjoint(names) else 0, blocks)
    total = pixels

    def begin(block: int, x: Tensor) -> None:
        nonlocal total
        if inputs is not None:
            inputs(block, x)
        if outputs is not None and block > 0:
            outputs(block - 1, x)
        if block == summed.start:
            total = x
        if block == 0 and "embed" in names:
            receive("embed", 0, x)
        if "resid_pre" in names:
            receive("resid_pre", block, total)

    def add(site: str, sum_site: str) -> Receiver:
        def added(block: int, x: Tensor) -> None:
            nonlocal total
            if site in names:
                receive(site, block, x)
            if block in summed:
                total = total + x
                if sum_site in names:
                    receive(sum_site, block, total)

        return added

    def point(name: str) -> Receiver:
        return lambda block, x: receive(name, block, x)

    # Other points first: where one module has several, coefficients and values come before the output.
    receivers = {name: point(name) for name in names if name not in SITES}
    if summed or "embed" in names or inputs is not None:
        receivers["resid_pre"] = begin
    if summed or "attn_out" in names:
        receivers["attn_out"] = add("attn_out", "resid_mid")
    if summed or "mlp_out" in names:
        receivers["mlp_out"] = add("mlp_out", "resid_post")
    logits = run(
        view,
        pixels,
        receivers,
        unfused="attention" in names,
        exposing_coefficients=not COEFFICIENTS.keys().isdisjoint(names),
    )
    if outputs is not None:
        outputs(blocks - 1, total)
    return logits


def reduce_tokens(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    target: Int[Tensor, " image"],
    sites: Collection[str],
    receive: ReceiveFacts,
    *,
    probes: Callable[[str, int], Sequence[LinearProbes]] | None = None,
    agreement: AgreementRequest | None = None,
    inputs: Receiver | None = None,
    outputs: Receiver | None = None,
    also: Mapping[str, Receiver] | None = None,
) -> Float[Tensor, "image category"]:
    """One forward pass; ``receive(site, block, tokens, facts)`` takes facts as rows, image by image.

    Beside the pass itself, RAM holds one ``[rows, classes]`` buffer (see ``BlockFacts``).

    Args:
        probes: ``probes(site, block)``, whose scores take the place of class logits.
        agreement: asks for key-value agreement as well. It needs the top-1 classes of ``attn_out`` and ``mlp_out``
            in class space, so both have to be among the sites, and it is not defined for probes.
        inputs, outputs: called with the input and the output of each block, as for ``stream``.
        also: functions of block and tensor by further sites and points; they are called after the facts are received.

    Returns:
        The model's own logits.
    """
    if probes is not None:

        def receive_states(site: str, block: int, x: Tensor) -> None:
            for probe in probes(site, block):
                receive(site, block, probe.tokens, probe.facts(x, target))

        return stream(view, pixels, sites, receive_states, inputs=inputs, outputs=outputs)
    size = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    groups = [
        _SpaceTokens(view, space, tokens, size.count, target, sites, receive, agreement)
        for space, tokens in view.spaces(size.count)
    ]

    names: tuple[str, ...] = ("embed", "attn_out", "mlp_out")
    if agreement is not None:
        names = (*COEFFICIENTS, *names)
    more = also or {}

    def feed(name: str, block: int, x: Tensor) -> None:
        if name in names:
            for group in groups:
                group.feed(name, x)
        if name in more:
            more[name](block, x)

    return stream(view, pixels, (*names, *more), feed, inputs=inputs, outputs=outputs)


class _SpaceTokens:
    """The tokens that are projected through one class space, reduced block by block."""

    def __init__(
        self,
        view: ModelView,
        space: ClassSpace,
        tokens: Tensor | slice,
        count: int,
        target: Int[Tensor, " image"],
        sites: Collection[str],
        receive: ReceiveFacts,
        agreement: AgreementRequest | None,
    ) -> None:
        rows_per_image = count if isinstance(tokens, slice) else len(tokens)

        def rows(classes: Tensor) -> Tensor:
            return classes.to(view.device).repeat_interleave(rows_per_image)

        self._tokens, self._receive = tokens, receive
        self._facts = BlockFacts(space, rows(target), sites, view.space_by_site(space))
        self._agreement = (
            None
            if agreement is None
            else TokenAgreement(agreement, space, tokens, rows(target), rows(agreement.control))
        )

    def feed(self, name: str, x: Float[Tensor, "image token channel"]) -> None:
        rows = x[:, self._tokens].flatten(0, 1)
        if name in COEFFICIENTS:
            assert self._agreement is not None, "coefficients are streamed for agreement alone"
            self._agreement.add_coefficients(COEFFICIENTS[name], rows)
            return
        for site, block, facts in self._facts.feed(name, rows):  # type: ignore[arg-type]
            self._receive(site, block, self._tokens, facts)
            if self._agreement is not None:
                self._agreement.add_top1(site, block, facts.top1)
