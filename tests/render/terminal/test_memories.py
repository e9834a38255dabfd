"""`classlens memories` as it is typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from classlens.cli import app


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["memories", "builtin:cifar10", *args], env={"COLUMNS": "120"})


def test_a_memory_in_both_ways() -> None:
    record = json.loads(run("--block", "3", "--sublayer", "attn", "--unit", "4", "--top", "2", "--json").stdout)
    assert (record["block"], record["sublayer"], record["unit"]) == (3, "attn", 4)
    first, second = record["rows"]
    assert first["score"] > second["score"]
    shown = run("--block", "3", "--sublayer", "attn", "--unit", "4", "--top", "2").stdout
    for row in record["rows"]:
        assert row["class_name"] in shown
        assert f"{row['score']:.3f}" in shown


def test_the_last_block_and_a_class() -> None:
    last = json.loads(run("--class", "ship", "--json").stdout)
    assert last["block"] == 5
    assert {row["class_name"] for row in last["rows"]} == {"ship"}
    assert json.loads(run("--class", "8", "--block", "5", "--json").stdout) == last
    assert "its top class" in run("--class", "ship").stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--unit", "1", "--class", "cat"), "were both given"),
        (("--block", "6"), "a whole number from 0 to 5"),
        (("--block", "-7"), "block -7 cannot be used"),
        (("--unit", "512"), "a whole number from 0 to 511 in mlp"),
        (("--class", "catt"), "did you mean 'cat'"),
        (("--sublayer", "ffn"), "sublayer 'ffn' is not known"),
    ],
)
@pytest.mark.wrong_types
def test_mistakes(args: tuple[str, ...], says: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert says in result.stderr
