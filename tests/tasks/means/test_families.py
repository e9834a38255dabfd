"""In the models of every library: the mean over one image is the image's own activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import classlens
from classlens import AblateHeads, AblateNeurons, AblateSublayer, Edit, Means
from classlens.data.loading import Batch
from classlens.models.digest import weights_digest
from classlens.tasks.means.task import SUMS, MeansMeasurer
from tests import zoo
from tests.forward.models import IMPLEMENTATIONS, pixels_of, view_of


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_ablation_to_one_s_own_mean_changes_nothing(name: str) -> None:
    lens = classlens.load(view_of(name).module)
    view, x = lens.view, pixels_of(lens.view, 1)
    before = zoo.snapshot(view.module)
    batch = Batch(
        range(1), x.numpy(), np.zeros((1, 1), dtype=np.int8), {}, np.zeros(1, dtype=np.int64), np.zeros((1, 4))
    )
    ((group, sums),) = MeansMeasurer(view, None).measure(batch, (SUMS,))
    assert group == SUMS
    values = {key: torch.from_numpy(array) for key, array in sums.items()}
    means = Means(view.name, weights_digest(view), "one", 1, view.tokens(view.input_size), values)
    edits: list[Edit] = [AblateHeads("all", to=means), AblateHeads([1], blocks=1, to=means)]
    edits += [AblateNeurons([5, 0], blocks=1, to=means), AblateNeurons("all", to=means)]
    edits += [AblateNeurons("all", sublayer="attn", to=means)]
    shown = {point for point, place in view.blocks[0].points.items() if place.editable}
    edits += [AblateSublayer(sublayer, to=means) for sublayer in ("attn", "mlp") if f"{sublayer}_out" in shown]
    with torch.no_grad():
        plain = view.run(x)
        for edit in edits:
            with lens.edit(edit):
                torch.testing.assert_close(view.run(x), plain, rtol=0, atol=1e-10)
        other = view.run(x.flip(-1))
        for edit in edits:
            with lens.edit(edit):
                assert float((view.run(x.flip(-1)) - other).abs().max()) > 1e-6, edit
    assert zoo.snapshot(view.module) == before
