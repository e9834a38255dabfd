"""Edited passes over the server: the numbers of Python, kept by plan; whatever is wrong is one sentence."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")

from starlette.testclient import TestClient
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.explore.app import create_app
from classlens.explore.explorer import Explorer
from classlens.explore.pages import edits
from classlens.explore.pages.photo import photo_page, stored_photo
from classlens.explore.security import Access
from classlens.lens.means_file import write_means
from tests.explore.edited import MODEL, make_explorer, photo_bytes
from tests.forward.edits.random_means import random_means

PATH = "/api/s0/photos/1/edit"
HEADS = {"edit": "AblateHeads", "heads": [1, 3], "blocks": [4]}


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    return make_explorer(tmp_path_factory.mktemp("edits"))


@pytest.fixture(scope="module")
def client(explorer: Explorer) -> Iterator[TestClient]:
    with TestClient(create_app(explorer, Access({"testserver"}))) as client:
        yield client


def edited(client: TestClient, plan: dict[str, Any], path: str = PATH) -> dict[str, Any]:
    answer = client.post(path, json=plan)
    assert answer.status_code == 200, answer.text
    answered: dict[str, Any] = answer.json()
    return answered


def test_numbers_are_those_of_python_and_of_the_copied_code(client: TestClient, explorer: Explorer) -> None:
    lens, plan = explorer.lens, {"edits": [HEADS, {"edit": "KeepTokens", "mask": [*range(60)]}], "target": 3}
    assert lens is not None
    answer = edited(client, plan)
    picture = explorer.store(0).picture(1)
    original = lens.trace(picture)
    with lens.edit(classlens.AblateHeads([1, 3], blocks=[4]), classlens.KeepTokens(np.arange(65) < 60)):
        trace = lens.trace(picture)
        shown = trace.map(3).values[0]
    for row in answer["record"]["classes"]:
        index = row["index"]
        assert row["original"]["logit"] == pytest.approx(float(original.model_logits[0, index]), abs=1e-6)
        assert row["edited"]["logit"] == pytest.approx(float(trace.model_logits[0, index]), abs=1e-6)
    answered = np.array(answer["record"]["map"]["edited"], dtype=float)
    np.testing.assert_allclose(answered[:7], shown[:7], rtol=0, atol=1e-6)
    assert np.isnan(answered[7, 3:]).all()
    scope: dict[str, Any] = {}
    exec(compile("\n".join(answer["python"]), "copied.py", "exec"), scope)
    for row in answer["record"]["classes"]:
        assert float(scope["edited"].model_logits[0, row["index"]]) == pytest.approx(row["edited"]["logit"], abs=1e-6)
    assert answer["command"].startswith("classlens inspect '")


def test_patch_comes_from_a_photo_of_the_store_or_a_dropped_one(
    client: TestClient, explorer: Explorer, tmp_path: Path
) -> None:
    lens = explorer.lens
    assert lens is not None
    patch = {"edit": "Patch", "site": "resid_post", "blocks": [2], "tokens": "image"}
    dropped = explorer.uploads.add("other.png", photo_bytes(tmp_path / "other.png", 8))
    sources: list[tuple[dict[str, Any], Any]] = [
        ({"photo": 2}, explorer.store(0).picture(2)),
        ({"dropped": dropped}, str(tmp_path / "other.png")),
    ]
    for source, photo in sources:
        record = edited(client, {"edits": [patch], "source": source})["record"]
        with lens.edit(classlens.Patch("resid_post", lens.trace(photo).pixels, blocks=[2], tokens="image")):
            logits = lens.trace(explorer.store(0).picture(1)).model_logits.values[0]
        for row in record["classes"]:
            assert row["edited"]["logit"] == pytest.approx(logits[row["index"]], abs=1e-6)


def test_dropped_photo_is_edited(client: TestClient, explorer: Explorer, tmp_path: Path) -> None:
    content = photo_bytes(tmp_path / "mine.png", 5)
    identifier = client.post(
        "/api/photos?name=mine.png", content=content, headers={"content-type": "application/octet-stream"}
    ).json()["id"]
    answer = edited(client, {"edits": [{"edit": "NoCls"}]}, f"/api/photos/{identifier}/edit")
    assert explorer.lens is not None
    with explorer.lens.edit(classlens.NoCls()):
        logits = explorer.lens.trace(str(tmp_path / "mine.png")).model_logits.values[0]
    assert answer["record"]["classes"][0]["edited"]["logit"] == pytest.approx(
        logits[answer["record"]["target"]["index"]], abs=1e-6
    )
    assert 'lens.trace("mine.png")' in "\n".join(answer["python"])


def test_same_plan_runs_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    compute = edits.edited_pass

    def counting(*args: Any) -> Any:
        runs.append(args[3].key)
        return compute(*args)

    monkeypatch.setattr(edits, "edited_pass", counting)
    for heads in ([0, 2], [2, 0], [0, 2]):
        edited(client, {"edits": [{"edit": "AblateHeads", "heads": heads, "blocks": 5}]})
    edited(client, {"edits": [{"edit": "AblateHeads", "heads": [0], "blocks": 5}]})
    assert len(runs) == 2


def test_means_are_put_in_where_they_are_given(client: TestClient, explorer: Explorer) -> None:
    plan = {"edits": [{"edit": "AblateSublayer", "sublayer": "mlp", "blocks": [3], "to": "means"}]}
    assert "none were given" in client.post(PATH, json=plan).json()["error"]
    assert explorer.lens is not None
    explorer.means = random_means(explorer.lens.view)
    try:
        record = edited(client, plan)["record"]
        with explorer.lens.edit(classlens.AblateSublayer("mlp", blocks=[3], to=explorer.means)):
            logits = explorer.lens.trace(explorer.store(0).picture(1)).model_logits.values[0]
        for row in record["classes"]:
            assert row["edited"]["logit"] == pytest.approx(logits[row["index"]], abs=1e-5)
    finally:
        explorer.means = None


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("{", 400, "no JSON"),
        ("[]", 400, "the edits [] cannot be used"),
        ('{"edits": [], "edits": []}', 400, "key 'edits' was given twice"),
        ('{"edits": [{"edit": "NoCls", "renormalize": NaN}]}', 400, "number NaN"),
        ('{"edits": [{"edit": "KeepTokens", "mask": [1]}]}', 400, "keep [CLS]"),
        ('{"edits": [{"edit": "AblateHeads", "heads": [4]}]}', 400, "head 4 does not exist"),
        ('{"edits": [{"edit": "Patch", "site": "heads"}], "source": {"photo": 0}}', 400, "heads= goes with"),
        ('{"edits": [{"edit": "Patch", "site": "mlp_out"}], "source": {"photo": 7}}', 404, "no measured image 7"),
        ('{"edits": [{"edit": "Patch", "site": "mlp_out"}], "source": {"dropped": "x"}}', 404, "no longer kept"),
        ('{"edits": [], "target": 10}', 400, "class 10 is not one of"),
        (" " * 70_000, 413, "larger than"),
    ],
)
def test_what_is_wrong_is_one_sentence(text: str, status: int, message: str, client: TestClient) -> None:
    # A failed plan is no result that is kept: the second answer is as the first.
    for _ in range(2):
        answer = client.post(PATH, content=text, headers={"content-type": "application/json"})
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert message in answer.json()["error"]


def test_other_requests_are_refused(client: TestClient) -> None:
    assert client.post(PATH, content="{}").status_code == 400
    assert client.get(PATH).status_code == 405
    assert client.post("/api/s0/photos/9/edit", json={"edits": []}).status_code == 404
    assert client.post("/api/photos/none/edit", json={"edits": []}).status_code == 404


def test_static_page_offers_no_edits(explorer: Explorer) -> None:
    explorer.live = False
    try:
        text = photo_page(explorer, stored_photo(explorer, 0, 1))
    finally:
        explorer.live = True
    setting = re.search(r'id="edit-setting">(.*?)</script>', text)
    assert setting is not None
    assert json.loads(setting[1])["address"] is None


@pytest.mark.parametrize(
    ("means", "message"), [("none.safetensors", "none.safetensors"), ("other.safetensors", "with other weights")]
)
def test_means_that_do_not_fit_are_refused_before_the_server_starts(
    means: str, message: str, explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert explorer.lens is not None
    other = dataclasses.replace(random_means(explorer.lens.view), weights="others")
    write_means(other, tmp_path / "other.safetensors", {})
    result = CliRunner().invoke(app, ["explore", "--model", MODEL, "--edit-means", means])
    assert result.exit_code == 2
    assert message in result.stderr


def test_addresses_are_described(client: TestClient) -> None:
    paths = json.loads(client.get("/api/openapi.json").text)["paths"]
    assert set(paths["/api/s{store}/photos/{index}/edit"]) == {"post"}
    assert set(paths["/api/photos/{identifier}/edit"]) == {"post"}
