"""A trace in a notebook: its first images, their likeliest classes, and the prediction block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens import palette
from classlens.errors import ClasslensError
from classlens.explain.class_logits import token_logits
from classlens.forward.isolation import isolated
from classlens.forward.recording import Recording
from classlens.lens.trace import Trace
from classlens.lens.trajectory import depth_logits
from classlens.models.view import ModelView
from classlens.render.image_names import labels_of
from classlens.render.notebook.chart import Axis, rectangle
from classlens.render.notebook.elements import (
    Markup,
    bar,
    block,
    code,
    columns,
    element,
    note,
    percent,
    picture,
    result,
)

SHOWN = 8
"""Number of images that are shown, and computed."""
_TOP = 5


class Standing(NamedTuple):
    """Rank of the prediction at the pooled tokens, and the share of image tokens that have it on top."""

    ranks: Int[Tensor, "image block"]
    shares: Float[Tensor, "image block"]


@isolated
def trace_html(trace: Trace) -> Markup:
    """Pictures, predictions and a chart of each of the first images; the computation ends with them."""
    view, shown = trace.recording.view, min(SHOWN, len(trace))
    predicted = trace.recording.logits[:shown].argmax(dim=1).cpu()
    standing, remark = None, ""
    if view.exclusive:
        try:
            standing = standings(trace.recording, predicted)
        except ClasslensError as error:
            remark = f"The standing of classes in the blocks is not shown: {error}."
    else:
        remark = "Outputs of this model are no classes that exclude each other, so they have no ranks."
    count = f"{len(trace)} image{'' if len(trace) == 1 else 's'}"
    title = f"Trace of {view.name}: {count}, {len(view.blocks)} blocks, {trace.recording.tokens.count} tokens"
    return result(title, *_images(trace, shown, standing), *_notes(trace, shown, remark))


def standings(recording: Recording, predicted: Int[Tensor, " image"]) -> Standing:
    """The standing of the predictions of the first images, as many as are given."""
    count, blocks = len(predicted), len(recording.view.blocks)
    ranks = torch.zeros(count, blocks, dtype=torch.int64)
    tops = torch.zeros(count, blocks)
    for images, logits in depth_logits(recording):
        images = slice(images.start, min(images.stop, count))
        if images.start >= count:
            break
        chosen = logits[: images.stop - images.start, 1:]
        ranks[images] = _ranks(chosen, predicted[images]).cpu()
    first = recording.tokens.image.start
    for images, number, tokens, logits in token_logits(recording, "resid_post"):
        images = slice(images.start, min(images.stop, count))
        if images.start >= count:
            break
        on_top = _ranks(logits[: images.stop - images.start], predicted[images]) == 0
        positions = torch.arange(recording.tokens.count)[tokens]
        tops[images, number] += on_top[:, (positions >= first).to(on_top.device)].sum(dim=1).cpu()
    return Standing(ranks, tops / (recording.tokens.count - first))


def _ranks(logits: Float[Tensor, "image row category"], index: Int[Tensor, " image"]) -> Int[Tensor, "image row"]:
    own = logits.gather(2, index.to(logits.device)[:, None, None].expand(-1, logits.shape[1], 1))
    return (logits > own).sum(dim=2)


def _images(trace: Trace, shown: int, standing: Standing | None) -> Iterator[Markup]:
    view = trace.recording.view
    logits = trace.recording.logits[:shown].to(trace.recording.dtype).cpu()
    probability = view.probabilities(logits)
    for number, name in enumerate(labels_of(trace.names[:shown])):
        order = torch.argsort(-logits[number], stable=True)[:_TOP].tolist()
        values = logits[number] if probability is None else probability[number]
        guesses = [(trace.classes.names[index], float(values[index])) for index in order]
        parts = [_seen(trace, number, name), _predictions(guesses, probability is not None)]
        if standing is not None:
            of_image = standing.ranks[number].tolist(), standing.shares[number].tolist()
            parts.append(_chart(view, name, guesses[0][0], *of_image))
        yield columns(*parts)


def _seen(trace: Trace, number: int, name: str) -> Markup:
    caption = block(
        name, style="font-size:12px;opacity:0.75;overflow-wrap:anywhere;width:116px;", title=trace.names[number]
    )
    seen = picture(trace.picture(number), f"{name} as the model saw it")
    return block(seen, caption, style="flex:none;width:116px;")


def _predictions(guesses: Sequence[tuple[str, float]], shares: bool) -> Markup:
    rows = []
    for name, value in guesses:
        label = block(name, style="flex:0 1 9em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;", title=name)
        number = percent(value) if shares else f"{value:.2f}".replace("-", "−")
        text = block(number, style="flex:0 0 4em;text-align:right;font-variant-numeric:tabular-nums;")
        parts = [label, *([bar(value, palette.BLUE)] if shares else []), text]
        rows.append(block(*parts, style="display:flex;gap:8px;align-items:center;list-style:none;", tag="li"))
    style = "list-style:none;flex:1 1 230px;max-width:330px;font-size:13px;"
    return block(*rows, style=style, tag="ol", aria_label="Likeliest classes")


def pooled_words(view: ModelView) -> str:
    return "[CLS]" if view.pooling == "cls" else "the pooled tokens"


def _chart(view: ModelView, image: str, target: str, ranks: Sequence[int], shares: Sequence[float]) -> Markup:
    """The rank on a logarithmic scale, 0 on top, above the share of image tokens."""
    axis, pooled = Axis([str(number) for number in range(len(ranks))]), pooled_words(view)
    last = max(1, view.num_classes - 1)

    def y(rank: int) -> float:
        return 18 + 58 * math.log1p(rank) / math.log1p(last)

    ticks = [0, *(10**power for power in range(len(str(last))) if 1 < 10**power < last / 2), last]
    titles = [f"block {number}: rank {rank} of {target} at {pooled}" for number, rank in enumerate(ranks)]
    parts = [axis.rule(y(tick), f"{tick}") for tick in ticks]
    parts += [axis.line([y(rank) for rank in ranks], palette.CLS, titles, square=True)]
    parts += [*axis.texts([str(rank) for rank in ranks], 96, "rank")]
    for share in (0.0, 1.0):
        parts.append(axis.rule(156 - 46 * share, percent(share)))
    for number, share in enumerate(shares):
        title = f"block {number}: {percent(share)} of image tokens have {target} on top"
        place = axis.x(number) - 0.36 * axis.step, 156 - 46 * share, 0.72 * axis.step, 46 * share
        parts.append(rectangle(*place, f"fill:{palette.IMAGE_TOKENS};stroke:none;", title))
    parts += [*axis.texts(axis.labels, 172, "block")]
    about = (
        f"{image}, {target}: rank at {pooled} after each block {', '.join(map(str, ranks))} (0 is on top); share of "
        f"image tokens with it on top {', '.join(map(percent, shares))}."
    )
    chart = axis.chart(*parts, height=178, about=about)
    key = _key(
        ("■", palette.CLS, f"rank of {target} at {pooled} after each block, 0 on top"),
        ("▮", palette.IMAGE_TOKENS, "share of image tokens with it on top"),
    )
    return block(chart, key, style="flex:1 1 360px;min-width:0;max-width:560px;")


def _key(*entries: tuple[str, str, str]) -> Markup:
    """Meaning of the marks of a chart: ``(mark, color, words)``."""
    rows = [
        block(element("span", mark, style=f"color:{color};", aria_hidden="true"), f" {words}", style="font-size:12px;")
        for mark, color, words in entries
    ]
    return block(*rows, style="overflow-wrap:anywhere;")


def _notes(trace: Trace, shown: int, remark: str) -> Iterator[Markup]:
    if remark:
        yield note(remark)
    if len(trace) > shown:
        yield note(
            f"The first {shown} of {len(trace)} images are shown. ", code("trace.names"), " has the names of all."
        )
    yield note(code("lens.inspect(images)"), " shows images in all detail.")
