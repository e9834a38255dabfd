from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import xarray as xr

import classlens
from classlens import Trajectory
from classlens.text import visible
from tests import literal, zoo
from tests.render.browser import quiet
from tests.render.notebook.hosts import HOSTILE, elements, show, texts, titles

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def chart(html: str) -> str:
    """The part above the tables of xarray."""
    return html.partition("<div><svg")[0]


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    return trace.trajectory(zoo.targets(), 3)


def test_numbers_are_those_of_the_model_alone(trajectory: Trajectory) -> None:
    model, pixels = zoo.build("cls"), zoo.pixels("cls")
    states = literal.states(model, pixels)
    shown = titles(chart(trajectory._repr_html_()))
    expected = []
    for image, target in enumerate(zoo.targets().tolist()):
        parts: list[list[str]] = [[], [], []]
        for depth, state in enumerate((*states["embed"], *states["resid_post"])):
            with torch.no_grad():
                shares = model.head(model.norm(state[image, 0])).softmax(dim=0).numpy()
            step = "the embeddings" if depth == 0 else f"block {depth - 1}"
            for index in np.argsort(-shares)[:3]:
                parts[0].append(f"{step}: class {index} {percent(shares[index])}")
            parts[0].append(f"{step}: the rest")
            parts[1].append(f"{step}: class {target} {percent(shares[target])}")
            parts[2].append(f"{step}: entropy {-(shares * np.log(shares)).sum():.2f} nats")
        expected += [each for part in parts for each in part]
    assert [re.sub(r"class_?(\d+)", r"class \1", text) for text in shown] == expected


def percent(share: float) -> str:
    if share < 0.001:
        return "<0.1%"
    if share > 0.999:
        return ">99.9%"
    return f"{round(100 * share, 1):g}%" if share < 0.1 else f"{100 * share:.0f}%"


def test_bars_are_as_high_as_their_probabilities(trajectory: Trajectory) -> None:
    svg = next(elements(chart(trajectory._repr_html_())).iter("svg"))
    bars = [rect for rect in svg.iter("rect") if rect.find("title") is not None and float(rect.get("width", 0)) > 10]
    shares = np.exp((trajectory["top_logit"] - trajectory["logsumexp"]).values[0])
    heights = np.array([float(rect.get("height", 0)) for rect in bars]).reshape(4, 4)
    whole = heights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(heights[:, :3] / whole, shares, atol=2e-3)
    assert np.ptp(whole) < 0.05


def plain_of(dataset: xr.Dataset) -> xr.Dataset:
    return xr.Dataset(dataset.data_vars, dataset.coords, dataset.attrs)


def test_it_is_a_dataset(trajectory: Trajectory, tmp_path: Path) -> None:
    """Everything that people do with a Dataset works, and nothing is added to its arrays."""
    plain = plain_of(trajectory)
    assert isinstance(trajectory, xr.Dataset)
    assert {*dir(trajectory)} - {*dir(plain)} == {"_renderer"}
    for one, other in (
        (trajectory.sel(depth=slice(1, 2)), plain.sel(depth=slice(1, 2))),
        (trajectory.isel(image=[2, 0]), plain.isel(image=[2, 0])),
        (trajectory[["entropy", "logit"]] * 2 - 1, plain[["entropy", "logit"]] * 2 - 1),
        (trajectory[["entropy"]].mean("image"), plain[["entropy"]].mean("image")),
        (trajectory.where(trajectory["rank"] == 0), plain.where(plain["rank"] == 0)),
        (trajectory.assign(extra=1).drop_vars("extra"), plain),
        (trajectory.rename(depth="step"), plain.rename(depth="step")),
        (xr.concat([trajectory, trajectory], "image"), xr.concat([plain, plain], "image")),
        (xr.merge([trajectory[["entropy"]], trajectory[["logit"]]]), plain[["entropy", "logit"]]),
        (trajectory.groupby("target").first(), plain.groupby("target").first()),
        (pickle.loads(pickle.dumps(trajectory)), plain),
        (copy.deepcopy(trajectory), plain),
    ):
        assert isinstance(one, xr.Dataset)
        xr.testing.assert_identical(plain_of(one), other)
        assert isinstance(one._repr_html_(), str)
    trajectory.to_netcdf(tmp_path / "trajectory.nc", engine="scipy")
    xr.testing.assert_allclose(xr.open_dataset(tmp_path / "trajectory.nc", engine="scipy").load(), plain)
    table = plain.to_dataframe()
    assert trajectory.to_dataframe()[table.columns].equals(table)


def test_charts_show_decisions_alone(trajectory: Trajectory) -> None:
    assert len(list(elements(chart(trajectory._repr_html_())).iter("svg"))) == 3
    assert len(list(elements(chart(trajectory.isel(image=[1])._repr_html_())).iter("svg"))) == 1
    assert len(list(elements(chart(trajectory.isel(depth=slice(2, 4))._repr_html_())).iter("svg"))) == 3
    for other in (
        trajectory.isel(image=0),
        trajectory.drop_vars("logsumexp"),
        trajectory.mean("image"),
        trajectory + 1,
        trajectory.isel(image=slice(0)),
    ):
        assert "The decision after each block" not in other._repr_html_()
        assert "xr-wrap" in other._repr_html_()


def test_more_images_than_have_a_chart() -> None:
    trajectory = classlens.load("builtin:cifar10").trace(torch.rand(11, 3, 32, 32)).trajectory()
    html = chart(trajectory._repr_html_())
    assert len(list(elements(html).iter("svg"))) == 8
    assert "The first 8 of 11 images have a chart." in texts(html)
    assert len(html) < 400_000


def test_a_prediction_of_no_group_has_no_probability() -> None:
    trace = classlens.load("builtin:cifar10").trace(torch.zeros(1, 3, 32, 32))
    html = chart(trace.trajectory(groups={"cat": "animal", "ship": "vehicle", "dog": "animal"})._repr_html_())
    assert trace.predictions.class_name.item() == "airplane"
    assert "nan" not in html
    assert "probability of" not in texts(html)
    assert "animal" in texts(html)


def test_hostile_names_stay_names() -> None:
    names = [f"{HOSTILE[number % 4]} {number}" for number in range(zoo.CLASSES)]
    trace = classlens.load(zoo.build("cls", torch.float32), class_names=names).trace(
        zoo.pixels("cls", 2, torch.float32)
    )
    trace.names = list(HOSTILE[:2])
    trajectory = trace.trajectory(1, 2)
    html = chart(trajectory._repr_html_())
    shown = "".join(elements(html).itertext())
    assert visible(HOSTILE[1]) in shown
    for name in trajectory.class_name.values.ravel():
        assert visible(name) in shown
    assert all(char.isprintable() for char in html)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_shown_in_a_notebook(width: int, trajectory: Trajectory, browser: Browser, tmp_path: Path) -> None:
    with quiet(browser, viewport={"width": width, "height": 900}) as page:
        show(page, tmp_path, chart(trajectory._repr_html_()))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for svg in page.locator("#cell svg").all():
            assert svg.is_visible()
        assert page.locator("#cell svg").count() == 3
        assert page.locator("#cell svg text", has_text="emb.").count() == 3
        # Letters name the classes: color is not needed.
        letters = page.locator("#cell svg").first.locator("text").all_text_contents()
        assert {letter for letter in letters if letter in "ABCDEFGH"}
