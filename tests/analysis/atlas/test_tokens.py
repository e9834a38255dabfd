"""The strongest tokens of each class, by sorting all of them."""

from __future__ import annotations

import numpy as np

from tests.analysis.atlas.conftest import CLASSES, Case


def test_the_strongest_token_of_an_image_stands_for_it(case: Case) -> None:
    logit = case.clean("logit")[:, 3, -1]  # resid_post of the last block
    table = case.atlas["class_tokens"]
    for category in range(CLASSES):
        best = []
        for image in case.images:
            if int(case.clean("target")[image]) == category:
                tokens = [(-float(logit[image, token]), image, token) for token in range(1, 5)]
                best.append(min(tokens))
        rows = table[table["category"] == category]
        assert rows["top"].tolist() == list(range(min(9, len(best))))
        wanted = sorted(best)[:9]
        assert rows["image_index"].tolist() == [image for _, image, _ in wanted]
        assert rows["image"].tolist() == [f"{image:04}.png" for _, image, _ in wanted]
        assert rows["token"].tolist() == [token for _, _, token in wanted]
        assert rows["row"].tolist() == [(token - 1) // 2 for _, _, token in wanted]
        assert rows["column"].tolist() == [(token - 1) % 2 for _, _, token in wanted]
        np.testing.assert_array_equal(rows["logit"], [-value for value, _, _ in wanted])
    unlabeled = [image for image in case.images if case.clean("label")[image] < 0]
    assert len(unlabeled) == 3
