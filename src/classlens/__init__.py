"""classlens: how a Vision Transformer image classifier builds its classes, in its own class embedding."""

from typing import TYPE_CHECKING, Any

from classlens.errors import ClasslensError

if TYPE_CHECKING:
    from classlens.lens.lens import Lens, load
    from classlens.lens.trace import Trace

__version__ = "0.1.0"
__all__ = ["ClasslensError", "Lens", "Trace", "__version__", "load"]

_HOMES = {"Lens": "classlens.lens.lens", "load": "classlens.lens.lens", "Trace": "classlens.lens.trace"}


def __getattr__(name: str) -> Any:
    # torch and timm take seconds to import; `classlens --help` should not.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'classlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
