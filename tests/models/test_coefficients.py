"""Memory coefficients of every library: times the value vectors they are what a sublayer adds (law `memories`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import classlens
from classlens.lens.verify import Law, verify
from tests import zoo
from tests.models import test_torchvision

MODELS: dict[str, Callable[[], nn.Module]] = {
    **{f"timm {name}": partial(zoo.build, name) for name in zoo.VARIANTS},
    "torchvision": test_torchvision.build,
}
try:  # these libraries do not load beside the lowest versions of others; there they have a run of their own
    from tests.models import test_open_clip, test_transformers
except ImportError:
    pass
else:
    MODELS |= {f"open_clip {name}": partial(test_open_clip.zero_shot, name) for name in test_open_clip.VARIANTS}
    MODELS |= {f"transformers {kind}": partial(test_transformers.build, kind) for kind in test_transformers.KINDS}


@pytest.mark.slow
def test_no_library_is_left_out() -> None:
    """Outside the run with lowest versions, which leaves slow tests out."""
    assert {name.partition(" ")[0] for name in MODELS} == {"timm", "torchvision", "open_clip", "transformers"}


def law(module: nn.Module) -> Law:
    found = {law.name: law for law in verify(classlens.load(module).view)}
    assert all(each.holds for each in found.values())
    return found["memories"]


@pytest.mark.parametrize("name", MODELS)
def test_coefficients_times_values_are_what_sublayers_add(name: str) -> None:
    found = law(MODELS[name]())
    assert found.error is not None
    assert found.error < (1e-12 if "transformers" not in name else 1e-4)


def test_another_projection_is_noticed() -> None:
    model: Any = zoo.build("cls")
    lens = classlens.load(model)
    with torch.no_grad():
        model.blocks[1].mlp.fc2.register_forward_hook(lambda _, __, out: 1.01 * out)
    found = {law.name: law for law in verify(lens.view)}
    assert not found["memories"].holds
