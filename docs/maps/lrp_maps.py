"""Layer-wise relevance propagation by lxt and zennit, for torchvision's models: ``--method lrp_maps.py:lrp``.

lxt changes classes of torch and zennit for the whole process; here they are put back after each call.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import lxt
from torch import Tensor, nn
from torchvision.models import vision_transformer
from zennit.composites import LayerMapComposite
from zennit.core import BasicHook
from zennit.rules import Gamma

try:
    import lxt.efficient
except ModuleNotFoundError:
    # lxt 2.1 imports language models that transformers 5 no longer has: import its part for torchvision alone.
    models = ModuleType("lxt.efficient.models")
    models.__path__ = [f"{folder}/efficient/models" for folder in lxt.__path__]
    models.get_default_map = None  # type: ignore[attr-defined]
    sys.modules[models.__name__] = models
from lxt.efficient import monkey_patch, monkey_patch_zennit
from lxt.efficient.models.vit_torch import cp_LRP

_PATCHED = (nn.GELU, nn.LayerNorm, nn.MultiheadAttention, BasicHook)


def lrp(model: nn.Module, pixels: Tensor, target: Tensor) -> Tensor:
    """CP-LRP in attention, gamma rule elsewhere (Achtibat et al., 2024); signed, [image, channel, row, column]."""
    rules = LayerMapComposite([(nn.Conv2d, Gamma(0.25)), (nn.Linear, Gamma(0.05))])
    pixels.requires_grad_()
    with patched():
        rules.register(model)
        try:
            logits: Tensor = model(pixels)
            logits.gather(1, target[:, None]).sum().backward()
        finally:
            rules.remove()
    assert pixels.grad is not None
    return (pixels * pixels.grad).detach()


@contextmanager
def patched() -> Iterator[None]:
    """lxt's rules for torchvision's Vision Transformers, within the body."""
    names = ("forward", "backward", "original_forward")
    before = [(kind, name, vars(kind)[name]) for kind in _PATCHED for name in names if name in vars(kind)]
    try:
        monkey_patch(vision_transformer, cp_LRP)
        monkey_patch_zennit()
        yield
    finally:
        for kind in _PATCHED:
            for name in names:
                if name in vars(kind):
                    delattr(kind, name)
        for kind, name, value in before:
            setattr(kind, name, value)
