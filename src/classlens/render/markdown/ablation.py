"""The summary of an ablation: agreement of scores, held-out tests, heads of classes, and what tips confusions."""

from __future__ import annotations

import pandas as pd

from classlens.render.markdown.tables import interval_text, markdown_table, p_text
from classlens.tasks.ablation.result import AblateResult
from classlens.tasks.ablation.scores import CHANCE, HEAD_SCORES
from classlens.tasks.ablation.tables import ALL
from classlens.text import markdown_text

_PAIR_PARTS = 5
"""Parts of a confusion that are shown: those that tip it most."""


def ablation_summary(result: AblateResult) -> str:
    """The whole of ``summary.md``.

    ``print(ablation_summary(classlens.ablate("builtin:photos", data, "out", to="means.safetensors")))``
    """
    settings, statistics = result.settings, result.statistics
    effects = result.effects[(result.effects["images"] == ALL) & (result.effects["score"] == "ablation")]
    number = int(effects["number"].iloc[0])
    parts = [
        f"# Ablation of heads: {markdown_text(str(settings['model']))}\n",
        f"{number:,} images of {markdown_text(str(settings['data']))}. The output of a head becomes "
        f"{markdown_text(str(settings['to']))}. In brackets {100 * statistics.confidence:g} % bootstrap intervals over "
        f"images ({statistics.resamples:,} resamples, seed {statistics.seed}).\n",
        "## Heads with the largest total effect\n",
        "Log odds of the label that are lost without the head, over all images.\n",
        _largest(effects),
        "## Do scores predict ablation?\n",
        "Spearman's correlation over heads with the total effect of ablation.\n",
        _agreement(result.agreement),
        "## Held-out test\n",
        f"Half of the images of each class choose the {settings['heads']} heads with the largest mean score for the "
        "class; the other half runs without them. Loss as a mean over classes (of others: over images), "
        "and beyond that by "
        f"{settings['draws']} random sets of heads for the same images.\n",
        *(
            f"{str(measure).capitalize()} lost:\n\n{_held_out(table)}"
            for measure, table in result.held_out[result.held_out["class"] == ALL].groupby("measure", sort=False)
        ),
        "### By class\n",
        _by_class(result.held_out),
    ]
    if len(result.pairs):
        parts += [
            "## Parts that tip confusions\n",
            "Contribution to the logit of the rival minus that to the logit of the label: mean of confused images "
            "minus that of right ones, in the choosing half; p by Welch's test with Holm's correction over parts.\n",
            *_pairs(result),
        ]
    return "\n".join(parts)


def _largest(effects: pd.DataFrame) -> str:
    rows = effects.reindex(effects["value"].abs().sort_values(ascending=False, kind="stable").index).head(10)
    return markdown_table(
        ["head", "log odds lost"], [[f"{row['block']}.{row['head']}", interval_text(row)] for _, row in rows.iterrows()]
    )


def _agreement(table: pd.DataFrame) -> str:
    measures = list(dict.fromkeys(table["measure"]))
    cells = table.set_index(["score", "measure"])
    header = {"mean": "means over images", "class mean": "means of a class", "image": "single images"}
    return markdown_table(
        ["score", *(header[measure] for measure in measures)],
        [
            [HEAD_SCORES[score].label, *(interval_text(cells.loc[(score, measure)]) for measure in measures)]
            for score in dict.fromkeys(table["score"])
        ],
    )


def _held_out(table: pd.DataFrame) -> str:
    cells = table.set_index(["score", "images"])
    lines = []
    for score in (*HEAD_SCORES, CHANCE):
        own, others = cells.loc[(score, "of the class")], cells.loc[(score, "of others")]
        beyond = "" if score == CHANCE else interval_text(own, "beyond_chance", "beyond_low", "beyond_high")
        lines.append(
            [_score(score), interval_text(own, "drop"), beyond, interval_text(others, "drop")],
        )
    return markdown_table(["heads chosen by", "lost by the class", "beyond chance", "lost by others"], lines)


def _by_class(table: pd.DataFrame) -> str:
    shown = table[(table["class"] != ALL) & (table["images"] == "of the class") & (table["score"] != CHANCE)]
    odds = shown[shown["measure"] == "log odds"].set_index(["class", "score"])
    lines = []
    for _, row in shown[shown["measure"] == "accuracy"].iterrows():
        of_odds = interval_text(odds.loc[(row["class"], row["score"])], "drop")
        accuracy = f"{row['intact']:.3f}", interval_text(row, "drop")
        lines.append([row["class"], _score(row["score"]), row["parts"], *accuracy, of_odds])
    return markdown_table(["class", "heads chosen by", "heads", "accuracy", "lost", "log odds lost"], lines)


def _pairs(result: AblateResult) -> list[str]:
    parts = []
    for (label, rival), rows in result.pairs.groupby(["label", "rival"], sort=False):
        confused, right = int(rows["confused"].iloc[0]), int(rows["right"].iloc[0])
        parts.append(f"### {markdown_text(f'{label} taken for {rival}')}\n")
        parts.append(f"{confused} confused images and {right} right ones.\n")
        best = rows.sort_values("difference", ascending=False, kind="stable").head(_PAIR_PARTS)
        parts.append(
            markdown_table(
                ["part", "difference of contributions", "p"],
                [[row["part"], interval_text(row, "difference"), p_text(row["p_holm"])] for _, row in best.iterrows()],
            )
        )
        test = result.pair_tests
        tested = test[(test["label"] == label) & (test["rival"] == rival) & (test["number"] > 0)]
        if len(tested):
            parts.append(
                markdown_table(
                    ["images of the other half", "number", "without", "predicted as the label", "without random parts"],
                    [
                        [row["images"], row["number"], row["parts"], interval_text(row), f"{row['chance']:.3f}"]
                        for _, row in tested.iterrows()
                    ],
                )
            )
    return parts


def _score(name: str) -> str:
    return HEAD_SCORES[name].label if name in HEAD_SCORES else "chance"
