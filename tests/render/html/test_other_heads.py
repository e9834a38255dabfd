"""Models with no middle of a block, with a head that is no sum, or with two heads: record, figures, terminal, page."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from rich.console import Console
from torch import nn

import classlens
from classlens.render.figures.inspection import save_figures
from classlens.render.html.report import write_report
from classlens.render.inspection_record import inspection
from classlens.render.terminal.inspection import tables
from tests import zoo

if TYPE_CHECKING:
    from playwright.sync_api import Page

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7, "img_size": 32}
SPLIT = "one head on [CLS] beside the mean of the image tokens"
SITES = ["embed", "attn_out", "resid_mid", "mlp_out", "resid_post"]
# A model of timm: its sites, whether its logit is a sum of parts, and whose attention the explanation is about.
KINDS: dict[str, tuple[list[str], bool, str, str]] = {
    "vit_base_patch16_xp_224": (["embed", "attn_out", "mlp_out", "resid_post"], True, "cls", "from [CLS] make"),
    "vit_base_patch16_siglip_224": (SITES, False, "mean of pooled tokens", "from the tokens that the head pools make"),
    SPLIT: (SITES, True, "cls and mean of pooled tokens", "from [CLS] and the tokens that the head averages make"),
    "deit_tiny_distilled_patch16_224": (SITES, True, "tokens of both heads", "the tokens that the two heads read make"),
}


@cache
def inspected(name: str) -> tuple[dict[str, Any], list[Any]]:
    """The record and the pictures of two images, shared by tests that only read them."""
    module = timm.create_model("vit_tiny_patch16_224" if name == SPLIT else name, **SMALL)
    zoo.randomize(module)
    lens = classlens.load(module, head=nn.Linear(2 * SMALL["embed_dim"], 7) if name == SPLIT else None)
    trace = lens.trace(torch.randn(2, 3, 32, 32))
    record = inspection(lens, [trace], 3, version=classlens.__version__)
    return record, [trace.picture(number) for number in range(2)]


@pytest.mark.parametrize("name", KINDS)
def test_the_record(name: str) -> None:
    sites, additive, query, _ = KINDS[name]
    record, _ = inspected(name)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["sites"] == sites
    assert record["model"]["query"] == query
    for image in record["images"]:
        assert list(image["tokens"]) == sites
        assert image["trajectory"] is not None
        assert list(image["explanations"]) == ["log_odds", "class_gradient"][not additive :]
        assert (image["attribution"] is not None) == (image["largest"] is not None) == additive
        if additive:
            parts = image["attribution"]
            total = parts["embed"] + sum(map(sum, parts["attention"])) + sum(parts["mlp"]) + parts["bias"]
            assert total == pytest.approx(parts["logit"], abs=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_the_figures(name: str, tmp_path: Path) -> None:
    record, pictures = inspected(name)
    kinds = ["evolution", "tokens", "explanation", *(["attribution"] if KINDS[name][1] else [])]
    expected = [f"01-{kind}.png" for kind in kinds]
    first = {**record, "images": record["images"][:1]}
    assert [path.name for path in save_figures(first, pictures[:1], tmp_path)] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)


@pytest.mark.parametrize("name", KINDS)
def test_the_terminal(name: str) -> None:
    record, _ = inspected(name)
    console = Console(width=140)
    with console.capture() as captured:
        for table in tables(record):
            console.print(table)
    assert ("MLP adds" in captured.get()) == KINDS[name][1]
    assert ("its logit is no sum of contributions" in " ".join(captured.get().split())) == (not KINDS[name][1])


@pytest.mark.browser
@pytest.mark.parametrize("name", KINDS)
def test_the_page(name: str, page: Page, tmp_path: Path) -> None:
    sites, additive, _, words = KINDS[name]
    record, pictures = inspected(name)
    write_report(record, pictures, tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert page.eval_on_selector_all("#site option", "all => all.map(o => o.value)") == sites
    if additive:
        page.check("#method input[value=class_gradient]")
    assert words in page.inner_text("#explanation-words")
    assert page.is_visible("#bars") == additive
    assert ("is no sum of contributions" in page.inner_text("#attribution-words")) == (not additive)
    page.locator("#image-choice button").nth(1).click()  # the second image is drawn as well
    assert page.inner_text("#seen-caption") == "image 1"
