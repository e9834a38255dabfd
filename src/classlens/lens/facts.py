"""Facts of tokens, filled in group by group, and the labeled arrays they become."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from classlens.core.scores import BlockFacts, Facts
from classlens.errors import ClasslensError, unknown
from classlens.explain.class_logits import logit_groups
from classlens.forward.recording import Recording
from classlens.lens.coords import array, state_coords, target_coords
from classlens.models.classes import Classes
from classlens.models.view import SITES, ModelView, Site, Tokens


def site_blocks(view: ModelView, site: str) -> NDArray[np.integer]:
    """Blocks that have a site: all of them, or block 0 for ``embed``; raises ClasslensError for an unknown site."""
    if site not in SITES:
        raise unknown("site", site, SITES)
    if site == "resid_mid" and not view.has_mid:
        raise ClasslensError(
            f"site 'resid_mid' does not exist in model {view.name!r}, whose attention and MLP share one residual add: "
            "give attn_out, mlp_out or resid_post"
        )
    return np.arange(1 if site == "embed" else len(view.blocks))


def check_sites(view: ModelView, sites: Site | Collection[Site]) -> tuple[Site, ...]:
    """Each site once; raises ClasslensError for sites that do not exist or do not fit one array, and without ranks."""
    if not view.multi_label:
        view.require_exclusive("a rank", "use trace.logits")
    distinct: tuple[Site, ...] = (sites,) if isinstance(sites, str) else tuple(dict.fromkeys(sites))
    for site in distinct:
        site_blocks(view, site)
    if not distinct:
        raise ClasslensError(f"no sites were given: give some of {', '.join(SITES)}")
    if "embed" in distinct and len(distinct) > 1:
        raise ClasslensError("site 'embed' has one block where the others have all: ask for it in a call of its own")
    return distinct


class FactsTable:
    """``rank``, ``logit`` and ``top1`` of some images, filled one group of images, site and block at a time."""

    def __init__(self, view: ModelView, tokens: Tokens, sites: tuple[Site, ...], images: int) -> None:
        self._view = view
        self._tokens = tokens
        self._sites: list[str] = list(sites)
        self._blocks = site_blocks(view, sites[0])
        shape = (images, len(sites), len(self._blocks), tokens.count)
        dtypes = {"rank": torch.int64, "logit": torch.promote_types(view.dtype, torch.float32), "top1": torch.int64}
        self._values = {name: torch.empty(shape, dtype=dtype) for name, dtype in dtypes.items()}

    def put(self, images: slice, site: str, block: int, tokens: Tensor | slice, facts: Facts) -> None:
        """Store facts, given as rows image by image."""
        for name, value in facts._asdict().items():
            rows = value.view(images.stop - images.start, -1).to("cpu")
            self._values[name][images, self._sites.index(site), block, tokens] = rows

    def dataset(self, names: list[str], classes: Classes, target: Int[Tensor, " image"]) -> xr.Dataset:
        """The table with its labels, dims ``image, site, block, token``."""
        coords: dict[Any, Any] = {"image": names, "site": self._sites}  # in the order of dims
        coords |= state_coords(self._view, self._tokens, names, self._blocks) | target_coords(classes, target.numpy())
        dims = ("image", "site", "block", "token")
        return xr.Dataset({name: array(value, dims, coords, name=name) for name, value in self._values.items()})


def recorded_facts(recording: Recording, sites: tuple[Site, ...], target: Int[Tensor, " image"]) -> FactsTable:
    """Facts of every token of a recording.

    Where both sublayer outputs are among the sites, the products of their sums are sums of their products.
    """
    recording.require_same_model()
    view, tokens = recording.view, recording.tokens
    table = FactsTable(view, tokens, sites, len(recording))
    for images in logit_groups(recording):
        for space, group in view.spaces(tokens.count):
            embed = recording.activation("embed", 0)[images, group]
            rows = target[images].repeat_interleave(embed.shape[1]).to(embed.device)
            reducer = BlockFacts(space, rows, sites, view.space_by_site(space))
            for name, states in _stream_parts(recording, images):
                for site, block, facts in reducer.feed(name, states[:, group].flatten(0, 1)):
                    table.put(images, site, block, group, facts)
    return table


def _stream_parts(
    recording: Recording, images: slice
) -> Iterator[tuple[Literal["embed", "attn_out", "mlp_out"], Tensor]]:
    """The embeddings, then both sublayer outputs of each block in turn."""
    yield "embed", recording.activation("embed", 0)[images]
    for attn, mlp in recording.sublayer_outputs(images):
        yield "attn_out", attn
        yield "mlp_out", mlp
