"""Results depend on the model and the images alone: not on contexts of torch, other threads, or flags of the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import classlens
from classlens import AblateHeads, Lens
from classlens.errors import ClasslensError
from classlens.explain.registry import METHODS
from classlens.forward.isolation import exclusive, isolated
from classlens.models.view import Site
from tests.models.library_models import MODELS

TIMM = "timm cls_registers"
FAMILIES = [
    TIMM,
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("torchvision", "open_clip cls", "transformers ViTForImageClassification")
        if name in MODELS
    ),
]


def model_of(name: str) -> Any:
    """The same random model every time."""
    torch.manual_seed(0)
    return MODELS[name]().float()


def lens_of(name: str) -> Lens:
    return classlens.load(model_of(name))


@cache
def expected_of(name: str) -> dict[str, Any]:
    """The results without any context."""
    lens = lens_of(name)
    return all_results(lens, pixels_of(lens))


def pixels_of(lens: Lens) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, lens.view.channels, *lens.view.input_size, generator=generator)


def all_results(lens: Lens, pixels: torch.Tensor) -> dict[str, Any]:
    """Results of every public method for two images."""
    trace = lens.trace(pixels)
    site: Site = "resid_post"
    results: dict[str, Any] = {
        "model_logits": trace.model_logits,
        "predictions": trace.predictions,
        "logits": trace.logits(site),
        "facts": trace.facts(site, 1),
        "rank": trace.rank(site, 1),
        "identifiability": trace.identifiability(site, 1),
        "top": trace.top(site, k=2),
        "map": trace.map(1),
        "every class": trace.explain_every_class(),
        "classes": xr.concat(list(trace.explain_classes(3)), "category"),
        "attribution": trace.attribution(1),
        "streamed facts": lens.facts(pixels, site, 1),
        "streamed map": lens.explain(pixels, 1, method="class_gradient"),
    }
    results |= {f"explain {method}": trace.explain(1, method=method) for method in METHODS}
    with lens.edit(AblateHeads([0], blocks=[1])):
        results["edited"] = lens.facts(pixels, site, 1)
    return results


def assert_same(results: dict[str, Any], expected: dict[str, Any], *, rounding: bool = False) -> None:
    """The same operations in the same precision give the same bits, unless torch takes another path."""
    assert results.keys() == expected.keys()
    for name, result in results.items():
        if rounding:
            xr.testing.assert_allclose(result, expected[name], rtol=1e-4, atol=1e-4)  # of values up to 20
        else:
            assert result.equals(expected[name]), name


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": lambda: default_dtype(torch.float64),
    "default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_contexts_change_nothing(family: str, context: str) -> None:
    lens = lens_of(family)
    pixels, expected = pixels_of(lens), expected_of(family)
    with CONTEXTS[context]():
        results = all_results(lens, pixels)
        mode = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
        state = (torch.get_default_dtype(), torch.get_default_device())
    with CONTEXTS[context]():
        assert mode == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
        assert state == (torch.get_default_dtype(), torch.get_default_device())
    # Within torch.device, attention of torch does not take its fast path.
    assert_same(results, expected, rounding=context == "default device")


@pytest.mark.parametrize("context", ["inference_mode", "autocast"])
def test_a_model_that_is_loaded_in_a_context(context: str) -> None:
    pixels = pixels_of(lens_of(TIMM))
    model = model_of(TIMM)
    with CONTEXTS[context]():
        lens = classlens.load(model)
        if context == "inference_mode":
            pixels = pixels.clone()  # a tensor that autograd refuses
        results = all_results(lens, pixels)
    assert_same(results, expected_of(TIMM))


@pytest.mark.parametrize("family", FAMILIES)
def test_modes_of_the_model_change_nothing(family: str) -> None:
    lens = lens_of(family)
    pixels, expected = pixels_of(lens), expected_of(family)
    module: Any = lens.view.module
    module.train()
    flags = ("grad_checkpointing", "gradient_checkpointing")
    checkpointed = [(part, flag) for part in module.modules() for flag in flags if hasattr(part, flag)]
    for part, flag in checkpointed:
        setattr(part, flag, True)
    assert checkpointed or family == "torchvision"
    assert_same(all_results(lens, pixels), expected)
    assert all(part.training for part in module.modules())
    assert all(getattr(part, flag) for part, flag in checkpointed)


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_change_nothing(family: str) -> None:
    """Two lenses on one module, each used by two threads."""
    first = lens_of(family)
    second = classlens.load(first.view.module)
    pixels, expected = pixels_of(first), expected_of(family)
    first.view.module.train()
    flags = [getattr(part, "fused_attn", None) for part in first.view.module.modules()]
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda number: all_results((first, second)[number % 2], pixels), range(4)):
            assert_same(results, expected)
    assert all(part.training for part in first.view.module.modules())
    assert [getattr(part, "fused_attn", None) for part in first.view.module.modules()] == flags
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in first.view.module.modules())


def test_other_threads_wait_for_an_edit_to_end() -> None:
    lens = lens_of(TIMM)
    pixels = pixels_of(lens)
    expected, results = lens.facts(pixels, "resid_post", 1), []
    thread = threading.Thread(target=lambda: results.append(lens.facts(pixels, "resid_post", 1)))
    with lens.edit(AblateHeads([0, 1, 2])):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert not lens.facts(pixels, "resid_post", 1).equals(expected)
    thread.join(30)
    assert results[0].equals(expected)


def test_modules_around_one_backbone_share_a_lock() -> None:
    backbone = torch.nn.Linear(2, 2)
    wrapped = torch.nn.Sequential(torch.nn.Identity(), backbone)
    entered = threading.Event()

    def enter() -> None:
        with exclusive(wrapped):
            entered.set()

    thread = threading.Thread(target=enter)
    with exclusive(backbone), exclusive(wrapped):
        thread.start()
        assert not entered.wait(0.1)
    thread.join(30)
    assert entered.is_set()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_would_wait_for_each_other_are_told(threads: int) -> None:
    """Each holds a module and asks for that of the next; one is refused, and the others go on."""
    modules = [torch.nn.Linear(2, 2) for _ in range(threads)]
    barrier, refusals = threading.Barrier(threads), list[str]()

    def hold(number: int) -> None:
        with exclusive(modules[number]):
            barrier.wait(30)
            try:
                with exclusive(modules[(number + 1) % threads]):
                    pass
            except ClasslensError as error:
                refusals.append(str(error))

    running = [threading.Thread(target=hold, args=(number,), daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
    assert not any(thread.is_alive() for thread in running)
    assert len(refusals) == 1
    assert "wait for each other" in refusals[0]


def test_a_generator_leaves_the_contexts_between_values() -> None:
    closed = []

    @isolated
    def numbers() -> Iterator[bool]:
        try:
            while True:
                yield torch.is_autocast_enabled("cpu")
        finally:
            closed.append(True)

    with torch.autocast("cpu"), ExitStack() as stack:
        iterator = numbers()
        stack.callback(iterator.close)  # type: ignore[attr-defined]
        assert next(iterator) is False
        assert torch.is_autocast_enabled("cpu")
        assert next(iterator) is False
    assert closed == [True]


@pytest.mark.parametrize("method", METHODS)
def test_pixels_that_are_not_finite_are_refused(method: str) -> None:
    lens = lens_of(TIMM)
    pixels = pixels_of(lens)
    pixels[1, 0, 3, 3] = np.nan
    with pytest.raises(ClasslensError, match="image 'image 1' gives .* that are not finite"):
        lens.explain(pixels, 1, method=method)
