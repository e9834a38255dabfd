"""Every operation of a lens on an accelerator gives what it gives on the CPU."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch

import classlens
from classlens.forward.edits.registry import EDITS
from tests.accelerator.devices import (
    DEVICE,
    DOUBLE,
    MODELS,
    TOLERANCES,
    WHOLE,
    assert_ranks,
    assert_same,
    needs_cuda,
    needs_device,
    outcome,
    pair,
)
from tests.accelerator.operations import CORE, EDITED, EXPLANATIONS, OPERATIONS, mask, others
from tests.forward.edits.random_means import random_means

pytestmark = needs_device
_MODEL = "cls_layer_scale"


CASES = [
    *((model, dtype, operation) for model, dtype in WHOLE for operation in OPERATIONS),
    *((model, DOUBLE, operation) for model in MODELS if (model, DOUBLE) not in WHOLE for operation in CORE),
    *(("EVA-02", torch.float32, operation) for operation in CORE if torch.float32 != DOUBLE),
]


@pytest.mark.parametrize(("model", "dtype", "operation"), CASES, ids=lambda each: str(each).removeprefix("torch."))
def test_an_operation_gives_what_it_gives_on_the_cpu(model: str, dtype: torch.dtype, operation: str) -> None:
    cpu, device, pixels = pair(model, dtype)
    expected, result = (outcome(OPERATIONS[operation], lens, pixels) for lens in (cpu, device))
    if model == _MODEL:  # a model with all that operations need
        assert not isinstance(expected, str), expected
    assert_same(expected, result, dtype, operation)


def test_every_edit_is_among_the_operations() -> None:
    assert {name.partition(",")[0] for name in EDITED} >= set(EDITS)


@pytest.mark.parametrize("model", MODELS)
def test_ranks_in_float32_differ_only_where_logits_nearly_tie(model: str) -> None:
    cpu, device, pixels = pair(model, torch.float32)
    target = torch.arange(len(pixels)).numpy()
    logits = cpu.trace(pixels).logits().values
    rank = device.trace(pixels).rank(target=target).values
    assert_ranks(rank, logits, target, 2 * TOLERANCES[torch.float32] * abs(logits).max())
    assert_same(cpu.trace(pixels).model_logits, device.trace(pixels).model_logits, torch.float32)


# Pixels, masks and replacements that lie on the device, as users of an accelerator have them.
ON_DEVICE: dict[str, Any] = {
    "trace": lambda lens, pixels, _: [lens.trace(pixels).rank(), lens.trace(pixels).attribution()],
    "facts": lambda lens, pixels, target: lens.facts(pixels, "resid_post", target),
    "explain": lambda lens, pixels, target: lens.explain(pixels, target, method="class_gradient", batch_size=2),
    "explain, against": lambda lens, pixels, target: lens.explain(pixels, target, against=target.flip(0) + 5),
    "check": lambda lens, pixels, _: bool(lens.check(pixels)),
    "picture": lambda lens, pixels, _: list(lens.trace(pixels).picture(0).tobytes()[:12]),
    "sweep": lambda lens, pixels, target: lens.sweep(pixels, others(pixels), target=target),
    "sweep, corruption": lambda lens, pixels, _: lens.sweep(pixels, classlens.Corruption("noise"), blocks=[1]),
    "sweep, approximate": lambda lens, pixels, _: lens.sweep(pixels, others(pixels), approximate=True, steps=2),
    "sweep, kept": lambda lens, pixels, _: lens.sweep(
        pixels, classlens.KeepTokens(mask(lens).to(pixels.device)), direction="noise"
    ),
    "attention": lambda lens, pixels, _: lens.trace(pixels).attention(queries=mask(lens).to(pixels.device)),
    "edit": lambda lens, pixels, _: _edited(lens, pixels),
    "tuned lens": lambda lens, pixels, _: lens.with_tuned_lens(_moved(lens, pixels)).trace(pixels).trajectory(),
}


def _edited(lens: Any, pixels: torch.Tensor) -> Any:
    to = torch.linspace(-1, 1, 2 * 8).to(pixels)
    edits = (
        classlens.Patch("resid_post", others(pixels), blocks=[0], tokens=mask(lens).to(pixels.device)),
        classlens.AblateHeads(torch.tensor([0, 2]).to(pixels.device), blocks=[1], to=to),
        classlens.KeepTokens(mask(lens, len(pixels)).to(pixels.device)),
    )
    with lens.edit(*edits):
        return [lens.trace(pixels).model_logits, lens.facts(pixels, "resid_post", 1)]


def _moved(lens: Any, pixels: torch.Tensor) -> classlens.TunedLens:
    identity = classlens.TunedLens.identity(lens.view)
    return classlens.TunedLens(identity.weight.to(pixels.device), identity.bias.to(pixels.device) + 1)


@pytest.mark.parametrize("operation", ON_DEVICE)
def test_tensors_may_lie_on_the_device(operation: str) -> None:
    cpu, device, pixels = pair(_MODEL)
    target = torch.arange(len(pixels))
    expected = ON_DEVICE[operation](cpu, pixels, target)
    assert_same(expected, ON_DEVICE[operation](device, pixels.to(DEVICE), target.to(DEVICE)), DOUBLE)


def test_tensors_on_the_device_go_into_a_model_on_the_cpu() -> None:
    cpu, _, pixels = pair(_MODEL)
    target = torch.arange(len(pixels))
    for name in ("trace", "facts", "explain", "sweep", "sweep, approximate", "edit", "tuned lens"):
        given = (pixels.to(DEVICE), target.to(DEVICE))
        assert_same(ON_DEVICE[name](cpu, pixels, target), ON_DEVICE[name](cpu, *given), DOUBLE, name)


def test_a_module_on_the_device_is_loaded_where_it_is() -> None:
    cpu, _, pixels = pair(_MODEL)
    module = copy.deepcopy(cpu.view.module).to(DEVICE)
    lens = classlens.load(module, class_names=cpu.classes.names)
    assert lens.view.device.type == torch.device(DEVICE).type
    assert_same(cpu.trace(pixels).logits(), lens.trace(pixels).logits(), DOUBLE)
    with torch.no_grad():  # weights that change are measured anew
        module.head.weight.mul_(-1)
    assert_same(
        -cpu.trace(pixels).logits() + 2 * module.head.bias.detach().cpu().numpy(), lens.trace(pixels).logits(), DOUBLE
    )


def test_weights_have_one_digest_on_every_device() -> None:
    cpu, device, _ = pair(_MODEL)
    assert random_means(cpu.view).weights == random_means(device.view).weights


def test_means_and_tuned_lenses_pass_through_files(tmp_path: Any) -> None:
    cpu, device, pixels = pair(_MODEL)
    file = tmp_path / "lens.safetensors"
    _moved(device, pixels.to(DEVICE)).save(file, device.view)
    assert_same(
        cpu.with_tuned_lens(file).trace(pixels).rank(), device.with_tuned_lens(file).trace(pixels).rank(), DOUBLE
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model", [_MODEL, "avg_two_norms", "EVA-02"])
def test_half_precision(model: str, dtype: torch.dtype) -> None:
    """Logits are near those of the CPU; what a trace says of itself fits to float32, in which it is computed."""
    cpu, device, pixels = pair(model, dtype)
    trace = device.trace(pixels)
    assert_same(cpu.trace(pixels).model_logits, trace.model_logits, dtype)
    assert_same(cpu.trace(pixels).logits(), trace.logits(), dtype)
    logits, target = trace.logits().values, torch.arange(len(pixels)).numpy()
    assert_ranks(trace.rank(target=target).values, logits, target, 1e-4 * abs(logits).max())
    parts = trace.attribution()
    total = parts.embed + parts.attention.sum(["block", "head"]) + parts.mlp.sum("block") + parts.bias
    scale = float(abs(parts.attention).sum(["block", "head"]).max() + abs(parts.mlp).sum("block").max())
    # Law 3 within the rounding of the states to the model's precision.
    assert float(abs(total - parts.logit).max()) < TOLERANCES[dtype] * scale
    for name, explain in EXPLANATIONS.items():
        assert not isinstance(outcome(explain, device, pixels), str), name


def test_autocast_of_the_caller_changes_nothing() -> None:
    _, device, pixels = pair(_MODEL, torch.float32)
    expected = [device.trace(pixels).logits(), device.explain(pixels)]
    with torch.autocast(torch.device(DEVICE).type, dtype=torch.bfloat16):
        assert_same(expected, [device.trace(pixels).logits(), device.explain(pixels)], torch.float32)


def test_the_default_device_of_the_caller_changes_nothing() -> None:
    cpu, device, pixels = pair(_MODEL)
    for name in ("trace", "explain", "sweep", "edit", "tuned lens"):
        target = torch.arange(len(pixels))
        expected = ON_DEVICE[name](cpu, pixels, target)
        with torch.device(DEVICE):
            if name not in ("edit", "tuned lens"):  # which make tensors within the body
                assert_same(expected, ON_DEVICE[name](device, pixels, target), DOUBLE, name)


@needs_cuda
@pytest.mark.parametrize("operation", OPERATIONS)
def test_memory_of_the_device_is_free_after_an_operation(operation: str) -> None:
    _, device, pixels = pair(_MODEL)
    outcome(OPERATIONS[operation], device, pixels)  # what libraries and a lens keep for the next time
    gc.collect()
    before = torch.cuda.memory_allocated()
    result = outcome(OPERATIONS[operation], device, pixels)
    del result
    gc.collect()
    assert torch.cuda.memory_allocated() == before
