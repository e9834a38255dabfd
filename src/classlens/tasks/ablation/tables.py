"""Tables of an ablation: effects of heads, scores against ablation, held-out tests, and confusion pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from classlens.core.spearman import spearman
from classlens.core.stats import Statistics, bootstrap, estimate, holm, ratio
from classlens.tasks.ablation.choice import Pair, Parts
from classlens.tasks.ablation.references import PartName, part_text
from classlens.tasks.ablation.scores import CHANCE, HEAD_SCORES
from classlens.tasks.ablation.without import variant_text

if TYPE_CHECKING:
    import pandas as pd

Images = Bool[ndarray, " image"]
GROUPS = ALL, RIGHT, WRONG = "all", "right", "wrong"
"""Groups of images beside classes."""
EFFECT_COLUMNS = ("images", "score", "block", "head", "value", "low", "high", "number")
AGREEMENT_COLUMNS = ("score", "measure", "value", "low", "high", "number")
HELD_OUT_COLUMNS = (
    "measure",
    "class",
    "score",
    "parts",
    "images",
    "number",
    "intact",
    "drop",
    "low",
    "high",
    "beyond_chance",
    "beyond_low",
    "beyond_high",
)
PAIR_COLUMNS = (
    "label",
    "rival",
    "part",
    "confused",
    "right",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
)
PAIR_TEST_COLUMNS = (
    "label",
    "rival",
    "parts",
    "images",
    "number",
    "value",
    "low",
    "high",
    "chance",
    "beyond_chance",
    "beyond_low",
    "beyond_high",
)

PairRow = dict[str, Any]


def table_names(names: Sequence[str]) -> list[str]:
    """Names of classes as tables have them: with the index where a name is not of one class alone.

    ``table_names(["crane", "all", "crane", "cat"])`` is ``["crane (0)", "all (1)", "crane (2)", "cat"]``.
    """
    counts = Counter([*names, *GROUPS, *GROUPS])
    return [f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(names)]


def effect_rows(
    scores: Mapping[str, Float[ndarray, "image block head"]],
    groups: Mapping[str, Images],
    statistics: Statistics,
) -> Iterator[dict[str, Any]]:
    """Mean of every score for every head over some images, with its interval."""
    for images, chosen in groups.items():
        for score, values in scores.items():
            _, blocks, heads = values.shape
            mean = estimate(values[chosen].reshape(-1, blocks * heads).astype(np.float64), statistics)
            for index in range(blocks * heads):
                yield {
                    "images": images,
                    "score": score,
                    "block": index // heads,
                    "head": index % heads,
                    "value": mean.value[index],
                    "low": mean.low[index],
                    "high": mean.high[index],
                    "number": int(mean.images[index]),
                }


def agreement_rows(
    scores: Mapping[str, Float[ndarray, "image block head"]],
    labels: Int[ndarray, " image"],
    classes: Iterable[int],
    statistics: Statistics,
) -> Iterator[dict[str, Any]]:
    """Spearman's correlation over heads of each score with ablation.

    ``mean`` compares means over images, ``class mean`` the means of each of some classes, then averaged over these, and
    ``image`` single images, then averaged.
    """
    flat = {name: values.reshape(len(values), -1).astype(np.float64) for name, values in scores.items()}
    total = flat["ablation"]
    members = [np.flatnonzero(labels == label) for label in classes]
    for name, values in flat.items():
        if name == "ablation":
            continue

        def of_means(counts: Float[ndarray, "draws image"], values: Float[ndarray, "image head"] = values) -> Any:
            return spearman(counts @ values, counts @ total)[:, None]

        def of_class_means(counts: Float[ndarray, "draws image"], values: Float[ndarray, "image head"] = values) -> Any:
            by_class = [spearman(counts[:, rows] @ values[rows], counts[:, rows] @ total[rows]) for rows in members]
            drawn = ~np.isnan(by_class)  # a resample may have no image of a class
            return ratio(np.where(drawn, by_class, 0).sum(axis=0), drawn.sum(axis=0))[:, None]

        for measure, statistic in (("mean", of_means), ("class mean", of_class_means)):
            value, low, high = bootstrap(statistic, len(values), statistics)
            yield _agreement(name, measure, (value[0], low[0], high[0]), len(values))
        each = estimate(spearman(values, total)[:, None], statistics)
        yield _agreement(name, "image", (each.value[0], each.low[0], each.high[0]), int(each.images[0]))


def _agreement(score: str, measure: str, numbers: tuple[float, float, float], number: int) -> dict[str, Any]:
    return {"score": score, "measure": measure, **dict(zip(("value", "low", "high"), numbers, strict=True))} | {
        "number": number
    }


def held_out_rows(
    drops: Mapping[Parts, Float[ndarray, " image"]],
    intact: Float[ndarray, " image"],
    labels: Int[ndarray, " image"],
    chosen: Mapping[int, Mapping[str, Parts]],
    chance: Sequence[Parts],
    names: Sequence[str],
    statistics: Statistics,
) -> Iterator[dict[str, Any]]:
    """The loss of each class, and of all others, without the heads chosen for the class.

    Args:
        drops: for each set of heads, by how much the measure of an image falls without it.
        intact: the measure of an image with all heads, such as 1 where it is right.
        chosen: heads of each class by the score that chose them.
        chance: random sets of heads.

    ``beyond_chance`` is the loss minus the mean loss by chance for the same images.
    """
    by_chance = np.mean([drops[parts] for parts in chance], axis=0)
    for score in (*HEAD_SCORES, CHANCE):
        of_own_class, others = np.full(len(labels), np.nan), []
        for label, by_score in chosen.items():
            lost = by_chance if score == CHANCE else drops[by_score[score]]
            inside = labels == label
            of_own_class[inside] = lost[inside]
            others.append(np.where(inside, np.nan, lost))
            text = f"{len(chance)} random sets" if score == CHANCE else variant_text(by_score[score])
            for images, mask in (("of the class", inside), ("of others", ~inside)):
                row = _loss(lost[mask], by_chance[mask], intact[mask], None, statistics)
                yield {"class": names[label], "score": score, "parts": text, "images": images, **row}
        tested = ~np.isnan(of_own_class)
        row = _loss(of_own_class[tested], by_chance[tested], intact[tested], labels[tested], statistics)
        yield {"class": ALL, "score": score, "parts": "", "images": "of the class", **row}
        stacked = np.array(others)
        defined = ~np.isnan(stacked)
        mean = ratio(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))
        some = defined.any(axis=0)
        row = _loss(mean[some], by_chance[some], intact[some], None, statistics)
        yield {"class": ALL, "score": score, "parts": "", "images": "of others", **row}


def _loss(
    lost: Float[ndarray, " image"],
    by_chance: Float[ndarray, " image"],
    intact: Float[ndarray, " image"],
    groups: Int[ndarray, " image"] | None,
    statistics: Statistics,
) -> dict[str, Any]:
    """Means over images; with ``groups``, means of group means."""
    columns = np.stack([intact, lost, lost - by_chance], axis=1)
    means = estimate(columns, statistics, groups=groups)
    names = ("intact", "drop", "beyond_chance")
    values = dict(zip(names, means.value.tolist(), strict=True))
    return {
        "number": len(lost),
        **values,
        "low": means.low[1],
        "high": means.high[1],
        "beyond_low": means.low[2],
        "beyond_high": means.high[2],
    }


def pair_rows(
    pair: Pair,
    parts: Sequence[PartName],
    contrast: Float[ndarray, "image part"],
    confused: Images,
    right: Images,
    names: Sequence[str],
    statistics: Statistics,
) -> Iterator[PairRow]:
    """Mean contrast of confused images minus that of right ones, by part: Welch's test, with Holm's correction."""
    from scipy.stats import ttest_ind

    rows = contrast[confused | right].astype(np.float64)
    is_confused = confused[confused | right]

    def difference(counts: Float[ndarray, "draws image"]) -> Float[ndarray, "draws part"]:
        means = [
            ratio(counts[:, kind] @ rows[kind], counts[:, kind].sum(axis=1, keepdims=True))
            for kind in (is_confused, ~is_confused)
        ]
        return np.asarray(means[0] - means[1])

    value, low, high = bootstrap(difference, len(rows), statistics)
    p = np.asarray(ttest_ind(rows[is_confused], rows[~is_confused], equal_var=False).pvalue)
    corrected = holm(p)
    for index, part in enumerate(parts):
        yield {
            "label": names[pair.label],
            "rival": names[pair.rival],
            "part": part_text(part),
            "confused": int(is_confused.sum()),
            "right": int((~is_confused).sum()),
            "difference": value[index],
            "low": low[index],
            "high": high[index],
            "p": p[index],
            "p_holm": corrected[index],
        }


def against_chance(
    values: Float[ndarray, " image"], by_chance: Float[ndarray, " image"], statistics: Statistics
) -> dict[str, Any]:
    """The mean of values over images, and beyond those by chance for the same images."""
    means = estimate(np.stack([values, by_chance, values - by_chance], axis=1), statistics)
    return {
        "number": len(values),
        "value": means.value[0],
        "low": means.low[0],
        "high": means.high[0],
        "chance": means.value[1],
        "beyond_chance": means.value[2],
        "beyond_low": means.low[2],
        "beyond_high": means.high[2],
    }


def frame(rows: Iterator[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a table with these columns, also without rows."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns))
