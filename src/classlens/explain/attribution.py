"""Logit attribution: a class logit as the exact sum of the contributions of every part of the model (law 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from classlens.core.attention import Functional, Output, Share, head_contributions
from classlens.core.space import ClassOrWeights, select_classes
from classlens.errors import ClasslensError
from classlens.explain.attention_rows import attention_rows
from classlens.explain.method import Method
from classlens.explain.queries import query_positions
from classlens.forward.agreement import Sublayer
from classlens.forward.recording import Recording
from classlens.models.view import ModelView


@dataclass(frozen=True)
class Attribution:
    """Contributions to a logit, which is the sum of all of them.

    ``attention`` is by the token attended to. ``replaced`` is what heads add whose values an edit put in, so that they
    come from no token. ``edit`` is what an edit put in the place of the whole output of attention.
    """

    embed: Float[Tensor, " image"]
    attention: Float[Tensor, "image block head token"]
    mlp: Float[Tensor, "image block"]
    bias: Float[Tensor, " image"]
    replaced: Float[Tensor, "image block head"]
    edit: Float[Tensor, "image block"]


def attribute(recording: Recording, target: ClassOrWeights, *, check: bool = True) -> Attribution:
    """Attribute the logit of a class, or a weighted sum of logits, with the scale of every norm held at its value.

    Raises ClasslensError where a block adds something else than its heads, unless ``check`` is off.
    """
    return attribute_each(recording, [target], check=check)[0]


def attribute_each(recording: Recording, targets: Sequence[ClassOrWeights], *, check: bool = True) -> list[Attribution]:
    """``attribute`` for several targets."""
    readouts, pooled = recording.view.readouts, query_positions(recording, None)
    every, blocks = torch.arange(recording.tokens.count), range(len(recording.view.blocks))
    index = [torch.searchsorted(pooled, every[readout.pooled]) for readout in readouts]
    exposed = "attn_coefficients" in recording.edited_points()
    sums: list[LogitSum] = []
    parts: list[list[Attribution]] = []
    for images, block, weights in attention_rows(recording, pooled, blocks):
        if block == 0:
            sums = [LogitSum.of(recording, target[images], images) for target in targets]
        rows = [weights] if len(readouts) == 1 else [weights[:, :, chosen.to(weights.device)] for chosen in index]
        coefficients = recording.activation("attn_coefficients", block)[images] if exposed else None
        for each in sums:
            each.attend(block, rows, coefficients, check)
        if block == blocks[-1]:
            parts.append([each.finish() for each in sums])
    names = [field.name for field in fields(Attribution)]
    return [
        Attribution(*(torch.cat([getattr(part, name) for part in of_target]).cpu() for name in names))
        for of_target in zip(*parts, strict=True)
    ]


def reference_contributions(
    recording: Recording, target: ClassOrWeights, references: Sequence[Float[Tensor, "token column"]]
) -> Float[Tensor, "image block head"]:
    """The contribution that each head would have, if its output were its reference, with every norm's scale as it is.

    ``references`` has the joined heads of each block, before an inner norm and the output projection. The direct effect
    of putting them in is the contribution of ``attribute`` minus this.
    """
    every = slice(0, len(recording))
    of_target, blocks = LogitSum.of(recording, target, every), []
    for number, reference in enumerate(references):
        total: Tensor = torch.zeros((), device=recording.view.device)
        for tokens, functional in of_target.functionals:
            through = of_target.share(functional, "attn", number, tokens, None).function
            columns = reference[tokens].to(through.direction) * through.direction * through.weights[..., None]
            total = total + columns.sum(dim=1).unflatten(-1, (recording.view.blocks[number].heads, -1)).sum(dim=-1)
        blocks.append(total.cpu())
    return torch.stack(blocks, dim=1)


@dataclass
class LogitSum:
    """The contributions to one logit of some images, as they are added up.

    ``functionals`` are the logit as a linear function of the tokens that each readout pools, with frozen scales.
    """

    recording: Recording
    images: slice
    functionals: list[tuple[slice, Functional]]
    bias: Float[Tensor, " image"]
    attention: list[Float[Tensor, "image head token"]] = field(default_factory=list)
    replaced: list[Float[Tensor, "image head"]] = field(default_factory=list)
    edit: list[Float[Tensor, " image"]] = field(default_factory=list)

    @classmethod
    def of(cls, recording: Recording, target: Tensor, images: slice) -> LogitSum:
        view = recording.view
        functionals = []
        bias = torch.zeros(len(target), dtype=recording.dtype, device=view.device)
        for readout in view.readouts:
            last = recording.state("resid_post", len(view.blocks) - 1, images, readout.pooled)
            shares = recording.query_weights(images, readout.pooled)
            direction, weights, constant = readout.space.frozen(last, target, shares)
            if not readout.counts_bias and readout.space.bias is not None:
                constant = constant - select_classes(readout.space.bias.to(constant.dtype), target)
            bias = bias + constant * readout.weight
            functionals.append((readout.pooled, Functional(direction[:, None], weights * readout.weight)))
        return cls(recording, images, functionals, bias)

    def attend(
        self,
        number: int,
        rows: Sequence[Float[Tensor, "image head _ token"]],
        coefficients: Float[Tensor, "image token unit"] | None,
        check: bool,
    ) -> None:
        """Add what the heads of a block contribute, from the attention weights of each readout's queries."""
        values = self.recording.activation("values", number)[self.images]
        by_token, by_head, by_edit, added = (torch.zeros((), device=values.device) for _ in range(4))
        for (tokens, functional), attention in zip(self.functionals, rows, strict=True):
            share = self.share(functional, "attn", number, tokens, coefficients)
            by_token = by_token + head_contributions(share.function, attention=attention, values=values)
            by_head = by_head + share.units.unflatten(-1, (values.shape[1], -1)).sum(dim=-1)
            by_edit = by_edit + share.edit
            self.bias = self.bias + share.bias
            output = self.recording.activation("attn_out", number)[self.images, tokens]
            added = added + functional(output) - share.bias - share.edit
        if check:
            dtype = self.recording.activation("attn_out", number).dtype
            _check_heads(self.recording.view, number, by_token, by_head, added, dtype)
        self.attention.append(by_token)
        self.replaced.append(by_head)
        self.edit.append(by_edit)

    def finish(self) -> Attribution:
        recording, images = self.recording, self.images
        mlp = []
        for number in range(len(recording.view.blocks)):
            total = torch.zeros_like(self.bias)
            for tokens, functional in self.functionals:
                share = self.share(functional, "mlp", number, tokens, None, bias_only=True)
                total = total + functional(recording.activation("mlp_out", number)[images, tokens]) - share.bias
                self.bias = self.bias + share.bias
            mlp.append(total)
        embed = sum(
            functional(recording.activation("embed", 0)[images, tokens]) for tokens, functional in self.functionals
        )
        assert isinstance(embed, Tensor)
        blocks = (torch.stack(parts, dim=1) for parts in (self.attention, mlp, self.replaced, self.edit))
        by_token, by_mlp, by_head, by_edit = blocks
        return Attribution(embed, by_token, by_mlp, self.bias, by_head, by_edit)

    def share(
        self,
        functional: Functional,
        sublayer: Sublayer,
        block: int,
        tokens: slice,
        coefficients: Tensor | None,
        *,
        bias_only: bool = False,
    ) -> Share:
        """A logit's linear function of a sublayer's output at the pooled tokens, split by what it consists of."""
        recording, images = self.recording, self.images
        output: Output = getattr(recording.view.blocks[block], sublayer)
        return functional.through(
            output,
            recording.before_norm(f"{sublayer}_raw", block, images, tokens),
            recording.before_norm(f"{sublayer}_joined", block, images, tokens),
            replaced=recording.replaced(sublayer, block, images, tokens),
            added=recording.activation(f"{sublayer}_out", block)[images, tokens],
            coefficients=None if coefficients is None else coefficients[:, tokens],
            bias_only=bias_only,
        )


def _check_heads(
    view: ModelView,
    block: int,
    by_token: Float[Tensor, "image head token"],
    replaced: Float[Tensor, "image head"],
    added: Float[Tensor, " image"],
    dtype: torch.dtype,
) -> None:
    """Raises ClasslensError where a hook or an adapter changes what the heads of a block in ``dtype`` add."""
    total = by_token.sum(dim=(1, 2)) + replaced.sum(dim=1)
    size = by_token.abs().sum(dim=(1, 2)) + replaced.abs().sum(dim=1)
    require_sum(view, total, size, added, dtype, f"the heads of block {block}", "attention")


def require_sum(
    view: ModelView,
    total: Float[Tensor, " image"],
    size: Float[Tensor, " image"],
    added: Float[Tensor, " image"],
    dtype: torch.dtype,
    parts: str,
    sublayer: str,
) -> None:
    """Raises ClasslensError where contributions, whose sizes add up to ``size``, are not what a sublayer added."""
    # Rounding of the model's own sums: up to a per mille in fused kernels, a few eps in half precision.
    tolerance = max(1e-3, 16 * torch.finfo(dtype).eps) * (size + added.abs()) + 1e-6
    error = (total - added).abs()
    if bool((error > tolerance).any()):
        image = int((error - tolerance).argmax())
        raise ClasslensError(
            f"{parts} of model {view.name!r} contribute {float(total[image]):.3g} to the logit, but "
            f"its {sublayer} adds {float(added[image]):.3g}: something changes it after them; leave out the hook "
            "or adapter that does"
        )


def logit_attribution(
    recording: Recording, target: Int[Tensor, " image"], *, against: Int[Tensor, " image"] | None = None
) -> Float[Tensor, "image block head token"]:
    """Exact contribution of each image token to the class logit through the attention of every head (law 3).

    In logits, of either sign: ``Σ_q w_q A[h, q, j] (v[h, j] W_O[h]) · d``, LayerScale within ``W_O``. ``q`` are the
    tokens that the head pools, and ``d`` and ``w`` make the logit the linear function ``Σ_q w_q x_q · d + constant`` of
    the last hidden states while the scale of every norm is held at its value. With the embeddings, MLPs and biases
    (``trace.attribution``) the sum over blocks, heads and all tokens is the logit; with ``against``, the difference of
    the two logits. Raises ClasslensError for a head that pools by attention. Source: the direct path of Elhage et al.,
    *A Mathematical Framework for Transformer Circuits*, 2021 (transformer-circuits.pub).
    """
    return attribute(recording, logit_weights(recording, target, against)).attention[..., recording.tokens.image]


def logit_weights(
    recording: Recording, target: Int[Tensor, " image"], against: Int[Tensor, " image"] | None = None
) -> ClassOrWeights:
    """The class of each image as ``attribute`` takes it; with ``against``, weights 1 and -1 of the two logits."""
    if against is None:
        return target.to(recording.view.device)
    return _hot(recording, target) - _hot(recording, against)


def log_odds(
    recording: Recording, target: Int[Tensor, " image"], *, against: Int[Tensor, " image"] | None = None
) -> Float[Tensor, "image block head token"]:
    """Contribution of each image token to the class beyond its contribution to rival classes, by head.

    In units of ``log p/(1-p)``: the attribution of ``z_c - Σ_k q_k z_k``, where ``q`` is the model's softmax over all
    other classes, so that close rivals count most. Source: classlens. The weights are the slopes of the log odds by the
    logits, and each logit is attributed exactly, as by ``logit_attribution``; the documentation reports how faithful
    the maps are. With ``against`` that class is the only rival, and the odds are those between the two:
    ``log p_c/p_k = z_c - z_k``. Of a label with a sigmoid of its own, the logit is its log odds.
    """
    view = recording.view
    if not (view.exclusive or view.multi_label):
        view.require_exclusive("log odds", "use logit_attribution; or load it with multi_label=True for binary logits")
    if against is not None or view.multi_label:
        return logit_attribution(recording, target, against=against)
    return attribute(recording, odds_weights(recording, target)).attention[..., recording.tokens.image]


def odds_weights(recording: Recording, target: Int[Tensor, " image"]) -> Float[Tensor, "image category"]:
    """The slopes of a class's log odds by the logits: 1, and minus the softmax over its rivals; of a label 1 alone."""
    logits, hot = recording.logits.to(recording.dtype), _hot(recording, target)
    if not recording.view.exclusive:
        return hot
    return hot - logits.masked_fill(hot.bool(), -torch.inf).softmax(dim=1)


def _hot(recording: Recording, classes: Int[Tensor, " image"]) -> Float[Tensor, "image category"]:
    """Weight 1 for a class of each image."""
    logits = recording.logits
    return F.one_hot(classes.to(logits.device), logits.shape[1]).to(recording.dtype)


LOGIT_ATTRIBUTION = Method(
    logit_attribution,
    ("image", "block", "head", "token"),
    label="logit attribution",
    about="Exact contribution of each token to the class logit through each head.",
    source="Elhage et al., 2021 (the direct path)",
    signed=True,
    complete=True,
    needs=("attention weights", "linear pooling"),
)
LOG_ODDS = Method(
    log_odds,
    ("image", "block", "head", "token"),
    label="log odds",
    about="Attribution of `z_c - Σ_k q_k z_k`, with `q` the softmax over all other classes.",
    source="classlens",
    signed=True,
    needs=("attention weights", "linear pooling", "classes or labels"),
)
