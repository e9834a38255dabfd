"""Kinds of files that weights are kept in, told apart without running anything in them, and the way to a state dict."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SAVE = 'torch.save({}, "weights.pth")'


def is_safetensors(file: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and the header."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000


def why_not_weights(file: Path) -> str | None:
    """The kind of a file that is no weights of torch, with the line that converts it; None for one that may be read."""
    if file.suffix == ".onnx":
        return f"is an ONNX graph, which does not keep the names of a model's weights: {_from_training()}"
    with file.open("rb") as stream:
        if stream.read(4) == b"\x89HDF":
            return f"is an HDF5 file, as Keras writes them, not weights of PyTorch: {_from_training()}"
    if not zipfile.is_zipfile(file):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return _numpy_archive(names)
    if any(name.endswith("/constants.pkl") for name in names):
        return f"is a TorchScript program, not a state dict: {_once(_SAVE.format('torch.jit.load(FILE).state_dict()'))}"
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names):
        return f"is an exported program, not a state dict: {_once(_SAVE.format('torch.export.load(FILE).state_dict'))}"
    return None


def whole_pickle(file: Path) -> str:
    """The contents of a pickle with more than tensors, with the line that converts it."""
    loaded = "torch.load(FILE, weights_only=False)"
    content = _skeleton(file)
    if isinstance(content, _Inert):
        what, weights = f"holds a whole pickled model of class {type(content).__qualname__!r}", f"{loaded}.state_dict()"
    else:
        what, weights = "holds pickled Python objects beside its tensors", loaded + _weights_of(content)
    return f"{what}, which could run code when loaded: where you trust it, {_once(_SAVE.format(weights))}"


def _from_training() -> str:
    return f"save the weights where the model was trained with {_SAVE.format('model.state_dict()')} and give that file"


def _once(line: str) -> str:
    return f"convert it once with {line} and give that file"


def _numpy_archive(names: list[str]) -> str:
    if any(name.startswith("embedding/kernel") for name in names):  # the layout of Google's Vision Transformers
        line = f"model = timm.create_model(NAME, num_classes=N); model.load_pretrained(FILE); {_SAVE}"
        return f"is a NumPy archive of JAX weights: {_once(line.format('model.state_dict()'))}"
    line = _SAVE.format("{name: torch.from_numpy(value) for name, value in numpy.load(FILE).items()}")
    return f"is a NumPy archive: {_once(line)}"


class _Inert:
    """Stands for an object of any class; calling, building and filling it does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass


class _Dict(dict[str, Any]):
    """Stands for a dict with attributes of its own."""


class _InertTensor(_Inert):
    """Stands for a tensor."""


class _InertUnpickler(pickle.Unpickler):
    """Reads the structure of a pickle: nothing that it names is imported, so nothing in it runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        kind = _InertTensor if module.startswith("torch") and "rebuild" in name else _Inert
        return type(f"{module}.{name}", (kind,), {})

    def persistent_load(self, saved: Any) -> Any:
        return saved[1] if isinstance(saved, tuple) and saved[0] == "module" else None  # the class of a module


def _skeleton(file: Path) -> Any:
    """The content of a pickle of torch, with inert objects for all but plain values; None where it cannot be read."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                return _InertUnpickler(io.BytesIO(archive.read(name))).load()
        with file.open("rb") as stream:  # the form before 2020: a magic number, a version and a system come first
            content: Any = _InertUnpickler(stream).load()
            for _ in range(3 if isinstance(content, int) else 0):
                content = _InertUnpickler(stream).load()
            return content
    except Exception:  # a broken or hostile pickle may raise anything
        return None


def _weights_of(content: Any) -> str:
    """The part of a pickle's content that holds weights, as Python code."""
    parts = content.items() if isinstance(content, Mapping) else ()
    for name, part in parts:
        if isinstance(part, Mapping) and any(isinstance(value, _InertTensor) for value in part.values()):
            return f"[{name!r}]"
    for name, part in parts:
        if isinstance(part, _Inert) and name in ("model", "ema", "net", "module"):
            return f"[{name!r}].state_dict()"
    return '["state_dict"]'
