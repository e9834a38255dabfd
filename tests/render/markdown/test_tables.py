"""Markdown tables and the numbers in them."""

from __future__ import annotations

from classlens.render.markdown.tables import interval_text, markdown_table, p_text


def test_p_values_are_never_0() -> None:
    assert p_text(2.2e-308) == "< 1e-300"
    assert p_text(1 / 10001) == "0.0001"
    assert p_text(0.0449) == "0.045"
    assert p_text(float("nan")) == ""


def test_a_row_stays_on_one_line() -> None:
    assert markdown_table(["a"], [["one\ntwo"], ["b|c"]]) == "| a |\n| --- |\n| one two |\n| b\\|c |\n"


def test_intervals() -> None:
    nan = float("nan")
    assert interval_text({"value": 0.38249, "low": 0.378, "high": 0.386}) == "0.382 (0.378 to 0.386)"
    assert interval_text({"change": -0.5, "a": -0.75, "b": 0.25}, "change", "a", "b") == "−0.500 (−0.750 to 0.250)"
    assert interval_text({"value": 0.5, "low": nan, "high": nan}) == "0.500"
    assert interval_text({"value": nan, "low": nan, "high": nan}) == ""
    assert interval_text(None) == ""
