"""The contract of every adapter, held against the untouched model: the library's own modules, API and autograd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import classlens
from classlens import AblateHeads, AblateSublayer, CutAttention
from classlens.core.attention import LOSSES
from classlens.forward.hooks import watching
from classlens.forward.run import evaluating
from classlens.lens.trace import Trace
from classlens.lens.verify import verify
from classlens.models.view import Site
from tests import zoo
from tests.models.library_models import CASES, REFUSED
from tests.models.oracles import Pass, TinyModel, attention_gradient, run, written_out_attention
from tests.refusals import refused

NUMBERS = {name: number for number, name in enumerate(CASES)}
TARGET = torch.tensor([2, 4])


@dataclass
class Case:
    """A tiny model in float64, what classlens says about it, and its own forward pass."""

    name: str
    tiny: TinyModel
    module: Any
    lens: classlens.Lens
    pixels: Tensor
    trace: Trace
    own: Pass

    def states(self, site: str) -> list[Tensor]:
        return [state for _, state in self.trace.recording.walk(site, slice(None))]

    @property
    def blocks(self) -> range:
        return range(self.tiny.depth)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    tiny = CASES[request.param]
    module, pixels = tiny.make(), tiny.pixels()
    lens = classlens.load(module)
    return Case(request.param, tiny, module, lens, pixels, lens.trace(pixels), run(tiny, module, pixels))


def close(found: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_tokens_states_and_logits_are_the_models_own(case: Case) -> None:
    """The description, and laws 1 and 2."""
    tiny, view = case.tiny, case.lens.view
    tokens = view.tokens(tiny.size)
    assert (tokens.prefix, tokens.grid) == (tiny.prefix, tiny.grid)
    assert (view.pooling, view.library, view.channels) == (tiny.pooling, tiny.library, tiny.channels)
    assert (len(view.blocks), view.num_classes) == (tiny.depth, tiny.classes)
    assert {block.heads for block in view.blocks} == {tiny.heads}
    assert tuple(tuple(range(*readout.pooled.indices(tokens.count))) for readout in view.readouts) == tiny.queries
    assert tuple(readout.weight for readout in view.readouts) == tiny.weights
    assert len(case.lens.classes) == tiny.classes
    assert view.module is case.module

    own = case.own
    assert own.logits.abs().max() > 1, "logits near zero would hide a mistake"
    close(torch.from_numpy(case.trace.model_logits.values), own.logits)
    pre, post = case.states("resid_pre"), case.states("resid_post")
    assert len(pre) == len(post) == len(own.inputs) == case.tiny.depth
    for block, state in enumerate(case.tiny.states(case.module, case.pixels)):
        close(post[block], state)
        close(pre[block], own.inputs[block])
        attn, mlp = (case.trace.recording.activation(site, block) for site in ("attn_out", "mlp_out"))
        close(attn, own.added[block].detach())
        close(mlp, state - own.inputs[block] - own.added[block].detach())
    close(view.logits(post[-1]), own.logits)
    assert case.lens.checks.law1 < 1e-13


def test_each_token_is_projected_through_its_own_head(case: Case) -> None:
    tiny = case.tiny
    places: tuple[tuple[Site, int], ...] = (("resid_post", tiny.depth - 1), ("mlp_out", 0))
    for site, block in places:
        vectors = (
            case.states("resid_post")[block] if site == "resid_post" else case.trace.recording.activation(site, block)
        )
        found = torch.from_numpy(case.trace.logits(site).sel(block=block).values)
        for token in range(tiny.count):
            with torch.no_grad():
                expected = tiny.token_logits(case.module, vectors[:, token], tiny.reader(token))
            close(found[:, token], expected)


def test_weights_and_values_are_those_of_fused_attention(case: Case) -> None:
    """They pass while attention is computed step by step, which changes nothing."""
    found: dict[str, list[Tensor]] = {"attention": [], "values": [], "attn_out": []}
    receivers = {name: (lambda _, x, kept=kept: kept.append(x)) for name, kept in found.items()}
    view = case.lens.view
    with evaluating(case.module), view.unfused(), watching(view, receivers):
        close(view.run(case.pixels), case.own.logits)
    assert [len(tensors) for tensors in found.values()] == [case.tiny.depth] * 3
    for block, (weights, values, added) in enumerate(zip(*found.values(), strict=True)):
        close(weights, case.own.weights(block).detach(), 1e-12)
        close(values, case.own.values(block).detach(), 1e-12)
        close(added, case.own.added[block].detach())
        close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]), 1e-12)


def test_parts_add_up_to_the_logit_and_the_explanation_is_the_gradient(case: Case) -> None:
    """Law 3, and autograd through the model."""
    if case.tiny.attributed:
        parts = case.trace.attribution(TARGET)
        total = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
        np.testing.assert_allclose(total, case.own.logits.gather(1, TARGET[:, None])[:, 0], rtol=0, atol=1e-9)
    else:
        refused(lambda: case.trace.attribution(0), "pools by attention")
    loss = LOSSES[NUMBERS[case.name] % 3]
    expected = attention_gradient(case.tiny, case.module, case.own, TARGET, loss)[..., len(case.tiny.prefix) :]
    assert expected.abs().amax(dim=(0, 2, 3)).min() > 1e-6, "every block must have something to agree on"
    found = case.trace.explain(TARGET, loss=loss, method="class_gradient")
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-9)


def test_edits_are_those_of_the_model(case: Case) -> None:
    """A head ablated, attention to the first token cut, the last MLP ablated."""
    view, last, branches = case.lens.view, case.tiny.depth - 1, case.tiny.branches
    heads = case.tiny.heads // branches

    def without_head(call: int, weights: Tensor, values: Tensor) -> Tensor:
        output = weights @ values
        if call == last * branches + (branches - 1):
            output[:, heads - 1] = 0
        return output

    def without_first_key(call: int, weights: Tensor, values: Tensor) -> Tensor:
        if call // branches == 0:
            weights = weights.clone()
            weights[..., 0] = 0
        return weights @ values

    edits: list[tuple[Any, Any]] = [
        (AblateHeads([case.tiny.heads - 1], blocks=[last]), without_head),
        (CutAttention("all", [0], blocks=[0]), without_first_key),
    ]
    with torch.no_grad():
        for edit, change in edits:
            with torch.enable_grad(), written_out_attention(change):  # without gradients torch takes a fast path
                expected = case.tiny.logits(case.module, case.pixels).detach()
            assert (expected - case.own.logits).abs().max() > 1e-6, "the edit must do something"
            with case.lens.edit(edit):
                close(view.run(case.pixels), expected)
        close(view.run(case.pixels), case.own.logits)
        if view.has_mid:
            with case.lens.edit(AblateSublayer("mlp", blocks=[last])):
                close(view.run(case.pixels), view.logits(case.own.inputs[last] + case.own.added[last].detach()))


def test_every_law_holds(case: Case) -> None:
    laws = {law.name: law for law in verify(case.lens.view, case.pixels)}
    assert all(law.holds for law in laws.values()), laws
    undefined = {name for name, law in laws.items() if law.error is None}
    assert undefined == (set() if case.tiny.attributed else {"attribution"})
    assert laws["memories"].error is not None
    assert laws["memories"].error < 1e-11


class Stopped(Exception):
    pass


PRECISIONS = (torch.float32, torch.bfloat16, torch.float32, torch.float16)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_left_behind(name: str) -> None:
    """Law 4, in other precisions, with flags that differ from module to module, and frozen parameters."""
    number, tiny = NUMBERS[name], CASES[name]
    dtype = PRECISIONS[number % 4]
    module = tiny.make().to(dtype)
    if tiny.library == "transformers":
        module.set_attn_implementation(("sdpa", "eager")[number % 2])
    pixels = tiny.pixels(dtype=dtype)
    for parameter in list(module.parameters())[::3]:
        parameter.requires_grad_(False)
    with torch.no_grad():
        logits = module(pixels)
    module.train()
    next(module.children()).eval()
    before, random = zoo.snapshot(module), torch.get_rng_state()

    lens = classlens.load(module)
    assert lens.view.dtype == dtype
    trace = lens.trace(pixels)
    trace.explain(TARGET)
    if tiny.attributed:
        parts = trace.attribution(TARGET)
        total = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
        size = float(abs(parts.attention).sum(("block", "head")).max() + abs(parts.mlp).sum("block").max())
        own = trace.model_logits.isel(image=[0, 1]).values[[0, 1], TARGET]
        np.testing.assert_allclose(total, own, rtol=0, atol=8 * torch.finfo(dtype).eps * max(size, 10))
    assert zoo.snapshot(module) == before

    def stop(block: int, _: Tensor) -> None:
        if block == 1:
            raise Stopped

    for context in (lens.view.unfused, lens.view.exposing_coefficients):
        with pytest.raises(Stopped), evaluating(module), context(), watching(lens.view, {"attn_out": stop}):
            module(pixels)
        assert zoo.snapshot(module) == before
    assert torch.equal(torch.get_rng_state(), random), "the user's random numbers are the user's"
    with torch.no_grad():
        again = module.eval()(pixels)
    again, logits = (output if isinstance(output, Tensor) else output.logits for output in (again, logits))
    assert torch.equal(again, logits)


@pytest.mark.slow
def test_no_library_is_left_out() -> None:
    """Not in the runs with lowest versions, which leave out slow tests."""
    assert {tiny.library for tiny in CASES.values()} == {"timm", "torchvision", "open_clip", "transformers"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """One sentence with the model, the reason and what is supported."""
    make, reason = REFUSED[name]
    module = make()
    message = refused(lambda: classlens.load(module), f"'{type(module).__name__}'", reason)
    assert "classlens supports" in message


def test_raw_arrays_are_the_model_s_own(case: Case) -> None:
    """Attention by queries and keys of each family: norms, rotation, biases, groups and branches; and its states."""
    attention = torch.from_numpy(case.trace.attention(queries="all").values)
    states = torch.from_numpy(case.trace.states().values)
    for block, state in enumerate(case.tiny.states(case.module, case.pixels)):
        close(attention[:, block], case.own.weights(block).detach(), 1e-12)
        close(states[:, block], state)
        for query in range(case.tiny.count):  # a few queries are computed in another order
            rows = case.trace.attention(blocks=block, queries=query)
            close(torch.from_numpy(rows.values)[:, 0, :, 0], attention[:, block, :, query], 1e-12)
