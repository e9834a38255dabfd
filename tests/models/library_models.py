"""Tiny models of every library on this machine."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tests.models import tiny_timm, tiny_torchvision
from tests.models.oracles import TinyModel

Refused = dict[str, tuple[Callable[[], nn.Module], str]]


def _prefixed(library: str, models: dict[str, TinyModel]) -> dict[str, TinyModel]:
    return {f"{library} {name}": model for name, model in models.items()}


# Hand-built Vision Transformers, and every kind of model of the other libraries: for tests of all other parts.
MODELS: dict[str, TinyModel] = {
    **_prefixed("timm", tiny_timm.ZOO),
    "torchvision": tiny_torchvision.MODELS["plain"],
}
# One model for each description that an adapter gives: for the contract.
CASES: dict[str, TinyModel] = {
    **_prefixed("timm", {k: tiny for k, tiny in tiny_timm.FAMILIES.items() if k not in tiny_timm.REPEATED}),
    **_prefixed("timm", tiny_timm.STEMS),
    **_prefixed("timm", {name: tiny_timm.ZOO[name] for name in tiny_timm.OWN}),
    **_prefixed("torchvision", tiny_torchvision.MODELS),
}
REFUSED: Refused = {
    **{f"timm {name}": row for name, row in tiny_timm.REFUSED.items()},
    **{f"torchvision {name}": row for name, row in tiny_torchvision.REFUSED.items()},
}
try:  # these libraries do not load beside the lowest versions of others; there they have a run of their own
    from tests.models import tiny_open_clip, tiny_transformers
except ImportError:
    pass
else:
    MODELS |= _prefixed("open_clip", tiny_open_clip.MODELS)
    MODELS |= _prefixed(
        "transformers", {name: model for name, model in tiny_transformers.MODELS.items() if "For" in name}
    )
    CASES |= _prefixed("open_clip", tiny_open_clip.MODELS) | _prefixed("transformers", tiny_transformers.MODELS)
    REFUSED |= {
        f"open_clip {name}": (lambda make=make: tiny_open_clip.bare(make()), reason)  # type: ignore[misc]
        for name, (make, reason) in tiny_open_clip.REFUSED.items()
    }
    REFUSED |= {f"transformers {name}": row for name, row in tiny_transformers.REFUSED.items()}
