"""Trained probes on disk: a file for the tokens of a site and block, and a record of their training."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.errors import ClasslensError, cause
from classlens.models.digest import weights_digest
from classlens.models.files import require_file, require_floats
from classlens.models.view import ModelView
from classlens.store.atomic import atomic_write, clear_leftovers
from classlens.store.attributes import ATTRIBUTES, check_attributes
from classlens.store.metadata import MAX_METADATA, MetadataError, read_json

_RECORD = "probes.json"
_NEEDED = {"model", "sites", "tokens", "weights"}
_KNOWN = {
    **{key: ATTRIBUTES[key] for key in ("model", "sites", "weights")},
    "tokens": lambda value: isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value),
}
_FILE_NAME = re.compile(r"([a-z_]+)-(\d{2,6})-(\d{4,8})-(\d{4,8})\.safetensors")


class ProbeTokens(NamedTuple):
    """Consecutive tokens at one site of one block, whose probes share a file."""

    site: str
    block: int
    start: int
    stop: int

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def key(self) -> str:
        """A name that sorts by block and token."""
        return f"{self.site}-{self.block:02}-{self.start:04}-{self.stop:04}"

    @property
    def file_name(self) -> str:
        return f"{self.key}.safetensors"


class ProbeFolder:
    """Probes of one kind in a folder, such as ``out/probe``."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._loaded: dict[tuple[str, int], list[LinearProbes]] = {}

    @property
    def record(self) -> dict[str, Any] | None:
        """Data, model and settings of the training; None for a folder without probes."""
        path = self.folder / _RECORD
        require_file(path, "probes", largest=MAX_METADATA)
        try:
            record = read_json(path.read_bytes())
            if not isinstance(record, dict) or not record.keys() >= _NEEDED:
                raise MetadataError("it is no record of a training")
            check_attributes(record, _KNOWN)
        except FileNotFoundError:
            return None
        except (OSError, MetadataError) as error:
            raise ClasslensError(
                f"probes {str(path)!r} cannot be read ({cause(error)}): give a folder that `classlens probe` wrote"
            ) from None
        return record

    @property
    def digest(self) -> str:
        """SHA-256 of the record."""
        return hashlib.sha256(json.dumps(self.record, sort_keys=True).encode()).hexdigest()

    def begin(self, record: Mapping[str, Any]) -> None:
        """Write the record of a training that is about to begin."""
        self._write(_RECORD, lambda path: path.write_text(json.dumps(record, indent=1), encoding="utf-8"))

    def clear_leftovers(self) -> None:
        """Remove half-written files of a killed run; only while the lock is held."""
        clear_leftovers(self.folder)

    def trained(self) -> list[ProbeTokens]:
        """Sites, blocks and tokens with trained probes."""
        matches = [_FILE_NAME.fullmatch(path.name) for path in sorted(self.folder.glob("*.safetensors"))]
        return [ProbeTokens(match[1], int(match[2]), int(match[3]), int(match[4])) for match in matches if match]

    def write(self, tokens: ProbeTokens, probes: LinearProbes, alpha: Tensor) -> None:
        """Write the probes of some tokens, completely or not at all."""
        tensors = {"weight": probes.weight.contiguous(), "bias": probes.bias.contiguous(), "alpha": alpha.contiguous()}
        self._write(tokens.file_name, lambda path: save_file(tensors, path))
        self._loaded.clear()

    def probes(self, site: str, block: int) -> list[LinearProbes]:
        """The probes of a site and block, memory-mapped."""
        key = (site, block)
        if key not in self._loaded:
            files = [tokens for tokens in self.trained() if (tokens.site, tokens.block) == key]
            self._loaded[key] = [LinearProbes(*self._read(tokens), tokens.tokens) for tokens in files]
        return self._loaded[key]

    def alphas(self) -> Iterator[tuple[ProbeTokens, Tensor]]:
        """The ``alpha`` of every probe."""
        for tokens in self.trained():
            with safe_open(self.folder / tokens.file_name, framework="pt") as file:
                yield tokens, file.get_tensor("alpha")

    def check(self, view: ModelView) -> None:
        """Raises ClasslensError unless the probes are complete and were trained on this model."""
        record = self.record
        if record is None:
            raise ClasslensError(
                f"{str(self.folder)!r} holds no probes: train them with `classlens probe`, or give its --out"
            )
        if record.get("weights") != weights_digest(view):
            raise ClasslensError(
                f"probes {str(self.folder)!r} were trained on model {record.get('model')!r} with other weights than "
                f"those of {view.name!r}: train probes of this model"
            )
        sites = {
            (site, block) for site in record["sites"] for block in range(1 if site == "embed" else len(view.blocks))
        }
        start, stop = record["tokens"]
        trained = [tokens for tokens in self.trained() if (tokens.site, tokens.block) in sites]
        for tokens in trained:
            self._check_shape(tokens, view)
        count = sum(tokens.stop - tokens.start for tokens in trained if start <= tokens.start < tokens.stop <= stop)
        if count < (stop - start) * len(sites):
            raise ClasslensError(
                f"probes {str(self.folder)!r} are not all trained yet: run the same `classlens probe` again to resume"
            )

    def _check_shape(self, tokens: ProbeTokens, view: ModelView) -> None:
        """Raises ClasslensError unless a file holds a probe of this model for each of the tokens, or one for all."""
        path = self.folder / tokens.file_name
        width, classes = view.blocks[0].attn.weight.shape[0], view.num_classes
        require_file(path, "probes")
        try:
            with safe_open(path, framework="pt") as file:
                weight, bias = (list(file.get_slice(name).get_shape()) for name in ("weight", "bias"))
        except (OSError, SafetensorError) as error:
            raise _unreadable(path, error) from None
        counts = (1, tokens.stop - tokens.start)
        if weight not in [[count, width, classes] for count in counts] or bias != [weight[0], classes]:
            raise ClasslensError(
                f"probes {str(path)!r} have weights of shape {weight}, but the model has width {width} and {classes} "
                "classes: remove the file and run `classlens probe` again"
            )

    def _read(self, tokens: ProbeTokens) -> tuple[Tensor, Tensor]:
        path = self.folder / tokens.file_name
        try:
            with safe_open(path, framework="pt") as file:
                weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        except (OSError, SafetensorError) as error:
            raise _unreadable(path, error) from None
        if not bool(torch.isfinite(bias).all()):
            raise ClasslensError(f"probes {str(path)!r} are not finite: train them anew with a larger alpha")
        require_floats(f"file {str(path)!r}", weight=weight[:0], bias=bias)  # weights are read where they are used
        return weight, bias

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        try:
            with atomic_write(self.folder / name) as path:
                write(path)
        except (OSError, SafetensorError) as error:
            raise ClasslensError(
                f"probes cannot be written to {str(self.folder)!r} ({cause(error)}): make room or give another "
                "--out, and run the same command again to resume"
            ) from None


def _unreadable(path: Path, error: Exception) -> ClasslensError:
    return ClasslensError(
        f"probes {str(path)!r} cannot be read ({cause(error)}): remove the file and run `classlens probe` again"
    )
