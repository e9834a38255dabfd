"""The table in the terminal says what the record says, and shows names as they are."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from classlens.render.terminal.inspection import tables
from tests.render.records import CIFAR, Sizes, make_record


def shown(record: dict[str, Any], *, width: int = 160, **options: Any) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, **options)
    for part in tables(record):
        console.print(part)
    return file.getvalue()


def rows(text: str) -> list[list[str]]:
    """The cells of every row of a block."""
    cells = [[cell.strip() for cell in line.strip("│ \n").split("│")] for line in text.splitlines() if "│" in line]
    return [row for row in cells if row[0].isdecimal()]


def test_one_row_a_block_counted_from_zero() -> None:
    record = make_record(Sizes())
    image = record["images"][0]
    found = rows(shown(record))
    assert [row[0] for row in found] == ["0", "1", "2", "3", "4", "5"]
    for block, (_, cls, share, attention, mlp) in enumerate(found):
        assert int(cls) == image["blocks"][block]["cls_rank"]
        assert float(share.rstrip("%")) == pytest.approx(100 * image["blocks"][block]["identifiable"], abs=0.5)
        assert float(attention.rstrip(" ◂")) == pytest.approx(sum(image["attribution"]["attention"][block]), abs=0.006)
        assert float(mlp.rstrip(" ◂")) == pytest.approx(image["attribution"]["mlp"][block], abs=0.006)
        assert attention[0] in "+-"


def test_the_largest_sublayer_is_marked_alone() -> None:
    record = make_record(Sizes())
    largest = record["images"][0]["largest"]
    text = shown(record)
    assert text.count("◂") == 1
    marked = [
        (int(row[0]), sublayer)
        for row in rows(text)
        for sublayer, cell in zip(("attention", "mlp"), row[3:], strict=True)
        if "◂" in cell
    ]
    assert marked == [(largest["block"], largest["sublayer"])]
    word = {"mlp": "MLP", "attention": "attention"}[largest["sublayer"]]
    caption = " ".join(text.split())
    assert f"the largest contribution is that of the {word} of block {largest['block']}" in caption


def test_predictions_and_the_sum() -> None:
    record = make_record(Sizes())
    image = record["images"][0]
    text = shown(record)
    line = text.splitlines()[0]
    assert line.startswith("chelsea.png: ")
    positions = [line.index(f"{one['name']} {100 * one['probability']:.1f}%") for one in image["predictions"]]
    assert positions == sorted(positions)
    assert len(positions) == 5
    assert "How the class 'cat' is built" in text
    for part, form in (("logit", ".2f"), ("embed", "+.2f"), ("bias", "+.2f")):
        assert format(image["attribution"][part], form) in text


def test_a_model_without_cls_has_no_rank_there() -> None:
    found = rows(shown(make_record(Sizes(prefix=("reg0",), blocks=3))))
    assert [row[1] for row in found] == ["–", "–", "–"]


def test_every_image_has_its_table() -> None:
    text = shown(make_record(Sizes(images=("one.png", "two.png", "three.png"), blocks=2)))
    assert text.count("How the class") == 3
    assert len(rows(text)) == 6
    assert text.index("one.png: ") < text.index("two.png: ") < text.index("three.png: ")


@pytest.mark.parametrize(
    "name", ["[red].png", "[/bold].png", "a[link=x]b.png", "[1].png", ":cat:.png", "back\\", "back\\[red].png"]
)
@pytest.mark.parametrize("where", ["image", "class"])
def test_names_are_shown_as_they_are(name: str, where: str) -> None:
    if where == "image":
        text = shown(make_record(Sizes(images=(name,), blocks=1)))
        assert text.startswith(f"{name}: ")
        return
    classes = [*CIFAR[:3], name, *CIFAR[4:]]
    text = shown(make_record(Sizes(classes=classes, blocks=1)))
    assert f" {name} " in text.splitlines()[0] or f": {name} " in text.splitlines()[0]
    assert f"How the class {name!r} is built" in text
    assert f"score higher than {name}; " in text


def test_names_are_shown_as_they_are_in_color_too() -> None:
    text = shown(
        make_record(Sizes(images=("[red]:cat:.png",), blocks=1)), force_terminal=True, color_system="truecolor"
    )
    assert "[red]:cat:.png" in text


def test_a_narrow_terminal_loses_nothing() -> None:
    record = make_record(Sizes())
    text = " ".join(shown(record, width=60).split())
    for one in record["images"][0]["predictions"]:
        assert f"{one['name']} {100 * one['probability']:.1f}%" in text
    assert [row[0] for row in rows(shown(record, width=60))] == ["0", "1", "2", "3", "4", "5"]
