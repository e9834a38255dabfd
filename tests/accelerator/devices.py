"""An accelerator, tiny models on it and on the CPU, and a comparison of what they give."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import classlens
from classlens import ClasslensError, Lens
from tests.models import tiny_timm, tiny_torchvision
from tests.models.oracles import TinyModel

try:
    from tests.models import tiny_transformers
except ImportError:  # a library that a machine may lack
    _TRANSFORMERS: dict[str, TinyModel] = {}
else:
    _TRANSFORMERS = tiny_transformers.MODELS


def _device() -> str | None:
    """The device to test: the one named in the environment, or an accelerator that is there."""
    if os.environ.get("CLASSLENS_TEST_DEVICE"):
        return os.environ["CLASSLENS_TEST_DEVICE"]
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


DEVICE = _device() or ""
needs_device = pytest.mark.skipif(not DEVICE, reason="no accelerator; CLASSLENS_TEST_DEVICE=cpu runs it on the CPU")
needs_cuda = pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="memory is counted on CUDA alone")

DOUBLE = torch.float32 if DEVICE.startswith("mps") else torch.float64  # mps has no float64
# Devices add the terms of a sum in another order. Sums here have at most some hundred terms, and values pass at most
# some hundred operations: their rounding errors add up to some thousand times the unit roundoff (1e-16, 6e-8, 4e-3),
# relative to the largest value of an array. In bfloat16 each state is rounded anew.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}

ZOO = ("cls_layer_scale", "cls_registers", "cls_post_norm", "cls_qk_norm", "avg_includes_prefix", "avg_two_norms")
FAMILIES = (
    "DeiT distilled",
    "SigLIP",
    "EVA-02",
    "EVA, norms inside",
    "parallel branches (18x2)",
    "parallel scaling, LayerScale, one bias",
    "relative position",
)
LIBRARIES = ("BeitForImageClassification", "Dinov2ForImageClassification", "ViTForImageClassification")
MODELS: dict[str, TinyModel] = {
    **{name: tiny_timm.ZOO[name] for name in ZOO},
    **{name: tiny_timm.FAMILIES[name] for name in FAMILIES},
    **{name: _TRANSFORMERS[name] for name in LIBRARIES if name in _TRANSFORMERS},
    "torchvision": tiny_torchvision.MODELS["plain"],
}
# Models that are asked everything; with all that operations need, and in the precision of most users.
WHOLE = (("cls_layer_scale", DOUBLE), ("avg_two_norms", torch.float32))


class Pair(NamedTuple):
    """The same model on the CPU and on the device, and pixels on the CPU."""

    cpu: Lens
    device: Lens
    pixels: Tensor


@cache
def pair(name: str, dtype: torch.dtype = DOUBLE) -> Pair:
    tiny = MODELS[name]
    module = tiny().to(dtype)
    names = [f"class {number}" for number in range(tiny.classes)]
    cpu = classlens.load(module, class_names=names)
    device = classlens.load(copy.deepcopy(module), class_names=names, device=DEVICE)
    assert device.view.device.type == torch.device(DEVICE).type
    return Pair(cpu, device, tiny.pixels(3, dtype))


def outcome(function: Any, *arguments: Any) -> Any:
    """A result, or the text of the refusal where a model has no such thing."""
    try:
        return function(*arguments)
    except ClasslensError as error:
        return f"refused: {error}"


def assert_same(cpu: Any, device: Any, dtype: torch.dtype, place: str = "") -> None:
    """Results of both devices are equal but for rounding, and lie in plain memory."""
    assert type(cpu) is type(device), place
    if isinstance(cpu, xr.Dataset):
        assert sorted(map(str, cpu.variables)) == sorted(map(str, device.variables)), place
        for name in cpu.variables:
            assert_same(cpu[name].variable, device[name].variable, dtype, f"{place}.{name}")
        assert_same(cpu.attrs, device.attrs, dtype, f"{place} attributes")
    elif isinstance(cpu, xr.DataArray):
        assert sorted(map(str, cpu.coords)) == sorted(map(str, device.coords)), place
        assert_same(cpu.variable, device.variable, dtype, place)
        for name in cpu.coords:
            assert_same(cpu[name].variable, device[name].variable, dtype, f"{place}.{name}")
    elif isinstance(cpu, xr.Variable):
        assert cpu.dims == device.dims, place
        assert_same(cpu.values, device.values, dtype, place)
    elif isinstance(cpu, Mapping):
        assert cpu.keys() == device.keys(), place
        for name in cpu:
            assert_same(cpu[name], device[name], dtype, f"{place}.{name}")
    elif isinstance(cpu, list | tuple):
        assert len(cpu) == len(device), place
        for number, values in enumerate(zip(cpu, device, strict=True)):
            assert_same(*values, dtype, f"{place}[{number}]")
    elif isinstance(cpu, Tensor):
        assert device.device.type == "cpu", place
        assert_same(cpu.detach().numpy(), device.detach().numpy(), dtype, place)
    elif isinstance(cpu, np.ndarray | np.floating | float):
        _assert_close(np.asarray(cpu), np.asarray(device), dtype, place)
    else:
        assert cpu == device, place


def _assert_close(cpu: Any, device: Any, dtype: torch.dtype, place: str) -> None:
    assert (cpu.dtype, cpu.shape) == (device.dtype, device.shape), place
    if cpu.dtype.kind == "f":
        assert np.array_equal(np.isnan(cpu), np.isnan(device)), place
        finite = np.abs(cpu[np.isfinite(cpu)])
        tolerance = TOLERANCES[dtype] * finite.max(initial=1.0)
        # Stores and tables hold float32 of models in float64.
        tolerance += 2.0**-22 * finite.max(initial=0.0) if cpu.dtype.itemsize < 8 else 0
        np.testing.assert_allclose(device, cpu, rtol=0, atol=tolerance, err_msg=place)
    elif dtype == torch.float64 or cpu.dtype.kind not in "iu":
        np.testing.assert_array_equal(device, cpu, err_msg=place)
    else:
        # Ranks and top classes differ where logits lie within rounding of each other: a percent of them at most, as
        # logits here are some tenths apart.
        differing = np.count_nonzero(cpu != device)
        assert differing <= max(1, 0.01 * cpu.size), f"{place}: {differing} of {cpu.size} whole numbers differ"


def assert_ranks(rank: Any, logits: Any, target: Any, tolerance: float) -> None:
    """Ranks are those of logits, where no other class is within the tolerance of the class of interest."""
    own = np.take_along_axis(logits, target[:, None, None, None], axis=-1)
    certain = (logits > own + tolerance).sum(axis=-1)
    possible = (logits > own - tolerance).sum(axis=-1) - 1  # without the class itself
    assert ((certain <= rank) & (rank <= possible)).all()
