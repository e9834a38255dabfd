"""The summary of an analysis shows what its tables hold."""

from __future__ import annotations

import re

import numpy as np
import pytest

from classlens.analysis.analyze import AnalyzeResult
from classlens.analysis.registry import EXPERIMENTS
from classlens.render.markdown.analysis import summary


@pytest.fixture(scope="module")
def text(three_models: AnalyzeResult) -> str:
    return summary(three_models)


def test_every_table_is_shown(three_models: AnalyzeResult, text: str) -> None:
    introduction, *others = re.split(r"^## ", text, flags=re.MULTILINE)
    sections = {section.partition("\n")[0]: section for section in others}
    assert list(sections) == [*(experiment.label for experiment in EXPERIMENTS.values()), "Images", "Pairs of stores"]
    assert "20 resamples" in introduction
    assert "95 % bootstrap intervals over images" in introduction
    # A bar within a name would begin another cell.
    assert "| first \\| odd | folder:made | 20 | 3 | 5 | clean, random_init, self_only," in introduction
    for name, experiment in EXPERIMENTS.items():
        section, table = sections[experiment.label], three_models.tables[name]
        assert experiment.definition in section
        drawn = [
            np.all([np.ones(len(table)), *(table[column].isin(kept) for column, kept in chart.where.items())], axis=0)
            for chart in experiment.charts
        ]
        rows = table[np.any(drawn, axis=0)]
        values = [f"{value:.3f} (".replace("-", "−") for value in rows["value"]]
        if name not in ("mean_evolution", "agreement_by_class"):
            assert sum(value in section for value in values) > len(values) / 3, name
        widths = {line.replace("\\|", "").count("|") for line in section.splitlines() if line.startswith("|")}
        assert widths, name
    assert "Not measured for second: the images have no masks: measure them with --masks" in text
    assert "Not measured for second, in part: the model has no [CLS] token." in text


def test_values_of_one_block_by_hand(three_models: AnalyzeResult, text: str) -> None:
    table = three_models.tables["change_rate"]
    row = table.query("model == 'second' and condition == 'clean' and tokens == 'image' and block == 2").iloc[0]
    section = text.partition("## Class similarity change rate")[2]
    block = section.partition("**second**")[2]
    (line,) = [line for line in block.partition("\n**")[0].splitlines() if line.startswith("| 2 |")]
    assert line.split("|")[2].strip() == f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def test_values_are_named_by_their_labels(text: str) -> None:
    """Labels of conditions, tokens and sublayers, of the experiment itself, and of a value that it adds."""
    assert "| block | trained model, [CLS] | trained model, image tokens | random twin, [CLS] |" in text
    assert "**first \\| odd, MLP**" in text
    assert "| block | memories of the class (published code) |" in text
    assert "| first \\| odd | context removed | unedited | tokens identifiable |" in text
    assert "| mean of the models | [CLS] |" in text
