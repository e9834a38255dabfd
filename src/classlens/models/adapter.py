"""The record of a model library, and the way from a model name or a module to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from classlens.errors import ClasslensError, suggestion
from classlens.models.lora import Lora
from classlens.models.registry import ADAPTERS
from classlens.models.transforms import Transform
from classlens.models.view import ModelView, ProblemType
from classlens.models.wrappers import without_wrappers

Weights = Literal["here", "not here", "needs a file", "none published"]
"""On this machine; at the library's usual source; in a file that the user gives; nowhere."""


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models."""

    name: str
    library: str
    """A name in ``ADAPTERS``."""
    family: str
    classes: int | None
    """Rows of the pretrained head: 0 without a head, None where the user's prompts or files decide."""
    weights: Weights


@dataclass(frozen=True)
class ModelRequest:
    """A user's wishes besides the name of a model."""

    checkpoint: str | Path | None = None
    num_classes: int | None = None
    pretrained: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] | None = None
    """Part of the model itself where classes are prompts; elsewhere names for the rows of the head."""
    lora: Lora | None = None
    """An adapter to merge into the model."""

    @property
    def is_default(self) -> bool:
        """Whether the model is wanted as it comes."""
        return self.checkpoint is None and self.lora is None and self.num_classes is None and not self.options

    @property
    def rows(self) -> int | None:
        """Rows of the head, where the user or an adapter with a head of its own tells."""
        return self.lora.num_classes if self.lora is not None and self.num_classes is None else self.num_classes


@dataclass(frozen=True)
class LibraryModel:
    """A module with what its library knows about it."""

    module: nn.Module
    class_names: Sequence[str] | None = None
    transform: Transform | None = None
    paper_transform: Transform | None = None
    """The meaning of ``transform="paper"`` for this model, where it is not the paper's usual transform."""
    view: ModelView | None = None
    """The user's description, where there is one."""
    problem_type: ProblemType | None = None
    """The meaning of the outputs, where the library knows it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that a file told, with which the library makes the same architecture."""
    notes: tuple[str, ...] = ()
    """Remarks for the user on how the weights were read."""


def _no_description(module: nn.Module, name: str) -> ModelView:
    raise ClasslensError(f"model {name!r} comes without a description: give a ModelView")


@dataclass(frozen=True)
class Adapter:
    """One model library. Its file may import the library at the top; a missing one may only fail in ``create``.

    Examples:
        ADAPTER = Adapter(
            label="mylib",
            about="Vision Transformers of mylib",
            names=("mylib:vit_small",),
            weights="mylib's cache",
            packages=("mylib",),
            resolves=lambda name: name.startswith("mylib:"),
            create=create,
            describe=describe,
            list_models=list_models,
        )
    """

    label: str
    """The library's name in messages and tables."""
    about: str
    """One line about its models."""
    names: tuple[str, ...]
    """Examples of model names, one for each form."""
    weights: str
    """The source of pretrained weights."""
    resolves: Callable[[str], bool]
    """Whether a model name is this library's."""
    create: Callable[[str, ModelRequest], LibraryModel]
    """Make a model by its name; raises ClasslensError with the way out where weights are missing."""
    packages: tuple[str, ...] = ()
    """Python packages whose module classes ``describe`` knows."""
    describe: Callable[[nn.Module, str], ModelView] = _no_description
    """Describe a module; raises ClasslensError with the reason for an unsupported one."""
    from_module: Callable[[nn.Module], LibraryModel] = LibraryModel
    """The library's knowledge of a module that the user holds."""
    list_models: Callable[[], Iterable[ModelEntry]] | None = None
    """Supported model names; nothing where the library is not installed."""
    classes_from: str = "its own"
    """Source of the classes of listed models whose number of classes is None."""
    takes_templates: bool = False
    """Whether classes are prompts, which ``templates`` complete."""
    takes_num_classes: bool = False
    """Whether ``create`` makes a head of any number of classes, as a random twin needs it."""
    takes_lora: bool = False
    """Whether ``create`` merges adapters of peft."""


def list_models() -> Iterator[ModelEntry]:
    """Every model name that a library on this machine resolves."""
    for adapter in ADAPTERS.values():
        yield from adapter.list_models() if adapter.list_models else ()


def adapter_of_name(name: str) -> Adapter:
    """The adapter that resolves a model name; raises ClasslensError with near names."""
    adapter = next((adapter for adapter in ADAPTERS.values() if adapter.resolves(name)), None)
    if adapter is None:
        hint = suggestion(name, (entry.name for entry in list_models())) or "; see the names with `classlens models`"
        labels = [adapter.label for adapter in ADAPTERS.values() if adapter.list_models]
        raise ClasslensError(f"model {name!r} is not known to {', '.join(labels[:-1])} or {labels[-1]}{hint}")
    return adapter


def adapter_of_module(module: nn.Module, name: str) -> Adapter:
    """The adapter of the package that a module's class, or the nearest of its base classes, comes from."""
    for base in type(module).__mro__:
        for adapter in ADAPTERS.values():
            if any(f"{base.__module__}.".startswith(f"{package}.") for package in adapter.packages):
                return adapter
    labels = [adapter.label for adapter in ADAPTERS.values() if adapter.packages]
    part = _described_part(module)
    if part is not None:
        raise ClasslensError(
            f"model {name!r} is no class of {', '.join(labels)}, but its part {part!r} is one: where that part makes "
            f"the logits, give model.{part}, and otherwise describe the whole with a ModelView"
        )
    raise ClasslensError(
        f"model {name!r} is no class of {', '.join(labels)}: give a Vision Transformer of one of them, or describe "
        "yours with a ModelView, as the documentation's page on own models shows"
    )


def _described_part(module: nn.Module) -> str | None:
    """The path of the outermost part of a module that a library describes."""
    for path, part in module.named_modules():
        for adapter in ADAPTERS.values() if path else ():
            if any(f"{type(part).__module__}.".startswith(f"{package}.") for package in adapter.packages):
                with suppress(Exception):  # most parts of a library's models are no models
                    adapter.describe(part, path)
                    return str(path)
    return None


def from_user(model: nn.Module | ModelView) -> LibraryModel:
    """A model that the user holds, with what its library or its description knows about it."""
    if isinstance(model, ModelView):
        return LibraryModel(model.module, model.class_names, model.transform, view=model)
    module, notes = without_wrappers(model)
    library_model = adapter_of_module(module, type(module).__name__).from_module(module)
    return replace(library_model, notes=(*notes, *library_model.notes))
