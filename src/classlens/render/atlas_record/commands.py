"""The commands that measure what the pages of an atlas show, and that write them."""

from __future__ import annotations

import shlex

from classlens.analysis.atlas.atlas import Atlas


def commands(atlas: Atlas) -> dict[str, str]:
    """Both commands as they are typed; N is the number of units of each image."""
    attrs = atlas.attrs
    split = ["--split", str(attrs["split"])] if attrs.get("split") else []
    store = atlas.store.removeprefix("file://")
    measure = ["classlens", "measure", "--model", str(attrs["model"]), "--data", str(attrs["data"]), *split]
    units = " --units N" if len(atlas["units"]) else ""
    return {
        "measure": shlex.join([*measure, "--out", store, "--attribution"]) + units,
        "atlas": shlex.join(["classlens", "atlas", store]),
    }
