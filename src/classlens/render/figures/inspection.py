"""Figures of an inspection record: evolution, tokens, explanation and attribution of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from classlens import palette
from classlens.errors import ClasslensError
from classlens.render.class_record import class_words, shown_record
from classlens.render.figures.blending import SIGNED, Floats, color_scale, faded
from classlens.render.figures.style import interpolation, plain, save

_DOT: dict[str, Any] = {"color": palette.BLACK, "markeredgecolor": "white", "markeredgewidth": 0.5}
_WIDTH = 8.4
"""Width in inches that the panels of a figure share."""

Record = Mapping[str, Any]


def save_figures(record: Record, pictures: Sequence[Image.Image], folder: Path) -> list[Path]:
    """Write the four figures of every image as PNG at 150 dpi, named ``01-evolution.png``, ``01-tokens.png`` and so on.

    ``save_figures(record, [trace.picture(0)], Path("figures"))``

    Returns the paths, image by image: evolution, tokens, explanation, and attribution where it is defined.
    ``pictures[i]`` is the model's input for ``record["images"][i]``. Raises ``ClasslensError`` where their numbers
    differ or the folder cannot be written.
    """
    if len(pictures) != len(record["images"]):
        raise ClasslensError(
            f"{len(pictures)} pictures were given for {len(record['images'])} images of the record: "
            "give one picture an image"
        )
    model, paths = record["model"], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        images = map(shown_record, record["images"])
        for number, (image, picture) in enumerate(zip(images, pictures, strict=True), start=1):
            drawn = {
                "evolution": evolution(image, model),
                "tokens": tokens(image, model, picture),
                "explanation": explanation(image, model, picture),
            }
            if image["attribution"] is not None:
                drawn["attribution"] = attribution(image)
            for kind, figure in drawn.items():
                paths.append(folder / f"{number:02d}-{kind}.png")
                save(figure, paths[-1])
    except OSError as error:
        reason = f"({error.strerror}): give another folder"
        raise ClasslensError(f"figures cannot be written to {str(folder)!r} {reason}") from None
    return paths


def evolution(image: Record, model: Record) -> Figure:
    """Per block: the share of image tokens with the class on top, and its identifiability there and at ``[CLS]``.

    ``evolution(record["images"][0], record["model"]).savefig("evolution.png")``

    Values are 0 to 1; the dotted line is chance, one token in ``num_classes``. Models without ``[CLS]`` have no line
    for it. Outputs that are labels or numbers have logits in the place of ranks.
    """
    blocks = np.array([block["block"] for block in image["blocks"]])
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    (_evolution_of_ranks if _exclusive(model) else _evolution_of_logits)(axes, image, model, blocks)
    axes.set_xlabel("block")
    axes.set_xticks(blocks[:: -(-len(blocks) // 16)])
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _title(axes, f"How {plain(image['target']['name'])} builds up in {plain(image['label'])}")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _evolution_of_ranks(axes: Axes, image: Record, model: Record, blocks: NDArray[np.int_]) -> None:
    share = [block["identifiable"] for block in image["blocks"]]
    mean = _identifiability(image, model)[:, len(model["prefix"]) :].mean(axis=1)
    axes.plot(blocks, share, "o-", color=palette.IMAGE_TOKENS, label="image tokens: share with the class on top")
    axes.plot(
        blocks, mean, ".--", color=palette.IMAGE_TOKENS, linewidth=1.2, label="image tokens: mean identifiability"
    )
    if image["blocks"][0]["cls_rank"] is not None:
        cls = [1 - block["cls_rank"] / model["num_classes"] for block in image["blocks"]]
        axes.plot(blocks, cls, "s-", color=palette.CLS, label="[CLS]: identifiability")
    chance = 1 / model["num_classes"]
    axes.axhline(chance, color=palette.MUTED, linestyle=":", label=f"chance: 1 token in {model['num_classes']} on top")
    axes.set(ylabel="share, identifiability", ylim=(-0.03, 1.03))


def _evolution_of_logits(axes: Axes, image: Record, model: Record, blocks: NDArray[np.int_]) -> None:
    mean = [block["mean_logit"] for block in image["blocks"]]
    axes.plot(blocks, mean, "o-", color=palette.IMAGE_TOKENS, label="image tokens: mean")
    if image["blocks"][0]["cls_logit"] is not None:
        cls = [block["cls_logit"] for block in image["blocks"]]
        axes.plot(blocks, cls, "s-", color=palette.CLS, label="[CLS]")
    if model["problem_type"] == "multi_label_classification":
        axes.axhline(0, color=palette.MUTED, linestyle=":", label="above: the label is assigned")
    axes.set_ylabel(_unit(model))


def tokens(image: Record, model: Record, picture: Image.Image) -> Figure:
    """Class identifiability of every image token after each block, over the picture; a dot marks rank 0.

    ``tokens(record["images"][0], record["model"], trace.picture(0))``

    Outputs that are labels or numbers have logits in the place of ranks, and no dots.
    """
    exclusive, target = _exclusive(model), plain(image["target"]["name"])
    logits = None if exclusive else np.asarray(image["tokens"]["resid_post"]["logit"])
    of_tokens = _identifiability(image, model) if logits is None else logits
    figure, panels = _panels(len(of_tokens), model)
    values = of_tokens[:, len(model["prefix"]) :].reshape(len(of_tokens), *model["grid"])
    gray = faded(picture)
    largest = float(abs(values).max()) or 1.0
    norm, cmap = (Normalize(0, 1), "viridis") if exclusive else (Normalize(-largest, largest), SIGNED)
    # Markers are about a quarter of a token wide, in points.
    marker_size = float(np.clip(0.25 * 72 * _WIDTH / _columns(len(panels)) / max(model["grid"]), 1.5, 5))
    for block, (axes, grid) in enumerate(zip(panels, values, strict=True)):
        _picture(axes, gray)
        _token_squares(axes, grid, gray, cmap=cmap, norm=norm, **({"alpha": palette.OPACITY} if exclusive else {}))
        rows, columns = np.nonzero((grid == 1) & exclusive)
        height, width = np.array(gray.shape) / grid.shape
        axes.plot((columns + 0.5) * width, (rows + 0.5) * height, "o", markersize=marker_size, **_DOT)
        axes.set_title(f"block {block}", fontsize=9)
    scale = ScalarMappable(norm, cmap) if exclusive else color_scale(True, largest)
    bar = figure.colorbar(scale, ax=panels, shrink=0.8, aspect=30, pad=0.02)
    if not exclusive:
        bar.set_label(_unit(model), fontsize=9)
        _heading(figure, f"{_unit(model).capitalize()} of {target} after each block")
        return figure
    bar.set_label(f"1 − rank ÷ {model['num_classes']} classes", fontsize=9)
    dot = Line2D([], [], linestyle="", marker="o", markersize=5, label="class on top", **_DOT)
    figure.legend(handles=[dot], loc="outside lower center", fontsize=8, frameon=False)
    _heading(figure, f"Class identifiability of {target} after each block")
    return figure


def explanation(image: Record, model: Record, picture: Image.Image) -> Figure:
    """The default explanation map summed over blocks and heads, then one map per block, summed over heads.

    ``explanation(record["images"][0], record["model"], trace.picture(0))``

    Positive values support the class. The sum has its own color scale; the blocks share one.
    """
    method = next(iter(image["explanations"].values()))
    values = np.asarray(method["values"], dtype=float)
    blocks = values.sum(axis=1).reshape(len(values), *model["grid"])
    figure, panels = _panels(len(blocks) + 1, model)
    gray = faded(picture)
    total = blocks.sum(axis=0)
    total_limit, block_limit = (float(abs(maps).max()) or 1.0 for maps in (total, blocks))
    maps = [("sum of all blocks", total, total_limit)]
    maps += [(f"block {number}", grid, block_limit) for number, grid in enumerate(blocks)]
    for axes, (title, grid, limit) in zip(panels, maps, strict=True):
        _picture(axes, gray)
        _token_squares(axes, grid, gray, cmap=SIGNED, norm=Normalize(-limit, limit))
        axes.set_title(title, fontsize=9)
    panels[0].title.set_fontweight("bold")
    for limit, label in ((block_limit, "each block"), (total_limit, "sum of all blocks")):
        bar = figure.colorbar(color_scale(True, limit), ax=panels, shrink=0.8, aspect=30, pad=0.02)
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    _heading(figure, f"What speaks for {plain(class_words(image))} (orange) or against it (blue), by {method['label']}")
    return figure


def attribution(image: Record) -> Figure:
    """The logit as the sum of contributions: embeddings, attention and MLP of each block, biases.

    ``attribution(record["images"][0])``

    One bar for each part, in logits, in the order in which the model computes them, from top to bottom.
    """
    contributions = image["attribution"]
    parts = [("embeddings", contributions["embed"])]
    by_block = zip(contributions["attention"], contributions["mlp"], strict=True)
    for block, (heads, mlp) in enumerate(by_block):
        parts += [(f"block {block} attention", sum(heads)), (f"block {block} MLP", mlp)]
    parts.append(("biases", contributions["bias"]))
    if "edit" in contributions:
        parts.append(("put in by edits", sum(contributions["edit"])))
    names, values = [name for name, _ in parts], [float(value) for _, value in parts]
    figure = Figure(figsize=(6.4, 1.4 + 0.19 * len(parts)), layout="constrained")
    axes = figure.add_subplot()
    colors = [palette.SUPPORTS if value >= 0 else palette.OPPOSES for value in values]
    bars = axes.barh(range(len(parts)), values, color=colors, height=0.75)
    labels = ["0.00" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "−") for value in values]
    axes.bar_label(bars, labels, fontsize=7, padding=3, color=palette.MUTED)
    axes.set_yticks(range(len(parts)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.axvline(0, color=palette.MUTED, linewidth=0.8)
    total = "the logit" if image["against"] is None else "the difference of the two logits"
    axes.set_xlabel(f"added to {total}; the bars sum to {contributions['logit']:.2f}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _title(axes, f"What adds to the logit of {plain(class_words(image))} in {plain(image['label'])}")
    return figure


def _exclusive(model: Record) -> bool:
    return bool(model["problem_type"] == "single_label_classification")


def _unit(model: Record) -> str:
    return "output" if model["problem_type"] == "regression" else "logit"


def _identifiability(image: Record, model: Record) -> Floats:
    """``1 - rank / num_classes`` after each block, ``[block, token]``."""
    return np.asarray(1 - np.asarray(image["tokens"]["resid_post"]["rank"]) / model["num_classes"])


def _panels(count: int, model: Record) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a page with ``count`` panels in the shape of the picture, in rows."""
    height, width = model["input_size"]
    columns = _columns(count)
    rows = -(-count // columns)
    size = (10, max(2.6, rows * (_WIDTH / columns * height / width + 0.28) + 0.8))
    figure = Figure(figsize=size, layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for axes in panels:
        axes.set_axis_off()
        axes.xaxis.set_visible(False)  # axes that are off still lay out their tick labels
        axes.yaxis.set_visible(False)
    return figure, panels[:count]


def _columns(panels: int) -> int:
    return min(panels, 6 if panels > 8 else 4)


def _picture(axes: Axes, gray: Floats) -> AxesImage:
    height, width = gray.shape
    extent = (0, width, height, 0)
    return axes.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation=interpolation(max(gray.shape)))


def _token_squares(axes: Axes, grid: Floats, gray: Floats, **options: Any) -> AxesImage:
    """One square for each token, stretched over the picture."""
    height, width = gray.shape
    return axes.imshow(grid, extent=(0, width, height, 0), interpolation="nearest", **options)


def _heading(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=11, parse_math=False)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=11, loc="left", parse_math=False)
