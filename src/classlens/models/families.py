"""The libraries whose models classlens reads: one adapter file each, found through this table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import nn

from classlens.errors import ClasslensError
from classlens.models.transforms import Transform
from classlens.models.view import ModelView

# From a library's import name (or a set of names of our own) to its adapter, in the order in which they are asked
# whether a name is theirs.
ADAPTERS: dict[str, str] = {
    "classlens": "classlens.models.builtin",
    "paper": "classlens.models.paper",
    "timm": "classlens.models.timm",
    "torchvision": "classlens.models.torchvision",
    "open_clip": "classlens.models.open_clip",
    "transformers": "classlens.models.transformers",
}
# Names that no library owns are asked for first: a user's own file.
_FILES = "classlens.models.user_file"
_LINEAR_HEAD = "classlens.models.linear_head"
_OWN = ("classlens", "paper")  # no libraries of their own: their modules are timm's


Weights = Literal["here", "not here", "needs a file", "none published"]
"""On this machine; to be fetched from the library's usual place; to be given by the user; nowhere to be had."""


@dataclass(frozen=True)
class Known:
    """A model name that a library resolves."""

    name: str
    library: str
    family: str
    classes: int | None
    """Rows of the head of its weights: 0 where they have none, None where the user says what the classes are."""
    weights: Weights


@dataclass(frozen=True)
class Request:
    """What a user asks for besides the name of a model."""

    checkpoint: str | Path | None = None
    num_classes: int | None = None
    pretrained: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] | None = None
    """Part of the model itself where the classes are prompts; elsewhere names for the rows of the head."""

    @property
    def plain(self) -> bool:
        """Whether nothing is asked for but the model."""
        return self.checkpoint is None and self.num_classes is None and not self.options


@dataclass(frozen=True)
class Created:
    """A model made from a name, with what its library knows about it."""

    module: nn.Module
    class_names: Sequence[str] | None = None
    transform: Transform | None = None
    view: ModelView | None = None
    """Where a user has described the model; else the adapter of its library does."""


class Adapter(Protocol):
    """What an adapter module offers; nothing heavy is imported until ``create`` or ``view`` is called."""

    def claims(self, name: str) -> bool:
        """Whether a model name is this library's to resolve."""
        ...

    def create(self, name: str, request: Request) -> Created:
        """Make the model; raises ClasslensError with the way out when weights are not to be had."""
        ...

    def view(self, module: nn.Module, name: str) -> ModelView:
        """Describe a module of this library; raises ClasslensError for what is not supported, with the reason."""
        ...

    def known_as(self, module: nn.Module) -> Created:
        """What the library knows about a module that the user holds: class names and eval transform, where it does."""
        ...

    def known(self) -> Iterable[Known]:
        """The names that the library is known to resolve; none where it is not installed."""
        ...


def known() -> Iterator[Known]:
    """Every model name that a library on this machine resolves."""
    for path in ADAPTERS.values():
        yield from _adapter(path).known()


def named(name: str) -> Adapter | None:
    """The adapter that resolves a model name, None when no library knows it."""
    adapters = (_adapter(path) for path in (_FILES, *ADAPTERS.values()))
    return next((adapter for adapter in adapters if adapter.claims(name)), None)


def of(module: nn.Module, name: str) -> Adapter:
    """The adapter for a module, by the library (or the adapter itself) that its class or a base class comes from."""
    for base in type(module).__mro__:
        if base.__module__ in (*ADAPTERS.values(), _LINEAR_HEAD):
            return _adapter(base.__module__)
        root = base.__module__.partition(".")[0]
        if root in ADAPTERS:
            return _adapter(ADAPTERS[root])
        if root == "torch":
            break
    known = ", ".join(library for library in ADAPTERS if library not in _OWN)
    raise ClasslensError(
        f"model {name!r} is no class of {known}: give a Vision Transformer of one of them, or describe yours with a "
        "ModelView, as the documentation's page on own models shows"
    )


def _adapter(path: str) -> Adapter:
    adapter: Any = import_module(path)
    return adapter  # type: ignore[no-any-return]
