"""Agreement of two causal sweeps, such as an exact one and its linear estimate."""

from __future__ import annotations

import numpy as np
import xarray as xr

from classlens.core.arguments import checked
from classlens.core.spearman import spearman
from classlens.errors import ClasslensError
from classlens.forward.sweep_parts import SWEEP_PARTS
from classlens.lens.coords import array

_QUESTION = ("over", "metric", "direction", "site")


@checked
def sweep_agreement(exact: xr.Dataset, approximate: xr.Dataset) -> xr.DataArray:
    """Rank correlation of two sweeps of the same images and parts: do they put the parts in the same order?

    Args:
        exact: a result of ``Lens.sweep``.
        approximate: another one, with the same arguments but for ``approximate`` and ``steps``.

    Returns:
        Spearman's correlation of ``patched`` over all blocks and parts, -1…1; dim ``image``. NaN where all values of
        an image are equal.

    Raises:
        ClasslensError: a data set that is no sweep, or sweeps of other images, parts, classes or arguments.

    Examples:
        >>> import classlens, torch
        >>> lens, clean = classlens.load("builtin:cifar10"), torch.rand(2, 3, 32, 32)
        >>> exact, estimate = (
        ...     lens.sweep(clean, classlens.Corruption("blur"), blocks=5, approximate=approximate)
        ...     for approximate in (False, True)
        ... )
        >>> classlens.sweep_agreement(exact, estimate).dims
        ('image',)
    """
    for name, sweep in (("exact", exact), ("approximate", approximate)):
        if sweep.attrs.get("over") not in SWEEP_PARTS or "patched" not in sweep or "image" not in sweep.patched.dims:
            raise ClasslensError(f"{name} is no result of Lens.sweep: give two sweeps of the same images and parts")
    differing = [name for name in _QUESTION if exact.attrs.get(name) != approximate.attrs.get(name)]
    names = [*exact.coords, *(name for name in approximate.coords if name not in exact.coords)]
    differing += [str(name) for name in names if not _same(exact, approximate, str(name))]
    if differing:
        raise ClasslensError(
            f"exact and approximate differ in {differing[0]}: give two sweeps of the same images, parts, classes and "
            "arguments, apart from approximate and steps"
        )
    dims = exact.patched.transpose("image", ...).dims
    values = [sweep.patched.transpose(*dims).values for sweep in (exact, approximate)]
    rows = [each.reshape(len(each), -1) for each in values]
    coords = {name: coord for name, coord in exact.coords.items() if coord.dims == ("image",)}
    return array(spearman(*rows), ("image",), coords, name="rank_correlation")


def _same(first: xr.Dataset, second: xr.Dataset, name: str) -> bool:
    """Whether both have a coordinate, with the same values."""
    both = name in first.coords and name in second.coords
    return both and first[name].dims == second[name].dims and np.array_equal(first[name], second[name])
