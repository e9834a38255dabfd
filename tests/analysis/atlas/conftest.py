"""One atlas for all tests of its tables: of a store with images of every kind, read a shard at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from classlens.analysis.atlas import stored
from classlens.analysis.atlas.atlas import Atlas, atlas
from classlens.core.arrays import Array
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec, Values

IMAGES, CLASSES = 150, 6


@dataclass(frozen=True)
class Case:
    """An atlas, the arrays of its store by group, and the indices of its images."""

    atlas: Atlas
    written: dict[str, Values]
    images: list[int]

    def clean(self, name: str) -> Array:
        return self.written["clean"][name]

    def of(self, category: int, group: str) -> list[int]:
        """Images with a label, in words: all of them, those that are right, and those that are wrong."""
        label, prediction = self.clean("label"), self.clean("prediction")
        chosen = []
        for image in self.images:
            right = label[image] == prediction[image]
            if label[image] == category and (group == "all" or right == (group == "right")):
                chosen.append(image)
        return chosen


def drawn_spec() -> AtlasSpec:
    """Six classes, the last one without images; unlabeled, skipped and pending images; few wrong ones of class 4."""
    rng = np.random.default_rng(7)
    label = rng.integers(0, 5, IMAGES)
    prediction = np.where(rng.random(IMAGES) < 0.5, label, rng.integers(0, 5, IMAGES))
    prediction[label == 4] = 4
    prediction[np.flatnonzero(label == 4)[3]] = 0  # one confusion, too few to be tipped
    label[[5, 70, 71]] = -1
    confused = [image for image in np.flatnonzero((label == 1) & (prediction != 1)) if image not in (3, 8, 140)]
    pairs, left = divmod(len(confused), 2)
    prediction[confused] = [3, 0] * pairs + [1] * left  # two confusions that are as frequent
    clean, attribution = [1] * IMAGES, [1] * IMAGES
    clean[3], attribution[3] = 2, 2
    attribution[8], attribution[140] = 0, 0
    facts: dict[str, Array] = {
        "label": label.astype(np.int16),
        "prediction": prediction.astype(np.int16),
        "target": np.where(label < 0, prediction, label).astype(np.int16),
        "correct": np.where(label < 0, -1, label == prediction).astype(np.int8),
    }
    units = list(attribution)
    units[12] = 0
    return AtlasSpec(
        clean=StoreSpec(
            images=IMAGES,
            classes=CLASSES,
            conditions=("clean",),
            memories=False,
            facts={"clean": facts},
            measured={"clean": clean},
        ),
        measured={"attribution": attribution, "units": units},
    )


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp("atlas") / "drawn.zarr"
    written = write_atlas_store(path, drawn_spec())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "_MAX_VALUES", 1)
        drawn = atlas(path)
    return Case(drawn, written, [image for image in range(IMAGES) if image not in (3, 8, 140)])
