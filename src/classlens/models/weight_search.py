"""A model's weights within all that a checkpoint holds: the nested part and the prefix of names that fit the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.models.checkpoint import State, Tree, read_tree
from classlens.models.weight_files import weight_file

# Modules that torch puts around others, at any depth of a model.
_AROUND = frozenset(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])


@dataclass(frozen=True)
class Place:
    """The place of tensors: the keys of nested mappings, then a prefix of the names in the last of them."""

    keys: tuple[str, ...]
    prefix: str = ""

    def __str__(self) -> str:
        return ".".join([*self.keys, self.prefix.removesuffix(".")]).strip(".")

    @property
    def is_averaged(self) -> bool:
        """Whether a name says that the weights are an average over training, which is what is evaluated."""
        words = {word for key in str(self).lower().split(".") for word in key.split("_")}
        return bool(words & {"ema", "averaged", "swa"})


@dataclass(frozen=True)
class FoundState:
    """The weights of a model with its own names, and what has to be said about them."""

    state: State
    notes: tuple[str, ...] = ()


def read_weights(
    path: str | Path,
    expected: Mapping[str, Tensor],
    convert: Callable[[State], State] | None = None,
    *,
    own_head: bool = True,
) -> FoundState:
    """The weights in a file that fit a model, whatever they are wrapped in.

    Wrappers are nested mappings (``state_dict``, ``model_ema`` …), prefixes of names (``module.``, ``model.backbone.``
    …) and modules in between (``_orig_mod``). What is not part of the model, such as the state of an optimizer, is left
    out.

    Args:
        path: the file, an index of shards, or a folder with either.
        expected: the names of the model's own state dict; values are not read.
        convert: from the names of other projects to those of the model.
        own_head: whether the head is the model's own; otherwise other weights beside the model's do not matter.

    Returns:
        The weights. Where no part of the file has the names of the model, the largest part as it is.

    Raises:
        ClasslensError: a file without tensors, several parts that fit, or weights beside the model's that its names do
            not account for.
    """
    parts, around = _parts(path)
    counts = _counts(parts, expected)
    places = [place for place, count in counts.items() if 2 * count > len(expected)]
    if not places and convert is not None:
        places = [place for place in counts if _fits(_below(parts[place.keys], place.prefix), expected, convert)]
    if not places:
        return FoundState(_largest(parts, expected, convert))
    place = _one_of(places, parts, path)
    state = _below(parts[place.keys], place.prefix)
    prefixes = tuple(other.prefix for other in places if other.keys == place.keys)
    strays = {name: value for name, value in parts[place.keys].items() if not name.startswith(prefixes)}
    stray = next((name for name, value in strays.items() if value.ndim > 1), None)
    if stray is not None and own_head:
        if convert is not None and _count(convert(parts[place.keys]), expected) == len(expected):
            return FoundState(parts[place.keys])
        raise ClasslensError(
            f"checkpoint {str(path)!r} has the model under {str(place)!r}, and beside it {stray!r} of shape "
            f"{list(strays[stray].shape)}: where the output does not depend on {stray!r}, save the model alone with "
            f"{_saving(place)}, and where it is a linear head of your own, give that as a file with head="
        )
    return FoundState(state, _notes(path, place, places, around, strays))


def plain_heads(state: State, expected: Mapping[str, Tensor]) -> State:
    """A state dict whose heads have the names of the model, where the file has a head of dropout and one linear layer.

    Dropout has no weights and does nothing in evaluation mode; any other layer stays as it is, and does not fit.
    """
    renamed = dict(state)
    for key, value in expected.items():
        stem, _, kind = key.rpartition(".")
        if kind != "weight" or value.ndim != 2 or key in state:
            continue
        names = [name for name in state if name.startswith(f"{key.partition('.')[0]}.") and name not in expected]
        matrices = [name.removesuffix(".weight") for name in names if state[name].ndim == 2]
        if len(matrices) == 1 and set(names) <= {f"{matrices[0]}.weight", f"{matrices[0]}.bias"}:
            for name in names:
                renamed[f"{stem}.{name.rpartition('.')[2]}"] = renamed.pop(name)
    return renamed


def resampling(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """The note on position embeddings that were resampled."""
    sizes = ["×".join(map(str, grid)) for grid in (before, after)]
    return f"position embeddings were resampled from {sizes[0]} to {sizes[1]} tokens, not those of training"


def read_state(path: str | Path) -> State:
    """The one state dict in a file, without ``module.`` and ``_orig_mod.``; averaged weights go before raw ones."""
    parts, _ = _parts(path)
    return _bare(parts[_one_of([Place(keys) for keys in parts], parts, path).keys])


def _parts(path: str | Path) -> tuple[dict[tuple[str, ...], State], list[str]]:
    """The tensors of each mapping in a file, under clean names; and the modules in between that were removed."""
    around: list[str] = []

    def clean(name: str) -> str:
        segments = name.split(".")
        around.extend(segment for segment in segments if segment in _AROUND and segment not in around)
        return ".".join(segment for segment in segments if segment not in _AROUND)

    parts = {
        keys: {clean(name): value for name, value in mapping.items() if isinstance(value, Tensor)}
        for keys, mapping in _mappings(read_tree(path), ())
    }
    parts = {keys: part for keys, part in parts.items() if part}
    if not parts:
        raise ClasslensError(
            f"checkpoint {str(path)!r} holds no state dict: expected names with tensors, as in model.state_dict()"
        )
    return parts, around


def _bare(part: State) -> State:
    """Without the names of a module around the model, and without what it counts."""
    while any(name.startswith("module.") for name in part):
        part = {name.removeprefix("module."): value for name, value in part.items() if value.ndim}
    return part


def _mappings(tree: Tree, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """A tree and the mappings in it by their keys; entries without a name (an optimizer's) are left out."""
    named = {key: value for key, value in tree.items() if isinstance(key, str)}
    yield keys, named
    for key, value in named.items():
        if isinstance(value, Mapping) and len(keys) < 8:
            yield from _mappings(value, (*keys, key))


def _counts(parts: Mapping[tuple[str, ...], State], expected: Mapping[str, Tensor]) -> Counter[Place]:
    """The number of the model's names below each place, in the order of the file."""
    counts: Counter[Place] = Counter()
    for keys, part in parts.items():
        for name in part:
            start = 0
            while True:
                if name[start:] in expected:
                    counts[Place(keys, name[:start])] += 1
                start = name.find(".", start) + 1
                if not start:
                    break
    return counts


def _fits(state: State, expected: Mapping[str, Tensor], convert: Callable[[State], State]) -> bool:
    """Whether most names of the model are found after a conversion."""
    return 2 * len(state) > len(expected) and 2 * _count(convert(state), expected) > len(expected)


def _one_of(places: list[Place], parts: Mapping[tuple[str, ...], State], path: str | Path) -> Place:
    """The place to take: the only one, the averaged one, or the first of equal ones; raises for other choices."""
    averaged = [place for place in places if place.is_averaged]
    if len(averaged) == 1 or len(places) == 1:
        return (averaged or places)[0]
    places = averaged or places
    first, *others = [_below(parts[place.keys], place.prefix) for place in places]
    if all(_equal(first, other) for other in others):
        return places[0]
    raise ClasslensError(
        f"checkpoint {str(path)!r} holds several models, under {', '.join(repr(str(place)) for place in places)}: save "
        f"the one that you mean in a file of its own, such as with {_saving(places[0])}"
    )


def _saving(place: Place) -> str:
    """Python code that saves the tensors of a place."""
    part = "torch.load(FILE)" + "".join(f"[{key!r}]" for key in place.keys)
    if place.prefix:
        part = f"{{name: value for name, value in {part}.items() if name.startswith({place.prefix!r})}}"
    return f'torch.save({part}, "weights.pth")'


def _equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        (value.dtype, value.shape) == (second[name].dtype, second[name].shape) and torch.equal(value, second[name])
        for name, value in first.items()
    )


def _largest(
    parts: Mapping[tuple[str, ...], State], expected: Mapping[str, Tensor], convert: Callable[[State], State] | None
) -> State:
    """The part with most of the model's names after a conversion, or else with most tensors."""
    bare = [_bare(part) for part in parts.values()]
    return max(bare, key=lambda part: (0 if convert is None else _count(convert(part), expected), len(part)))


def _count(state: State, expected: Mapping[str, Tensor]) -> int:
    return sum(name in expected for name in state)


def _below(part: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in part.items() if name.startswith(prefix)}


def _notes(path: str | Path, place: Place, places: list[Place], around: list[str], strays: State) -> tuple[str, ...]:
    file = weight_file(Path(path))
    name = file.name
    others = [repr(str(other)) for other in places if other != place]
    taken = f", not {', '.join(others)}" if others else ""
    notes = [] if file == Path(path) else [f"{Path(path).name}: the weights are those of {name}"]
    if str(place) or others:
        notes.append(f"{name}: the weights are those under {str(place)!r}{taken}")
    if around:
        notes.append(f"{name}: {', '.join(f'{segment}.' for segment in around)} taken off the names")
    if strays and place.prefix:
        notes.append(f"{name}: not used: {', '.join(list(strays)[:3])}{' …' if len(strays) > 3 else ''}")
    return tuple(notes)
