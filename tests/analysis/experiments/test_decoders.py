"""Other decoders beside the class embedding: one image, block and token at a time."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classlens.analysis.analyze import analyze
from classlens.analysis.registry import EXPERIMENTS
from classlens.render.figures.charts import draw
from classlens.tasks.tokens.conditions.registry import decoder_conditions
from tests.analysis.literal import QUICK, assert_is_twin, positions, site_index, split_into_shards, table_and_contents
from tests.analysis.stores import StoreSpec, write_store

NAME = "decoders"
SITES = ("attn_out", "mlp_out", "resid_post")


def blank(spec: StoreSpec, seed: int, gone: list[tuple[int | slice, ...]]) -> np.ndarray:
    """Random ranks, -1 at the indices ``gone`` (image, site, block, token)."""
    shape = (spec.images, len(spec.sites), spec.blocks, spec.axes.tokens)
    rank = np.random.default_rng(seed).integers(0, spec.classes, shape).astype(np.int16)
    for where in gone:
        rank[where] = -1
    return rank


def literal(
    spec: StoreSpec, ranks: np.ndarray, image: int, site: str, block: int, tokens: str, measure: str
) -> float | None:
    """Mean over the tokens that are decoded; None where none is."""
    values = []
    for token in positions(spec, tokens):
        rank = int(ranks[image, site_index(spec, site), block, token])
        if rank >= 0:
            values.append(float(rank == 0) if measure == "share_on_top" else 1 - rank / spec.classes)
    return sum(values) / len(values) if values else None


@pytest.mark.parametrize("prefix", [(), ("cls", "reg0")])
def test_values(tmp_path: Path, prefix: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    conditions = ("clean", "random_init", *decoder_conditions())
    spec = StoreSpec(images=70, prefix=prefix, conditions=conditions)
    every = slice(None)
    gone: dict[str, list[tuple[int | slice, ...]]] = {
        # Pooled probes decode no prefix token, others some sites or blocks alone.
        "probe_pooled": [(every, every, every, slice(0, len(prefix)))],
        "probe": [
            (every, site_index(spec, "mlp_out"), every, every),
            (every, site_index(spec, "attn_out"), 1, slice(0, 3)),
        ],
        "probe_logistic": [(5, every, every, every), (every, every, 2, every)],
        "tuned_lens": [],
    }
    facts = {name: {"rank": blank(spec, number, gone[name])} for number, name in enumerate(decoder_conditions())}
    spec = StoreSpec(images=70, prefix=prefix, conditions=conditions, facts=facts)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: int, condition: str, site: str, tokens: str, measure: str) -> float | None:
        return literal(spec, written[condition]["rank"], image, site, block, tokens, measure)

    assert_is_twin(table, spec, NAME, twin)
    assert set(table["condition"]) == {"clean", *decoder_conditions()}
    assert set(table["site"]) == set(SITES)
    keys = list(EXPERIMENTS[NAME].keys)
    for row in table.to_dict("records"):
        where = {key: row[key] for key in keys}
        chance = 1 / spec.classes if row["measure"] == "share_on_top" else np.nan
        assert row["chance"] == pytest.approx(chance, nan_ok=True)
        if row["condition"] == "clean":
            assert np.isnan([row["change"], row["p"]]).all()
            continue
        changes = []
        for image in range(spec.images):
            decoded = twin(image, block=row["block"], **where)
            if decoded is not None:
                plain = twin(image, block=row["block"], **{**where, "condition": "clean"})
                assert plain is not None
                changes.append(decoded - plain)
        assert len(changes) == row["images"]
        assert row["change"] == pytest.approx(np.mean(changes), abs=1e-12)
        assert row["change_low"] <= row["change"] <= row["change_high"]
        assert 0 < row["p"] <= 1
    # A site and block that is not decoded has no row.
    rows = set(table[["condition", "site", "block", "tokens"]].itertuples(index=False, name=None))
    for condition, site, block, tokens in product(
        decoder_conditions(), SITES, range(spec.blocks), set(table["tokens"])
    ):
        values = [twin(image, block, condition, site, tokens, "share_on_top") for image in range(spec.images)]
        assert ((condition, site, block, tokens) in rows) == any(value is not None for value in values)


def test_the_p_of_a_change(tmp_path: Path) -> None:
    spec = StoreSpec(images=8, conditions=("clean", "probe"), sites=("resid_post",), memories=False)
    table, written = table_and_contents(tmp_path, spec, NAME)
    for row in table.query("condition == 'probe' and tokens == 'image'").to_dict("records"):
        changes = []
        for image in range(8):
            decoded, plain = (
                literal(spec, written[name]["rank"], image, row["site"], row["block"], "image", row["measure"])
                for name in ("probe", "clean")
            )
            assert decoded is not None
            assert plain is not None
            changes.append(decoded - plain)
        signs = product((-1, 1), repeat=8)
        exact = np.mean([abs(np.dot(sign, changes)) >= abs(sum(changes)) - 1e-9 for sign in signs])
        # 100 permutations: four standard deviations of their share, and the one that is always added.
        assert row["p"] == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 100) + 0.01)


def test_a_probe_of_images_that_are_not_measured_yet(tmp_path: Path) -> None:
    spec = StoreSpec(
        images=10, conditions=("clean", "probe"), measured={"probe": [1] * 6 + [0] * 4, "clean": [1] * 9 + [2]}
    )
    table, written = table_and_contents(tmp_path, spec, NAME)
    assert set(table.query("condition == 'probe'")["images"]) == {6}
    assert set(table.query("condition == 'clean'")["images"]) == {9}
    row = table.query("condition == 'probe' and site == 'mlp_out' and tokens == 'cls' and block == 1").iloc[0]
    assert row["measure"] == "share_on_top"
    hits = [literal(spec, written["probe"]["rank"], image, "mlp_out", 1, "cls", "share_on_top") for image in range(6)]
    assert row["value"] == pytest.approx(np.mean(np.array(hits, dtype=float)))


def test_what_is_lacking_is_told(tmp_path: Path) -> None:
    write_store(tmp_path / "none.zarr", StoreSpec())
    write_store(
        tmp_path / "some.zarr",
        StoreSpec(
            model="some", conditions=("clean", "tuned_lens"), sites=("mlp_out", "resid_post"), prefix=(), memories=False
        ),
    )
    result = analyze([tmp_path / "none.zarr", tmp_path / "some.zarr"], experiments=[NAME], statistics=QUICK)
    anew = "measure anew with --sites that name it, or without --sites"
    add = "neither condition tuned_lens nor probe nor probe_pooled nor probe_logistic was measured: add --conditions "
    assert [tuple(missing) for missing in result.missing] == [
        ("synthetic", NAME, True, add + "tuned_lens,probe,probe_pooled,probe_logistic"),
        ("some", NAME, False, f"site attn_out was not measured: {anew}"),
        ("some", NAME, False, "the model has no [CLS] token"),
    ]
    table = result.tables[NAME]
    assert set(table["site"]) == {"mlp_out", "resid_post"}
    assert set(table["tokens"]) == {"image"}


def test_its_figures(tmp_path: Path) -> None:
    """A row of panels for each site, a line for each decoder, at the values of the table."""
    spec = StoreSpec(conditions=("clean", *decoder_conditions()), images=20)
    table, _ = table_and_contents(tmp_path, spec, NAME)
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
            for condition in ("clean", *decoder_conditions()):
                where = {"site": site, "condition": condition, "tokens": chart.suffix, "measure": "share_on_top"}
                rows = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
                assert len(rows) == spec.blocks
                assert rows["value"].tolist() in lines
    assert names == ["image", "cls"]
    figure = draw(both, table, "title")
    assert figure is not None
    for tokens, axes in zip(("cls", "image"), figure.axes, strict=True):
        lines = [list(line.get_ydata()) for line in axes.get_lines()]  # type: ignore[arg-type]
        for condition in ("clean", *decoder_conditions()):
            where = {"site": "resid_post", "condition": condition, "tokens": tokens, "measure": "identifiability"}
            rows = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
            assert rows["value"].tolist() in lines
    alone, _ = table_and_contents(tmp_path / "alone", StoreSpec(conditions=("clean", "probe"), prefix=()), NAME)
    assert draw(EXPERIMENTS[NAME].charts[0], alone, "title") is not None
    assert draw(EXPERIMENTS[NAME].charts[1], alone, "title") is None
