"""Facts of tokens as they come in, and the labeled arrays they become."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from classlens.core.scores import Facts
from classlens.errors import ClasslensError, unknown
from classlens.lens.labels import array, image_names, target_coords, token_coords
from classlens.models.classes import Classes
from classlens.models.view import SITES, ModelView, Site, Tokens

Integers = np.ndarray[tuple[int], np.dtype[np.integer]]


def site_blocks(view: ModelView, site: str) -> Integers:
    """The blocks at which a site is read: all, or block 0 for ``embed``; raises ClasslensError for an unknown site."""
    if site not in SITES:
        raise unknown("site", site, SITES)
    if site == "resid_mid" and not view.has_mid:
        raise ClasslensError(
            f"site 'resid_mid' does not exist in model {view.name!r}, whose attention and MLP share one residual add: "
            "give attn_out, mlp_out or resid_post"
        )
    return np.arange(1 if site == "embed" else len(view.blocks))


def check_sites(view: ModelView, sites: Site | Collection[Site]) -> tuple[Site, ...]:
    """Sites that can be asked for together; raises ClasslensError for others."""
    wanted: tuple[Site, ...] = (sites,) if isinstance(sites, str) else tuple(dict.fromkeys(sites))
    for site in wanted:
        site_blocks(view, site)
    if not wanted:
        raise ClasslensError(f"no sites were given: give some of {', '.join(SITES)}")
    if "embed" in wanted and len(wanted) > 1:
        raise ClasslensError("site 'embed' has one block where the others have all: ask for it in a call of its own")
    return wanted


class FactsTable:
    """``rank``, ``logit`` and ``top1`` of some images, filled a group of images, a site and a block at a time."""

    def __init__(self, view: ModelView, tokens: Tokens, sites: tuple[Site, ...], images: int) -> None:
        self._tokens = tokens
        self._sites: list[str] = list(sites)
        self._blocks = site_blocks(view, sites[0])
        shape = (images, len(sites), len(self._blocks), tokens.count)
        logit = torch.empty(shape, dtype=torch.promote_types(view.dtype, torch.float32))
        whole = {name: torch.empty(shape, dtype=torch.int64) for name in ("rank", "top1")}
        self._values: dict[str, Tensor] = {"rank": whole["rank"], "logit": logit, "top1": whole["top1"]}

    def put(self, part: slice, site: str, block: int, tokens: Tensor | slice, facts: Facts) -> None:
        """Facts as rows, image by image, of the images of ``part``."""
        for name, value in facts._asdict().items():
            rows = value.view(part.stop - part.start, -1).to("cpu")
            self._values[name][part, self._sites.index(site), block, tokens] = rows

    def dataset(self, names: list[str], classes: Classes, target: Tensor) -> xr.Dataset:
        """The table with its labels, dims ``image, site, block, token``."""
        coords: Mapping[Any, Any] = {
            "image": image_names(names),
            "site": self._sites,
            "block": self._blocks,
            **token_coords(self._tokens),
            **target_coords(classes, target.numpy()),
        }
        dims = ("image", "site", "block", "token")
        return xr.Dataset({name: array(value, dims, coords, name=name) for name, value in self._values.items()})
