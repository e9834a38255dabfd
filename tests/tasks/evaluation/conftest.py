"""One evaluation that many tests look at."""

from __future__ import annotations

import pytest

from classlens import Lens, evaluate
from tests.data.pictures import folder
from tests.tasks.evaluation.runs import IMAGES, SETTINGS, Evaluation, tiny_lens


@pytest.fixture(scope="session")
def lens() -> Lens:
    return tiny_lens()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", IMAGES)


@pytest.fixture(scope="session")
def complete(lens: Lens, data: str, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    out = tmp_path_factory.mktemp("evaluation") / "complete"
    return Evaluation(out, evaluate(lens, data, out, **SETTINGS))
