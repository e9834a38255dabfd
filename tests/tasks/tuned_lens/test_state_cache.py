"""The tokens after every block: held in ram, or made anew each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classlens import Lens
from classlens.data.open_dataset import open_dataset
from classlens.engine.model_source import ModelSource
from classlens.engine.session import RunOptions, Session
from classlens.tasks.tuned_lens.state_cache import TrainingStates
from tests.data.pictures import folder
from tests.refusals import refused
from tests.tasks.tiny import DATA_CLASSES, lens_of, states_of

BLOCKS, TOKENS, WIDTH, IMAGES = 3, 5, 24, 11
NEED = IMAGES * BLOCKS * TOKENS * WIDTH * 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", IMAGES, DATA_CLASSES)


def states(lens: Lens, data: str, ram: int, *, pooled_only: bool = False, skip_bad: bool = False) -> TrainingStates:
    options = RunOptions(batch_size=4, workers=0, skip_bad=skip_bad)
    session = Session(ModelSource(lens, {}), open_dataset(data), options, labeled=False)
    return TrainingStates(session, ram, pooled_only=pooled_only)


def put_together(found: TrainingStates, order: list[int]) -> Tensor:
    parts = [torch.stack(blocks) for blocks in found.batches(np.array(order))]
    assert all(part.shape[1] <= 4 for part in parts)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(("ram", "fit"), [(NEED, True), (NEED - 1, False)])
def test_they_are_the_model_s_in_the_order_asked_for(data: str, ram: int, fit: bool) -> None:
    lens = lens_of()
    found = states(lens, data, ram)
    assert found.fits == fit
    literal = torch.stack(states_of(lens, data)["resid_post"])
    passes = []
    hook = lens.view.module.register_forward_hook(lambda *args: passes.append(len(args[1][0])))
    for order in ([3, 0, 10, 7, 1, 2], [9, 8], list(range(IMAGES))):
        # Images in other batches: float64 sums in another order.
        torch.testing.assert_close(put_together(found, order), literal[:, order], rtol=0, atol=1e-11)
    hook.remove()
    assert passes == ([4, 4, 3] if fit else [4, 2, 2, 4, 4, 3]), "kept, the model runs once"


def test_prefix_tokens_alone(data: str) -> None:
    lens = lens_of("cls_registers")
    literal = torch.stack(states_of(lens, data)["resid_post"])
    found = put_together(states(lens, data, 10**9, pooled_only=True), [5, 2])
    torch.testing.assert_close(found, literal[:, [5, 2], :3], rtol=0, atol=1e-11)
    # A head that pools image tokens needs them all.
    lens = lens_of("avg_includes_prefix")
    found = put_together(states(lens, data, 10**9, pooled_only=True), [5, 2])
    assert found.shape[2] == 6


@pytest.mark.parametrize("ram", [10**9, 1])
def test_images_that_cannot_be_read(data: str, tmp_path: Path, ram: int) -> None:
    spec = folder(tmp_path / "images", IMAGES, DATA_CLASSES)
    bad = tmp_path / "images" / "cat" / "0003.png"
    bad.write_bytes(b"no image")
    lens = lens_of()
    literal = torch.stack(states_of(lens, data)["resid_post"])
    refused(lambda: put_together(states(lens, spec, ram), [1, 0]), str(bad), "--skip-bad")
    gone = list(open_dataset(spec).names).index("cat/0003.png")
    order = [6, gone, 0, 2, 5]
    found = put_together(states(lens, spec, ram, skip_bad=True), order)
    torch.testing.assert_close(found, literal[:, [6, 0, 2, 5]], rtol=0, atol=1e-11)
    if ram == 1:
        assert put_together(states(lens, spec, ram, skip_bad=True), [0, gone]).shape[1] == 1


def test_logits_that_are_not_finite(data: str) -> None:
    lens = lens_of()
    module: Any = lens.view.module
    with torch.no_grad():
        module.head.bias[0] = float("nan")
    refused(lambda: put_together(states(lens, data, 10**9), [0]), "not finite")


def test_half_precision_is_held_in_float32(data: str) -> None:
    lens = lens_of("cls", torch.bfloat16)
    found = put_together(states(lens, data, 10**9), [0, 1])
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found, found.bfloat16().float())
