"""An atlas as its pages take it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float


class AtlasTables(Protocol):
    """The tables of ``classlens.atlas``, and what tokens need to be shown in their photos."""

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]: ...

    @property
    def attrs(self) -> Mapping[str, Any]: ...

    @property
    def store(self) -> str: ...

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def frames(self) -> Float[np.ndarray, "image 4"]: ...

    def write(self, folder: Path) -> None: ...


def commands(atlas: AtlasTables) -> dict[str, str]:
    """The commands that measure what the pages show, and that write them."""
    attrs = atlas.attrs
    split = ["--split", str(attrs["split"])] if attrs.get("split") else []
    store = atlas.store.removeprefix("file://")
    measure = ["classlens", "measure", "--model", str(attrs["model"]), "--data", str(attrs["data"]), *split]
    return {
        "measure": shlex.join([*measure, "--out", store, "--attribution"])
        + (" --units N" if len(atlas.tables["units"]) else ""),
        "atlas": shlex.join(["classlens", "atlas", store]),
    }
