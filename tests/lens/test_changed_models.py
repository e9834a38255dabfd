"""A model that changes while a lens holds it: results are those of the model as it is, or an error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import classlens
from classlens import Lens, Trace
from classlens.explain.registry import METHODS
from tests import zoo
from tests.refusals import refused

NAME = "cls_registers"
COMPUTED: dict[str, Any] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight norm by hooks": pytest.param(old_weight_norm, marks=pytest.mark.filterwarnings("ignore:.*weight_norm")),
    "spectral norm by hooks": old_spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
}
PLACES: dict[str, Callable[[Any], nn.Module]] = {
    "head": lambda model: model.head,
    "attention": lambda model: model.blocks[1].attn.proj,
    "MLP": lambda model: model.blocks[1].mlp.fc2,
}
RESULTS: dict[str, Callable[[Any], Any]] = {
    "logits": lambda trace: trace.logits("mlp_out"),
    "facts": lambda trace: trace.facts("attn_out", 2),
    "top": lambda trace: trace.top(k=2),
    "attribution": lambda trace: trace.attribution(2),
    "every class": lambda trace: trace.explain_every_class(),
    **{method: partial(Trace.explain, target=2, method=method) for method in METHODS if method != "random"},
}


def train(model: Any, rate: float = 0.05) -> None:
    """One step of training."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    nn.functional.cross_entropy(model(zoo.pixels(NAME)), zoo.targets()).backward()
    optimizer.step()
    optimizer.zero_grad()


def assert_right(lens: Lens, model: Any) -> None:
    """The results of a lens are those of a plain model with the same weights, in which nothing is computed."""
    with torch.no_grad():
        plain: Any = zoo.build(NAME)
        model.eval()(zoo.pixels(NAME))  # hooks compute their weights in a pass
        for name, part in plain.named_modules():
            for key in part._parameters:
                part._parameters[key].copy_(getattr(model.get_submodule(name), key))
    expected, trace = classlens.load(plain).trace(zoo.pixels(NAME)), lens.trace(zoo.pixels(NAME))
    for result in ("facts", "attribution", "class_gradient"):
        for values, others in zip(*(_arrays(RESULTS[result](each)) for each in (trace, expected)), strict=True):
            np.testing.assert_allclose(values, others, rtol=0, atol=1e-9)
    facts = lens.facts(zoo.pixels(NAME), "attn_out", 2)
    np.testing.assert_allclose(facts["logit"], expected.facts("attn_out", 2)["logit"], rtol=0, atol=1e-9)


def _arrays(result: Any) -> list[Any]:
    return [result[name].values for name in result] if hasattr(result, "data_vars") else [result.values]


def test_fine_tuning_with_a_look_after_every_step() -> None:
    model = zoo.build(NAME)
    lens = classlens.load(model)
    for _ in range(2):
        train(model)
        assert_right(lens, model)


@pytest.mark.parametrize(
    "place", ["head", *(pytest.param(place, marks=pytest.mark.slow) for place in list(PLACES)[1:])]
)
@pytest.mark.parametrize("computed", COMPUTED.values(), ids=COMPUTED)
def test_weights_that_a_layer_computes(computed: Callable[[nn.Module], Any], place: str) -> None:
    """Read as they are when the model is loaded, also in training mode and when hooks have not run since a step."""
    model: Any = zoo.build(NAME)
    computed(PLACES[place](model))
    train(model)
    lens = classlens.load(model)
    assert_right(lens, model)
    train(model)
    for call in (lambda: lens.trace(zoo.pixels(NAME)), lambda: lens.facts(zoo.pixels(NAME), "mlp_out", 1), lens.check):
        refused(call, "was changed after it was loaded", "load the model again")
    assert_right(classlens.load(model), model)


@pytest.mark.parametrize("result", RESULTS)
def test_a_trace_of_earlier_weights(result: str) -> None:
    model: Any = zoo.build(NAME)
    lens = classlens.load(model)
    trace = lens.trace(zoo.pixels(NAME))
    expected = RESULTS[result](trace)
    weight = model.blocks[1].mlp.fc1.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.01)
    refused(lambda: RESULTS[result](trace), "have changed since these images ran", "trace the images again")
    if result != "top":  # which may well stay the same
        assert not RESULTS[result](lens.trace(zoo.pixels(NAME))).equals(expected)
    weight.data = kept  # the same numbers in another tensor
    refused(lambda: RESULTS[result](trace), "trace the images again")


def test_weights_written_through_data() -> None:
    """As averages of weights are swapped in: versions do not count that."""
    model: Any = zoo.build(NAME)
    lens = classlens.load(model)
    trace = lens.trace(zoo.pixels(NAME))
    for parameter in model.parameters():
        parameter.data.mul_(1.1)
    refused(lambda: trace.explain(2), "have changed since these images ran")
    assert_right(lens, model)


def test_a_hook_that_comes_later() -> None:
    model: Any = zoo.build(NAME)
    lens = classlens.load(model)
    trace = lens.trace(zoo.pixels(NAME))
    seen: list[object] = []
    handle = model.blocks[1].attn.proj.register_forward_hook(lambda *_: seen.append(0))
    assert lens.trace(zoo.pixels(NAME)).attribution(2).equals(trace.attribution(2)), "it only looks"
    handle.remove()
    parts = trace.attribution(2)
    model.blocks[1].attn.proj.register_forward_hook(lambda _, __, output: 1.1 * output)
    refused(lambda: lens.trace(zoo.pixels(NAME)), "attention of block 1 adds something else than its heads")
    assert trace.attribution(2).equals(parts), "the images ran before"
    refused(lambda: trace.explain(2, method="chefer"), "other logits than when they were traced")


def test_a_hook_that_comes_with_an_edit() -> None:
    """The laws were measured before; what heads contribute is compared with what is added in every attribution."""
    model: Any = zoo.build(NAME)
    lens = classlens.load(model)
    with lens.edit(classlens.NoCls()):
        model.blocks[1].attn.proj.register_forward_hook(lambda _, __, output: 1.1 * output)
        refused(
            lambda: lens.trace(zoo.pixels(NAME)).attribution(2), "heads of block", "something changes it after them"
        )


COMPILED: dict[str, Callable[[Any], Any]] = {
    "the model, in place": lambda model: model.compile(backend="eager"),
    "a block, in place": lambda model: model.blocks[1].compile(backend="eager"),
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("kind", COMPILED)
def test_compiled_models(kind: str, before: bool) -> None:
    """Hooks are seen by no compiled code: passes and edits run the model as it was written."""
    model = zoo.build(NAME)
    lens = None if before else classlens.load(model)
    COMPILED[kind](model)
    with torch.no_grad():
        unedited = model(zoo.pixels(NAME))
    lens = lens or classlens.load(model)
    assert_right(lens, model)
    with lens.edit(classlens.NoCls()), torch.no_grad():
        edited = lens.trace(zoo.pixels(NAME)).model_logits
        np.testing.assert_allclose(model(zoo.pixels(NAME)), edited, rtol=0, atol=1e-12)
    assert float(abs(edited.values - unedited.numpy()).max()) > 0.01
    with torch.no_grad():
        assert torch.equal(model(zoo.pixels(NAME)), unedited), "compiled again"


def test_a_compiled_copy_is_the_model_within() -> None:
    model = zoo.build(NAME)
    compiled: Any = torch.compile(model, backend="eager")
    lens = classlens.load(compiled)
    assert lens.view.module is model


def test_a_forward_that_skips_hooks() -> None:
    model: Any = zoo.build(NAME)
    lens = classlens.load(model)
    expected = model(zoo.pixels(NAME)).detach()
    model.forward = lambda pixels: expected
    for call in (lambda: lens.trace(zoo.pixels(NAME)), lambda: lens.facts(zoo.pixels(NAME), "mlp_out", 2)):
        refused(call, "passed 0 times in one pass", "load it before its forward is compiled or replaced")
