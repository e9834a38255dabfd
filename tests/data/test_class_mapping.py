"""Classes of data matched to those of a model: by wnid, name or number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from timm.data import ImageNetInfo

from classlens.data.class_mapping import map_classes
from classlens.data.dataset import ClassName, Dataset, ImageFiles
from classlens.models import class_spelling
from classlens.models.classes import Classes, make_classes
from tests.refusals import refused

INFO = ImageNetInfo("imagenet-1k")
IMAGENET = Classes(tuple(INFO.index_to_description(index) for index in range(1000)))


def data(data_classes: Sequence[str | ClassName], labels: Sequence[int] | None = None) -> Dataset:
    classes = [kind if isinstance(kind, ClassName) else ClassName(kind) for kind in data_classes]
    image_labels = list(range(len(data_classes))) if labels is None else list(labels)
    names = tuple(f"{number}.png" for number in range(len(image_labels)))
    return Dataset.whole("folder:mine", None, names, image_labels, classes, ImageFiles(Path(), names))


def matched(
    data_classes: Sequence[str | ClassName], model_classes: Classes | Sequence[str], labels: Sequence[int] | None = None
) -> list[int]:
    classes = model_classes if isinstance(model_classes, Classes) else Classes(tuple(model_classes))
    indices = map_classes(data(data_classes, labels), classes, model_name="mymodel")
    assert indices.dtype == np.int64
    return [int(index) for index in indices]


def test_no_labels() -> None:
    assert matched([], ["ant", "bee"], [-1, -1]) == [-1, -1]
    assert matched(["zebra"], ["ant", "bee"], [-1, -1]) == [-1, -1]


def test_by_name() -> None:
    model_classes = ["emu", "tabby, tabby cat", "crane, bird", "Egyptian cat"]
    assert matched(["Egyptian_cat", "TABBY CAT", "emu"], model_classes) == [3, 1, 0]
    assert matched(["crane, hoist", "emu"], model_classes) == [2, 0]  # the first synonym, as the whole name is missing
    assert matched(["tabby, tabby cat", "emu"], model_classes, [1, 0, -1, 1]) == [0, 1, -1, 0]


def test_only_classes_with_images_are_matched() -> None:
    assert matched(["zebra", "ant"], ["ant", "bee"], [1, -1, 1]) == [0, -1, 0]


def test_a_single_unmatched_class_is_an_error() -> None:
    message = refused(
        lambda: matched(
            ["ant", "bee", "cow", "doe", "emu", "fox", "zebra"], ["ant", "bee", "cow", "doe", "emu", "fox"]
        ),
        "'folder:mine'",
        "'mymodel'",
        "'emu' …, the model",
        "--classes",
    )
    assert "fox" not in message


def test_two_classes_of_the_data_never_share_one_of_the_model() -> None:
    refused(lambda: matched(["tabby", "tabby cat"], ["tabby, tabby cat", "emu"]), "'tabby cat'")
    refused(lambda: matched(["1", "01"], ["ant", "bee"]), "'01'")


def test_a_name_of_two_classes_of_the_model() -> None:
    refused(lambda: matched(["maillot", "emu"], ["maillot", "emu", "maillot"]), "'maillot'")


def test_by_number() -> None:
    assert matched(["2", "0", "10"], [f"kind {number}" for number in range(11)]) == [2, 0, 10]
    assert matched(["0000", "0002"], ["ant", "bee", "cow"]) == [0, 2]
    refused(lambda: matched(["0", "3"], ["ant", "bee", "cow"]), "'3'")


def test_numbers_that_are_names_of_classes() -> None:
    """Folders 1 to 5 for classes "1" to "10" are the first five classes."""
    numbers = [str(number) for number in range(1, 11)]
    assert matched(numbers[:5], numbers) == [0, 1, 2, 3, 4]
    assert matched(["3", "1"], ["3", "0", "1"]) == [0, 2]
    refused(lambda: matched(["1", "0"], ["1", "2", "3"]), "'0'")  # 1 is a name, 0 would be an index


def test_by_index_for_a_model_without_class_names(caplog: pytest.LogCaptureFixture) -> None:
    unnamed = make_classes(3, None)
    assert matched(["ant", "bee", "cow"], unnamed, [2, 2, 0]) == [2, 2, 0]
    assert "in the order of data 'folder:mine', from 'ant' to 'cow'" in caplog.text
    refused(lambda: matched(["ant", "bee"], unnamed), "'class 0'")
    refused(lambda: matched(["ant", "bee", "cow"], ["x", "y", "z"]), "'x'")


# ImageNet


def wnids(indices: Sequence[int], name: str = "?") -> list[ClassName]:
    return [ClassName(f"{name} {index}", INFO.index_to_label_name(index)) for index in indices]


def test_by_wnid() -> None:
    assert matched(wnids([281, 0, 999, 134, 517]), IMAGENET) == [281, 0, 999, 134, 517]
    folders = [ClassName(INFO.index_to_label_name(index), INFO.index_to_label_name(index)) for index in (7, 3)]
    assert matched(folders, IMAGENET) == [7, 3]


def test_names_alone_read_nothing_of_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_spelling, "_imagenet", None)
    assert matched(["bee", "ant"], ["ant", "bee"]) == [1, 0]


def test_wnids_beside_names_for_a_model_of_some_of_the_classes() -> None:
    mixed = [ClassName("Bengal"), *wnids([0, 491], "folder")]  # 'tench, Tinca tinca' and 'chain saw, chainsaw'
    assert matched(mixed, ["chainsaw", "tench", "bengal"], [0, 1, 2]) == [2, 1, 0]
    refused(lambda: matched(mixed, ["chain", "tench", "Bengal"]), "'chain'")


def test_a_model_of_1000_unnamed_classes_is_taken_for_imagenet() -> None:
    assert matched(wnids([5, 2]), make_classes(1000, None)) == [5, 2]


def test_libraries_spell_a_few_names_differently() -> None:
    others = [name.upper().replace(" ", "_").partition(",")[0] for name in IMAGENET.names]
    others[:150] = ["another name"] * 150
    assert matched(wnids([5, 2]), others) == [5, 2]
    others[:300] = ["another name"] * 300
    refused(lambda: matched(wnids([5, 2]), others), f"'? 2' ({INFO.index_to_label_name(2)})")


@pytest.mark.parametrize("count", [10, 999, 1001])
def test_wnids_do_not_match_other_models(count: int) -> None:
    refused(lambda: matched(wnids([0, 1]), make_classes(count, None)), INFO.index_to_label_name(0))


def test_a_wnid_outside_imagenet() -> None:
    refused(lambda: matched([*wnids([0]), ClassName("hound", "n99999999")], IMAGENET), "n99999999")


def test_by_name_where_a_class_has_no_wnid() -> None:
    data_classes: list[str | ClassName] = [ClassName("goldfish", INFO.index_to_label_name(1)), "tench"]
    assert matched(data_classes, IMAGENET) == [1, 0]


def test_cifars_names() -> None:
    model_classes = ["apple", "aquarium fish", "lawn-mower", "pickup_truck"]
    assert matched(["aquarium_fish", "apple", "pickup_truck"], model_classes) == [1, 0, 3]
