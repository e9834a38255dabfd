"""The classes of data among those of a model: by wnid, by name, by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from timm.data import ImageNetInfo

from classlens.data.class_mapping import map_classes
from classlens.data.dataset import ClassName, Dataset, Files, dataset
from classlens.models.classes import Classes, make_classes
from tests.refusals import refused

INFO = ImageNetInfo("imagenet-1k")
IMAGENET = Classes(tuple(INFO.index_to_description(index) for index in range(1000)))


def data(kinds: Sequence[str | ClassName], labels: Sequence[int] | None = None) -> Dataset:
    classes = [kind if isinstance(kind, ClassName) else ClassName(kind) for kind in kinds]
    given = list(range(len(kinds))) if labels is None else list(labels)
    names = tuple(f"{number}.png" for number in range(len(given)))
    return dataset("folder:mine", None, names, given, classes, Files(Path(), names))


def matched(
    kinds: Sequence[str | ClassName], own: Classes | Sequence[str], labels: Sequence[int] | None = None
) -> list[int]:
    classes = own if isinstance(own, Classes) else Classes(tuple(own))
    found = map_classes(data(kinds, labels), classes, model_name="mymodel")
    assert found.dtype == np.int64
    return [int(index) for index in found]


def test_no_labels() -> None:
    assert matched([], ["ant", "bee"], [-1, -1]) == [-1, -1]
    assert matched(["zebra"], ["ant", "bee"], [-1, -1]) == [-1, -1]


def test_by_name() -> None:
    own = ["emu", "tabby, tabby cat", "crane, bird", "Egyptian cat"]
    assert matched(["Egyptian_cat", "TABBY CAT", "emu"], own) == [3, 1, 0]
    assert matched(["crane, hoist", "emu"], own) == [2, 0]  # the first synonym, when the whole is not there
    assert matched(["tabby, tabby cat", "emu"], own, [1, 0, -1, 1]) == [0, 1, -1, 0]


def test_only_classes_that_occur_are_asked_for() -> None:
    assert matched(["zebra", "ant"], ["ant", "bee"], [1, -1, 1]) == [0, -1, 0]


def test_one_that_is_not_there_is_one_too_many() -> None:
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


def test_two_classes_of_the_data_are_never_one_of_the_model() -> None:
    refused(lambda: matched(["tabby", "tabby cat"], ["tabby, tabby cat", "emu"]), "'tabby cat'")
    refused(lambda: matched(["1", "01"], ["ant", "bee"]), "'01'")


def test_a_name_of_two_classes_of_the_model() -> None:
    refused(lambda: matched(["maillot", "emu"], ["maillot", "emu", "maillot"]), "'maillot'")


def test_by_number() -> None:
    assert matched(["2", "0", "10"], [f"kind {number}" for number in range(11)]) == [2, 0, 10]
    assert matched(["0000", "0002"], ["ant", "bee", "cow"]) == [0, 2]
    refused(lambda: matched(["0", "3"], ["ant", "bee", "cow"]), "'3'")


def test_by_place_where_the_model_has_no_names() -> None:
    unnamed = make_classes(3, None)
    assert matched(["ant", "bee", "cow"], unnamed, [2, 2, 0]) == [2, 2, 0]
    refused(lambda: matched(["ant", "bee"], unnamed), "'class 0'")
    refused(lambda: matched(["ant", "bee", "cow"], ["x", "y", "z"]), "'x'")


# ImageNet


def wnids(indices: Sequence[int], name: str = "?") -> list[ClassName]:
    return [ClassName(f"{name} {index}", INFO.index_to_label_name(index)) for index in indices]


def test_by_wnid() -> None:
    assert matched(wnids([281, 0, 999, 134, 517]), IMAGENET) == [281, 0, 999, 134, 517]
    folders = [ClassName(INFO.index_to_label_name(index), INFO.index_to_label_name(index)) for index in (7, 3)]
    assert matched(folders, IMAGENET) == [7, 3]


def test_a_model_of_as_many_classes_without_names_is_taken_for_imagenets() -> None:
    assert matched(wnids([5, 2]), make_classes(1000, None)) == [5, 2]


def test_libraries_differ_in_some_names() -> None:
    others = [name.upper().replace(" ", "_").partition(",")[0] for name in IMAGENET.names]
    others[:150] = ["another name"] * 150
    assert matched(wnids([5, 2]), others) == [5, 2]
    others[:300] = ["another name"] * 300
    refused(lambda: matched(wnids([5, 2]), others), f"'? 2' ({INFO.index_to_label_name(2)})")


@pytest.mark.parametrize("count", [10, 999, 1001])
def test_wnids_are_nothing_to_another_model(count: int) -> None:
    refused(lambda: matched(wnids([0, 1]), make_classes(count, None)), INFO.index_to_label_name(0))


def test_a_wnid_that_imagenet_does_not_have() -> None:
    refused(lambda: matched([*wnids([0]), ClassName("hound", "n99999999")], IMAGENET), "n99999999")


def test_a_name_where_not_all_have_a_wnid() -> None:
    kinds: list[str | ClassName] = [ClassName("goldfish", INFO.index_to_label_name(1)), "tench"]
    assert matched(kinds, IMAGENET) == [1, 0]


def test_cifars_names() -> None:
    own = ["apple", "aquarium fish", "lawn-mower", "pickup_truck"]
    assert matched(["aquarium_fish", "apple", "pickup_truck"], own) == [1, 0, 3]
