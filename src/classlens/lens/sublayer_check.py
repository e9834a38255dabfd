"""Law 3 and the class gradient on a few tokens, while one pass runs: what attribution and explanations rest on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.attention import class_gradient, loss_gradient
from classlens.core.steps import compute_dtype
from classlens.errors import cause
from classlens.forward.hooks import Receiver
from classlens.models.self_check import Checks
from classlens.models.view import SCORE_POINTS, SHARED_POINTS, BlockView, ModelView, Readout

# Tokens compared in each block: an adapter or a hook changes every token, and more would cost time at each load.
_POOLED = 2
_WHOLE = ("values", *SCORE_POINTS)
_NAMES = ("attention", "attn_joined", "mlp_joined", "attn_coefficients", "mlp_coefficients", "attn_raw", "mlp_raw")


class SublayerCheck:
    """Compares each sublayer's output with what its heads, or hidden units, add by the weights of the view.

    ``receivers`` go to the pass, with attention in steps and coefficients exposed; ``results`` adds to the checks.
    """

    def __init__(self, view: ModelView, tokens: int) -> None:
        self._view = view
        self._tokens = _sampled(view, tokens)
        self._held: dict[str, Tensor] = {}
        self._law3 = self._gradient = 0.0
        self._failure: str | None = None
        self._tolerance = _tolerance(view.dtype)

    @property
    def receivers(self) -> Mapping[str, Receiver]:
        """Functions of block and tensor, by the name of a block point, in the order in which tensors pass."""
        kept: dict[str, Receiver] = {name: partial(self._keep, name) for name in (*_NAMES, "attn_out", "mlp_out")}
        whole: dict[str, Receiver] = {name: partial(self._keep_whole, name) for name in (*_WHOLE, *SHARED_POINTS)}
        return {**whole, **kept, "resid_post": self._compare}

    def results(self, checks: Checks, last: Float[Tensor, "image token width"]) -> Checks:
        """The checks of the same pass with those of its sublayers, and of the logits as linear functions."""
        for readout in self._view.readouts:
            if readout.space.pool is None:
                self._compare_linear(readout, last)
        return Checks(
            **{
                **vars(checks),
                "failure": checks.failure or self._failure,
                "law3": self._law3,
                "gradient": self._gradient,
                "law3_tolerance": self._tolerance,
            }
        )

    def _keep_whole(self, name: str, _: int, x: Tensor) -> None:
        self._held[name] = x if name in SHARED_POINTS else x[:1]

    def _keep(self, name: str, _: int, x: Tensor) -> None:
        axis = 2 if name == "attention" else 1
        self._held[name] = x[:1].index_select(axis, self._tokens[self._tokens < x.shape[axis]])

    def _compare(self, number: int, state: Tensor) -> None:
        """Check a block whose tensors have all passed."""
        try:
            self._compare_block(number, state)
        except KeyError:
            return  # a point that nothing passed, which the pass itself says
        except RuntimeError as error:
            self._failure = self._failure or f"tensors of block {number} do not fit together ({cause(error)})"

    def _compare_block(self, number: int, state: Tensor) -> None:
        block, dtype = self._view.blocks[number], compute_dtype(state.dtype)
        if "attn_out" in self._held:  # blocks may have less precision than the embeddings
            self._tolerance = max(self._tolerance, _tolerance(self._held["attn_out"].dtype))
        held = {name: x.to(dtype) for name, x in self._held.items()}
        self._held.clear()
        if block.shows_scores:
            self._compare_scores(number, held)
        what = f"attention of block {number} adds something else than its heads"
        joined = _joined(held["attention"], held["values"])
        self._note(block.attn.apply(_inner(block, joined)), held["attn_out"], what)
        if "attn_coefficients" in held:
            what = f"the coefficients of attention in block {number} are not its joined heads"
            self._note(_inner(block, joined), held["attn_coefficients"], what)
        if "mlp_coefficients" in held:
            what = f"the MLP of block {number} adds something else than its hidden units"
            self._note(block.mlp.apply(held["mlp_coefficients"]), held["mlp_out"], what)
        for readout in self._view.readouts:
            self._compare_gradient(number, readout, held)

    def _compare_scores(self, number: int, held: Mapping[str, Tensor]) -> None:
        queries = self._tokens[self._tokens < held["values"].shape[2]]
        try:
            weights = self._view.blocks[number].scores(held, queries).softmax(dim=-1)
        except Exception as error:  # a description may compute scores in any way
            self._failure = self._failure or f"scores of block {number} cannot be computed ({cause(error)})"
            return
        if weights.shape != held["attention"].shape:
            shapes = f"{list(weights.shape)}, not {list(held['attention'].shape)}"
            self._failure = self._failure or f"attention weights of block {number} from its scores are {shapes}"
            return
        what = f"attention weights of block {number} are not those of its queries and keys"
        self._note(weights, held["attention"], what)

    def _compare_gradient(self, number: int, readout: Readout, held: Mapping[str, Tensor]) -> None:
        block, space = self._view.blocks[number], readout.space
        if space.weight.is_inference():  # without a graph
            return
        with torch.enable_grad():
            weights = held["attention"].detach().requires_grad_()
            logits = space.project(block.attn.apply(_inner(block, _joined(weights, held["values"]))))
            target = logits[0, 0].argmax()[None]
            (by_autograd,) = torch.autograd.grad(logits[..., int(target)].sum(), weights)
        closed = class_gradient(
            space,
            block.attn,
            added=held["attn_out"],
            raw=held.get("attn_raw"),
            joined=held.get("attn_joined"),
            values=held["values"],
            gradient=loss_gradient(logits.detach(), target, "logit"),
        )
        error = _relative(closed, by_autograd.mean(dim=2))
        self._gradient = max(self._gradient, error)
        if self._failure is None and not error <= self._tolerance:
            self._failure = f"the class gradient of block {number} is not that of its class space (off by {error:.1e})"

    def _compare_linear(self, readout: Readout, last: Tensor) -> None:
        """The logit of one class as a linear function of the pooled tokens, against the readout's own."""
        tokens = last[:, readout.pooled]
        pooled = readout.space.pooled(tokens)
        target = pooled.argmax(dim=1)
        direction, weights, constant = readout.space.frozen(tokens, target)
        linear = torch.einsum("iqw,iw,iq->i", tokens.to(direction.dtype), direction, weights) + constant
        self._note(linear, pooled.gather(1, target[:, None])[:, 0], "the parts of a logit do not sum to it")

    def _note(self, found: Tensor, expected: Tensor, what: str) -> None:
        error = _relative(found, expected)
        self._law3 = max(self._law3, error)
        if self._failure is None and not error <= self._tolerance:
            self._failure = f"{what} (relative error {error:.1e})"


def _tolerance(dtype: torch.dtype) -> float:
    """Rounding of sums over thousands of channels; half precision has but a few digits."""
    eps = torch.finfo(dtype).eps
    return 2.0**10 * eps if eps < 1e-4 else 16 * eps


def _sampled(view: ModelView, count: int) -> Int[Tensor, " sampled"]:
    """A few tokens that the head pools, and the last token."""
    positions = {count - 1}
    for readout in view.readouts:
        positions |= set(list(range(count))[readout.pooled][:_POOLED])
    return torch.tensor(sorted(positions), device=view.device)


def _joined(
    attention: Float[Tensor, "image head query token"], values: Float[Tensor, "image head token channel"]
) -> Float[Tensor, "image query unit"]:
    """Outputs of all heads side by side."""
    return (attention @ values).transpose(1, 2).flatten(2)


def _inner(block: BlockView, joined: Float[Tensor, "image query unit"]) -> Float[Tensor, "image query unit"]:
    """The joined heads after an inner norm, if the block has one."""
    return joined if block.attn.inner is None else block.attn.inner(joined)


def _relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value; 0 where both are 0."""
    error = float((found - expected).abs().max())
    return error / max(float(expected.abs().max()), torch.finfo(expected.dtype).tiny)
