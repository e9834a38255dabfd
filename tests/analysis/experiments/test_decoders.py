"""What could be read out beside what the class embedding reads: one image, block and token at a time."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classlens.analysis.analyze import analyze
from classlens.analysis.registry import EXPERIMENTS
from classlens.render.figures.charts import draw
from classlens.tasks.tokens.conditions import READINGS
from tests.analysis.literal import QUICK, assert_is_twin, made_table, place, places, split_into_shards
from tests.analysis.stores import Made, write_store

NAME = "decoders"
SITES = ("attn_out", "mlp_out", "resid_post")


def blank(made: Made, seed: int, gone: list[tuple[int | slice, ...]]) -> np.ndarray:
    """Ranks of which some are not there: by image, site, block and token."""
    shape = (made.images, len(made.sites), made.blocks, made.axes.tokens)
    rank = np.random.default_rng(seed).integers(0, made.classes, shape).astype(np.int16)
    for where in gone:
        rank[where] = -1
    return rank


def literal(
    made: Made, ranks: np.ndarray, image: int, site: str, block: int, tokens: str, measure: str
) -> float | None:
    """Over the tokens that are read; None where there is none."""
    found = []
    for token in places(made, tokens):
        rank = int(ranks[image, place(made, site), block, token])
        if rank >= 0:
            found.append(float(rank == 0) if measure == "share_on_top" else 1 - rank / made.classes)
    return sum(found) / len(found) if found else None


@pytest.mark.parametrize("prefix", [("cls",), (), ("cls", "reg0")])
def test_values(tmp_path: Path, prefix: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    conditions = ("clean", "random_init", *READINGS)
    made = Made(images=70, prefix=prefix, conditions=conditions)
    every = slice(None)
    gone: dict[str, list[tuple[int | slice, ...]]] = {
        # Pooled probes read no prefix token, others some sites or blocks alone.
        "probe_pooled": [(every, every, every, slice(0, len(prefix)))],
        "probe": [(every, place(made, "mlp_out"), every, every), (every, place(made, "attn_out"), 1, slice(0, 3))],
        "probe_logistic": [(5, every, every, every), (every, every, 2, every)],
        "tuned": [],
    }
    facts = {name: {"rank": blank(made, number, gone[name])} for number, name in enumerate(READINGS)}
    made = Made(images=70, prefix=prefix, conditions=conditions, facts=facts)
    table, written = made_table(tmp_path, made, NAME)

    def twin(image: int, block: int, condition: str, site: str, tokens: str, measure: str) -> float | None:
        return literal(made, written[condition]["rank"], image, site, block, tokens, measure)

    assert_is_twin(table, made, NAME, twin)
    assert set(table["condition"]) == {"clean", *READINGS}
    assert set(table["site"]) == set(SITES)
    keys = list(EXPERIMENTS[NAME].keys)
    for row in table.to_dict("records"):
        where = {key: row[key] for key in keys}
        chance = 1 / made.classes if row["measure"] == "share_on_top" else np.nan
        assert row["chance"] == pytest.approx(chance, nan_ok=True)
        if row["condition"] == "clean":
            assert np.isnan([row["change"], row["p"]]).all()
            continue
        changes = []
        for image in range(made.images):
            own = twin(image, block=row["block"], **where)
            if own is not None:
                other = twin(image, block=row["block"], **{**where, "condition": "clean"})
                assert other is not None
                changes.append(own - other)
        assert len(changes) == row["images"]
        assert row["change"] == pytest.approx(np.mean(changes), abs=1e-12)
        assert row["change_low"] <= row["change"] <= row["change_high"]
        assert 0 < row["p"] <= 1
    # What nothing reads has no row.
    there = set(table[["condition", "site", "block", "tokens"]].itertuples(index=False, name=None))
    for condition, site, block, tokens in product(READINGS, SITES, range(made.blocks), set(table["tokens"])):
        values = [twin(image, block, condition, site, tokens, "share_on_top") for image in range(made.images)]
        assert ((condition, site, block, tokens) in there) == any(value is not None for value in values)


def test_the_p_of_a_change(tmp_path: Path) -> None:
    made = Made(images=8, conditions=("clean", "probe"), sites=("resid_post",), memories=False)
    table, written = made_table(tmp_path, made, NAME)
    for row in table.query("condition == 'probe' and tokens == 'image'").to_dict("records"):
        changes = []
        for image in range(8):
            own, other = (
                literal(made, written[name]["rank"], image, row["site"], row["block"], "image", row["measure"])
                for name in ("probe", "clean")
            )
            assert own is not None
            assert other is not None
            changes.append(own - other)
        signs = product((-1, 1), repeat=8)
        exact = np.mean([abs(np.dot(sign, changes)) >= abs(sum(changes)) - 1e-9 for sign in signs])
        # 100 permutations: four standard deviations of their share, and the one that is always added.
        assert row["p"] == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 100) + 0.01)


def test_a_probe_of_images_that_are_not_measured_yet(tmp_path: Path) -> None:
    made = Made(images=10, conditions=("clean", "probe"), measured={"probe": [1] * 6 + [0] * 4, "clean": [1] * 9 + [2]})
    table, written = made_table(tmp_path, made, NAME)
    assert set(table.query("condition == 'probe'")["images"]) == {6}
    assert set(table.query("condition == 'clean'")["images"]) == {9}
    row = table.query("condition == 'probe' and site == 'mlp_out' and tokens == 'cls' and block == 1").iloc[0]
    assert row["measure"] == "share_on_top"
    hits = [literal(made, written["probe"]["rank"], image, "mlp_out", 1, "cls", "share_on_top") for image in range(6)]
    assert row["value"] == pytest.approx(np.mean(np.array(hits, dtype=float)))


def test_what_is_lacking_is_told(tmp_path: Path) -> None:
    write_store(tmp_path / "none.zarr", Made())
    write_store(
        tmp_path / "some.zarr",
        Made(model="some", conditions=("clean", "tuned_lens"), sites=("mlp_out", "resid_post"), prefix=(), memories=False),
    )
    found = analyze([tmp_path / "none.zarr", tmp_path / "some.zarr"], experiments=[NAME], statistics=QUICK)
    anew = "measure anew with --sites that name it, or without --sites"
    add = "neither condition tuned nor probe nor probe_pooled nor probe_logistic was measured: add --conditions "
    assert [tuple(one) for one in found.missing] == [
        ("synthetic", NAME, True, add + "tuned,probe,probe_pooled,probe_logistic"),
        ("some", NAME, False, f"site attn_out was not measured: {anew}"),
        ("some", NAME, False, "the model has no [CLS] token"),
    ]
    table = found.tables[NAME]
    assert set(table["site"]) == {"mlp_out", "resid_post"}
    assert set(table["tokens"]) == {"image"}


def test_its_figures(tmp_path: Path) -> None:
    """A row of panels for each site, a line for each way of reading, at the values of the table."""
    made = Made(conditions=("clean", *READINGS), images=20)
    table, _ = made_table(tmp_path, made, NAME)
    names = []
    *shares, both = EXPERIMENTS[NAME].charts
    for chart in shares:
        figure = draw(chart, table, "title")
        assert figure is not None
        names.append(chart.suffix)
        shown = [axes for axes in figure.axes if axes.get_visible()]
        assert len(shown) == len(SITES)
        for site, axes in zip(SITES, shown, strict=True):
            lines = [list(line.get_ydata()) for line in axes.get_lines()]  # type: ignore[arg-type]
            for condition in ("clean", *READINGS):
                where = {"site": site, "condition": condition, "tokens": chart.suffix, "measure": "share_on_top"}
                own = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
                assert len(own) == made.blocks
                assert own["value"].tolist() in lines
    assert names == ["image", "cls"]
    figure = draw(both, table, "title")
    assert figure is not None
    for tokens, axes in zip(("cls", "image"), figure.axes, strict=True):
        lines = [list(line.get_ydata()) for line in axes.get_lines()]  # type: ignore[arg-type]
        for condition in ("clean", *READINGS):
            where = {"site": "resid_post", "condition": condition, "tokens": tokens, "measure": "identifiability"}
            own = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
            assert own["value"].tolist() in lines
    alone, _ = made_table(tmp_path / "alone", Made(conditions=("clean", "probe"), prefix=()), NAME)
    assert draw(EXPERIMENTS[NAME].charts[0], alone, "title") is not None
    assert draw(EXPERIMENTS[NAME].charts[1], alone, "title") is None
