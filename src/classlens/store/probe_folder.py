"""Trained probes on disk: one file for some tokens at a site and block, and a note of what they were trained on."""

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
from classlens.models.view import ModelView
from classlens.store.atomic import clear_leftovers, writing

KINDS = ("probe", "probe_pooled", "probe_logistic")
"""Ridge probes of each token, one for all image tokens, and logistic ones; also the conditions of a store."""
_NOTE = "probes.json"
_NAME = re.compile(r"([a-z_]+)-(\d+)-(\d+)-(\d+)\.safetensors")


class Place(NamedTuple):
    """The tokens of one site and block that a file is about."""

    site: str
    block: int
    start: int
    stop: int

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def name(self) -> str:
        return f"{self.site}-{self.block:02}-{self.start:04}-{self.stop:04}.safetensors"


class ProbeFiles:
    """Probes of one kind in a folder.

    files = ProbeFiles("out/probe")
    for probes in files.at("resid_post", 11): probes.project(tokens)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._opened: dict[tuple[str, int], list[LinearProbes]] = {}

    @property
    def note(self) -> dict[str, Any] | None:
        """What the probes were begun with; None where there is nothing yet."""
        path = self.folder / _NOTE
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ClasslensError(
                f"probes {str(path)!r} cannot be read ({cause(error)}): give a folder that `classlens probe` wrote"
            ) from None
        return found

    @property
    def digest(self) -> str:
        """It tells these probes from others."""
        return hashlib.sha256(json.dumps(self.note, sort_keys=True).encode()).hexdigest()

    def begin(self, note: Mapping[str, Any]) -> None:
        """Write down what they are about to be trained on."""
        self._write(_NOTE, lambda made: made.write_text(json.dumps(note, indent=1), encoding="utf-8"))

    def clear_leftovers(self) -> None:
        """Remove what a killed run had half-written; for the one writer alone."""
        clear_leftovers(self.folder)

    def places(self) -> list[Place]:
        """What is trained already."""
        found = [_NAME.fullmatch(path.name) for path in sorted(self.folder.glob("*.safetensors"))]
        return [Place(one[1], int(one[2]), int(one[3]), int(one[4])) for one in found if one]

    def write(self, place: Place, probes: LinearProbes, alpha: Tensor) -> None:
        """Write the probes of a place, whole or not at all."""
        tensors = {"weight": probes.weight.contiguous(), "bias": probes.bias.contiguous(), "alpha": alpha.contiguous()}
        self._write(place.name, lambda made: save_file(tensors, made))
        self._opened.clear()

    def at(self, site: str, block: int) -> list[LinearProbes]:
        """The probes of a site and block; read from disk as they are used, and not kept in memory."""
        key = (site, block)
        if key not in self._opened:
            own = [place for place in self.places() if (place.site, place.block) == key]
            self._opened[key] = [LinearProbes(*self._read(place), place.tokens) for place in own]
        return self._opened[key]

    def alphas(self) -> Iterator[tuple[Place, Tensor]]:
        """The ``alpha`` of every probe."""
        for place in self.places():
            with safe_open(self.folder / place.name, framework="pt") as opened:
                yield place, opened.get_tensor("alpha")

    def check(self, view: ModelView) -> None:
        """Raises ClasslensError unless they are complete and were trained on this model."""
        note = self.note
        if note is None:
            raise ClasslensError(
                f"{str(self.folder)!r} holds no probes: train them with `classlens probe`, or give its --out"
            )
        if note.get("weights") != weights_digest(view):
            raise ClasslensError(
                f"probes {str(self.folder)!r} were trained on model {note.get('model')!r} with other weights than "
                f"those of {view.name!r}: train probes of this model"
            )
        wanted = {
            (site, block) for site in note["sites"] for block in range(1 if site == "embed" else len(view.blocks))
        }
        count = sum(place.stop - place.start for place in self.places())
        start, stop = note["tokens"]
        if count < (stop - start) * len(wanted):
            raise ClasslensError(
                f"probes {str(self.folder)!r} are not all trained yet: run the same `classlens probe` again to go on"
            )

    def _read(self, place: Place) -> tuple[Tensor, Tensor]:
        path = self.folder / place.name
        try:
            with safe_open(path, framework="pt") as opened:
                weight, bias = opened.get_tensor("weight"), opened.get_tensor("bias")
        except (OSError, SafetensorError) as error:
            raise ClasslensError(
                f"probes {str(path)!r} cannot be read ({cause(error)}): remove the file and run `classlens probe` again"
            ) from None
        if not bool(torch.isfinite(bias).all()):
            raise ClasslensError(f"probes {str(path)!r} are not finite: train them anew with a larger alpha")
        return weight, bias

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        try:
            with writing(self.folder / name) as made:
                write(made)
        except (OSError, SafetensorError) as error:
            raise ClasslensError(
                f"probes cannot be written to {str(self.folder)!r} ({cause(error)}): make room or give another "
                "--out, and run the same command again to go on"
            ) from None
