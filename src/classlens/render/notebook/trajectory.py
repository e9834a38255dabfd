"""A trajectory in a notebook: the likeliest classes at each depth, above the tables of xarray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr

from classlens import palette
from classlens.core.arrays import Array
from classlens.render.image_names import labels_of
from classlens.render.notebook.chart import Axis, rectangle, text
from classlens.render.notebook.elements import Markup, block, columns, element, joined, note, percent, result

SHOWN = 8
"""Number of images that have a chart."""
_LETTERS = "ABCDEFGH"
_DARK = {palette.ORANGE, "#56b4e9"}
"""Colors of the series on which letters are dark."""
_BARS, _HIGH = 120, 106
"""Foot and height of the stacked bars."""
_SUMS = 1e-3
"""Largest error of sums of float32 numbers that agree, relative to the largest number."""
_NEEDED = {
    "top": ("image", "depth", "place"),
    "top_logit": ("image", "depth", "place"),
    "class_name": ("image", "depth", "place"),
    "logit": ("image", "depth"),
    "logsumexp": ("image", "depth"),
    "log_probability": ("image", "depth"),
    "entropy": ("image", "depth"),
    "block": ("depth",),
    "target": ("image",),
    "target_name": ("image",),
}


def trajectory_html(trajectory: xr.Dataset) -> Markup:
    """A chart of each of the first images where the values are those of decisions, then the tables of xarray."""
    tables = Markup(xr.Dataset._repr_html_(trajectory))
    if not _is_decision(trajectory):
        return tables
    images = trajectory.sizes["image"]
    shown = trajectory.isel(image=slice(SHOWN))
    names = labels_of([str(name) for name in shown["image"].values])
    charts = [columns(*_image(shown.isel(image=number), name)) for number, name in enumerate(names)]
    more = [note(f"The first {SHOWN} of {images} images have a chart.")] if images > SHOWN else []
    return Markup(result("The decision after each block", *charts, *more) + tables)


def _is_decision(trajectory: xr.Dataset) -> bool:
    """Whether the parts that a chart needs are there and agree, which they do not after most arithmetic."""
    if any(name not in trajectory or trajectory[name].dims != dims for name, dims in _NEEDED.items()):
        return False
    if 0 in trajectory["top"].shape or not np.issubdtype(trajectory["top"].dtype, np.integer):
        return False
    logit, total = trajectory["logit"].values, trajectory["logsumexp"].values
    shares = np.exp(trajectory["top_logit"].values - total[..., None]).sum(axis=-1)
    error = np.abs(logit - total - trajectory["log_probability"].values)
    size = max(1.0, float(np.abs(total).max(initial=0.0)))
    known = np.isfinite(error).any()
    return bool((shares < 1 + _SUMS).all()) and (not known or bool(np.nanmax(error) < _SUMS * size))


def _image(decision: xr.Dataset, name: str) -> Iterator[Markup]:
    """Chart and legend of one image, dims ``depth`` and ``place``."""
    target = int(decision["target"].item())
    top, names = decision["top"].values, decision["class_name"].values
    shares = np.exp(decision["top_logit"].values - decision["logsumexp"].values[:, None])
    listed = _classes(top, shares, target)
    labels = {int(index): str(class_name) for index, class_name in zip(top.ravel(), names.ravel(), strict=True)}
    labels[target] = str(decision["target_name"].item())
    probability, entropy = np.exp(decision["log_probability"].values), decision["entropy"].values
    colors = dict(zip(listed, palette.SERIES, strict=False))
    axis = Axis(["emb." if block < 0 else str(block) for block in decision["block"].values.tolist()])
    steps = ["the embeddings" if block < 0 else f"block {block}" for block in decision["block"].values.tolist()]
    parts = [axis.rule(_BARS - _HIGH * share, percent(share)) for share in (0.0, 0.5, 1.0)]
    parts += _ribbons(axis, top, shares, colors, labels, steps)
    known = bool(np.isfinite(probability).any())
    if known:
        titles = [f"{step}: {labels[target]} {percent(p)}" for step, p in zip(steps, probability.tolist(), strict=True)]
        parts += [axis.rule(_BARS + 60 - 40 * share, percent(share)) for share in (0.0, 1.0)]
        ys = [_BARS + 60 - 40 * value for value in probability.tolist()]
        parts.append(axis.line(ys, colors.get(target, palette.BLUE), titles, square=True))
    base, high = _BARS + (120 if known else 60), max(float(entropy.max()), 1e-9)
    parts += [axis.rule(base, "0"), axis.rule(base - 40, f"{high:.2f}")]
    titles = [f"{step}: entropy {value:.2f} nats" for step, value in zip(steps, entropy.tolist(), strict=True)]
    parts.append(axis.line([base - 40 * value / high for value in entropy.tolist()], palette.GRAY, titles))
    parts += [*axis.texts(axis.labels, base + 18, "block")]
    about = _words(name, labels, target, top, steps, probability, entropy)
    chart = axis.chart(*parts, height=base + 24, about=about)
    yield block(block(name, style="font-size:13px;overflow-wrap:anywhere;"), chart, style="flex:0 1 auto;min-width:0;")
    yield _legend(listed, labels, colors, target, known, len(set(top.ravel().tolist())) > len(listed))


def _classes(top: Array, shares: Array, target: int) -> list[int]:
    """Classes with a letter and a color: the class of interest, then those with the largest sums of probabilities."""
    sums: dict[int, float] = {}
    for index, share in zip(top.ravel().tolist(), shares.ravel().tolist(), strict=True):
        sums[index] = sums.get(index, 0.0) + share
    likely = sorted((index for index in sums if index != target), key=lambda index: (-sums[index], index))
    return ([target] * (target >= 0) + likely)[: len(_LETTERS)]


def _ribbons(
    axis: Axis,
    top: Array,
    shares: Array,
    colors: Mapping[int, str],
    labels: Mapping[int, str],
    steps: Sequence[str],
) -> Iterator[Markup]:
    """Probabilities stacked at each depth, the likeliest below; a letter where there is room for it."""
    letters = dict(zip(colors, _LETTERS, strict=False))
    for depth, step in enumerate(steps):
        x, width, below = axis.x(depth) - 0.42 * axis.step, 0.84 * axis.step, 0.0
        for index, share in zip(top[depth].tolist(), shares[depth].tolist(), strict=True):
            color = colors.get(index)
            fill = f"fill:{color};" if color else "color:inherit;fill:currentColor;fill-opacity:0.15;"
            y = _BARS - _HIGH * (below + share)
            yield rectangle(
                x, y, width, _HIGH * share, f"{fill}stroke:none;", f"{step}: {labels[index]} {percent(share)}"
            )
            if color and _HIGH * share >= 13:
                ink = palette.BLACK if color in _DARK else "#ffffff"
                yield text(letters[index], axis.x(depth), y + _HIGH / 2 * share + 4, "middle", color=ink)
            below += share
        yield rectangle(
            x,
            _BARS - _HIGH,
            width,
            _HIGH * (1 - below),
            "color:inherit;fill:currentColor;fill-opacity:0.15;stroke:none;",
            f"{step}: the rest",
        )


def _legend(
    listed: Sequence[int], labels: Mapping[int, str], colors: Mapping[int, str], target: int, known: bool, others: bool
) -> Markup:
    rows = []
    for letter, index in zip(_LETTERS, listed, strict=False):
        ink = palette.BLACK if colors[index] in _DARK else "#ffffff"
        style = (
            f"background:{colors[index]};color:{ink};display:inline-block;width:18px;text-align:center;font-size:11px;"
        )
        words = f" {labels[index]}{' (class of interest)' * (index == target)}"
        rows.append(block(element("span", letter, style=style), words))
    gray = "display:inline-block;width:18px;height:11px;background:rgb(128 128 128 / 0.35);"
    rows.append(block(element("span", style=gray), " other classes" if others else " all other classes"))
    if known:
        rows.append(
            block(
                element("span", "━■━", style=f"color:{colors.get(target, palette.BLUE)};", aria_hidden="true"),
                f" probability of {labels[target]}",
            )
        )
    rows.append(block(element("span", "━●━", style=f"color:{palette.GRAY};", aria_hidden="true"), " entropy, in nats"))
    return block(
        joined(rows), style="flex:1 1 200px;min-width:0;max-width:320px;font-size:12px;overflow-wrap:anywhere;"
    )


def _words(
    name: str,
    labels: Mapping[int, str],
    target: int,
    top: Array,
    steps: Sequence[str],
    probability: Array,
    entropy: Array,
) -> str:
    """The chart in words: runs of the top class, and the end."""
    first = top[:, 0].tolist()
    runs = [
        f"{labels[index]} from {steps[depth]} on"
        for depth, index in enumerate(first)
        if depth == 0 or index != first[depth - 1]
    ]
    chance = (
        f" Probability of {labels[target]} at the end {percent(float(probability[-1]))},"
        if target >= 0
        else " At the end"
    )
    return f"{name}: on top is {', then '.join(runs)}.{chance} entropy {float(entropy[-1]):.2f} nats."
