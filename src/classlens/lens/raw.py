"""Attention weights, states and norms of a recorded pass as plain arrays."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from classlens.core.arguments import checked
from classlens.core.norms import large_norms, token_norms
from classlens.errors import ClasslensError
from classlens.explain.attention_rows import attention_rows
from classlens.forward.edits.selection import Indices, TokenGroup, block_indices, head_indices, token_positions
from classlens.forward.isolation import isolated_methods
from classlens.forward.recorder import pooled_queries
from classlens.forward.recording import Recording
from classlens.lens.coords import Coordinates, array, state_coords, token_coords
from classlens.lens.facts import site_blocks
from classlens.models.view import Site


@isolated_methods
@checked
class RawTrace:
    """Tensors of a recorded pass as they are; ``Trace`` adds their projection on the class embedding."""

    recording: Recording
    names: list[str]

    def attention(
        self,
        blocks: Indices = "all",
        heads: Indices = "all",
        queries: TokenGroup = "pooled",
    ) -> xr.DataArray:
        """Attention weights after the softmax, from the queries and keys of the recorded pass.

        Args:
            blocks: indices of blocks, or ``"all"``.
            heads: indices of heads, or ``"all"``.
            queries: tokens that attend: ``"pooled"`` (those that the head of the model pools), ``"cls"``, ``"image"``,
                ``"prefix"``, ``"all"``, another prefix token's name, indices, a slice, or a bool mask ``[token]``.

        Returns:
            Dims ``image, block, head, query, token``; rows over ``token`` sum to 1, unless the images ran with an edit
            of attention. Coordinates ``query_kind``, ``query_row`` and ``query_column`` as those of tokens. Beside the
            result, RAM holds the weights of one block of some images. Where the pass had attention in steps (an edit of
            attention weights, or a description without queries and keys), other queries than the pooled ones take
            another pass.

        Raises:
            ClasslensError: blocks, heads or tokens that the model does not have; where another pass is needed, a model
                that has other edits now.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> dict(trace.attention(blocks=[5], queries="image").sizes)
            {'image': 2, 'block': 1, 'head': 4, 'query': 64, 'token': 65}
        """
        recording, view = self.recording, self.recording.view
        chosen = list(dict.fromkeys(block_indices(view, blocks)))
        kept_heads = list(dict.fromkeys(head_indices(view, heads)))
        count = recording.tokens.count
        positions = self._positions(queries)
        shape = (len(recording), len(chosen), len(kept_heads), len(positions), count)
        result = torch.empty(shape, dtype=recording.dtype)
        for images, block, weights in attention_rows(recording, positions, chosen):
            result[images, chosen.index(block)] = weights[:, kept_heads].cpu()
        coords = self._raw_coords(chosen) | {"head": np.array(kept_heads)} | self._token_coords(positions, "query_{}")
        return array(result, ("image", "block", "head", "query", "token"), coords, name="attention")

    def states(self, site: Site = "resid_post", blocks: Indices = "all", tokens: TokenGroup = "all") -> xr.DataArray:
        """Token vectors at a site.

        Args:
            site: see ``Trace``; ``embed`` has block 0 alone.
            blocks: indices of blocks, or ``"all"``.
            tokens: tokens, given like ``queries`` of ``attention``.

        Returns:
            Dims ``image, block, token, width``, in float32 at least.

        Raises:
            ClasslensError: a site, blocks or tokens that the model does not have.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
            >>> dict(trace.states("mlp_out", blocks=[4, 5], tokens="cls").sizes)
            {'image': 2, 'block': 2, 'token': 1, 'width': 128}
        """
        recording = self.recording
        chosen = self._site_blocks(site, blocks)
        positions = self._positions(tokens)
        result: Tensor | None = None
        for block, state in recording.walk(site, slice(None), positions.to(recording.view.device)):
            if block in chosen:
                if result is None:
                    shape = (len(recording), len(chosen), *state.shape[1:])
                    result = torch.empty(shape, dtype=recording.dtype)
                result[:, chosen.index(block)] = state.cpu()
            if block == max(chosen):
                break
        assert result is not None
        dims = ("image", "block", "token", "width")
        return array(result, dims, self._raw_coords(chosen) | self._token_coords(positions, "{}"), name="state")

    def norms(self, site: Site = "resid_post", blocks: Indices = "all") -> xr.Dataset:
        """Length of every token vector, and the tokens that are far longer than most image tokens.

        Args:
            site: see ``Trace``.
            blocks: indices of blocks, or ``"all"``.

        Returns:
            ``norm``, the L2 norm, and ``outlier``, whether it is above ``median + 5 · MAD`` of the image tokens of the
            same image and block (MAD: median absolute deviation); dims ``image, block, token``. Tokens that an edit
            drops count for neither.

        Raises:
            ClasslensError: a site or blocks that the model does not have.

        Examples:
            >>> import classlens, torch
            >>> norms = classlens.load("builtin:cifar10").trace(torch.rand(2, 3, 32, 32)).norms()
            >>> dict(norms.norm.sizes)
            {'image': 2, 'block': 6, 'token': 65}

        Source: Darcet et al., *Vision Transformers Need Registers*, ICLR 2024, describe such tokens.
        """
        recording = self.recording
        chosen = self._site_blocks(site, blocks)
        kept = torch.ones(len(recording), recording.tokens.count, dtype=torch.bool)
        if recording.kept is not None:
            kept &= recording.kept.cpu()
        among = kept.clone()
        among[:, : recording.tokens.image.start] = False
        norms = torch.empty(len(recording), len(chosen), recording.tokens.count, dtype=recording.dtype)
        outliers = torch.empty(norms.shape, dtype=torch.bool)
        for block, state in recording.walk(site, slice(None)):
            if block in chosen:
                lengths = token_norms(state).cpu()
                norms[:, chosen.index(block)] = lengths
                outliers[:, chosen.index(block)] = large_norms(lengths, among) & kept
        coords, dims = self._raw_coords(chosen), ("image", "block", "token")
        values = {"norm": norms, "outlier": outliers}
        return xr.Dataset({name: array(value, dims, coords, name=name) for name, value in values.items()})

    def _site_blocks(self, site: Site, blocks: Indices) -> list[int]:
        """Blocks that have a site, each once; raises ClasslensError for others."""
        available: list[int] = site_blocks(self.recording.view, site).tolist()
        if isinstance(blocks, str) and blocks == "all":
            return available
        chosen = list(dict.fromkeys(block_indices(self.recording.view, blocks)))
        missing = [block for block in chosen if block not in available]
        if missing:
            raise ClasslensError(f"block {missing[0]} has no site {site!r}: give block 0, or leave blocks out")
        return chosen

    def _raw_coords(self, blocks: list[int]) -> Coordinates:
        return state_coords(self.recording.view, self.recording.tokens, self.names, np.array(blocks))

    def _positions(self, group: TokenGroup) -> Int[Tensor, " chosen"]:
        view, count = self.recording.view, self.recording.tokens.count
        if isinstance(group, str) and group == "pooled":
            return pooled_queries(view, count)
        return token_positions(view, group, count)

    def _token_coords(self, positions: Int[Tensor, " chosen"], name: str) -> Coordinates:
        """Coordinates of some tokens along ``token``; with the name ``query_{}`` of queries along ``query``."""
        dim = "token" if name == "{}" else "query"
        index, coords = positions.numpy(), token_coords(self.recording.tokens)
        chosen: Coordinates = {dim: index}
        for kind in ("token_kind", "row", "column"):
            chosen[name.format(kind.removeprefix("token_") if dim == "query" else kind)] = (dim, coords[kind][1][index])
        return chosen
