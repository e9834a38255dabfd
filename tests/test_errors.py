"""The error of classlens, the hint for near names, and an import that stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import classlens
from classlens.errors import ClasslensError, suggestion


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("catt", ["dog", "cat"], "; did you mean 'cat'?"),
        ("CAT", ["dog", "Cat"], "; did you mean 'Cat'?"),
        ("zebra", ["dog", "cat"], ""),
        ("", ["dog", "cat"], ""),
        ("cat", [], ""),
        ("attn_ou", ["embed", "attn_out"], "; did you mean 'attn_out'?"),
    ],
)
def test_near_names(name: str, known: list[str], hint: str) -> None:
    assert suggestion(name, known) == hint


def test_the_nearest_name_comes_first_and_few_are_named() -> None:
    known = ["resid_mid", "resid_pre", "resid_post", "resid_posts", "embed"]
    hint = suggestion("resid_post", known)
    assert hint.startswith("; did you mean 'resid_post' or 'resid_posts' or ")
    assert hint.count(" or ") == 2
    assert suggestion("resid_post", known, count=1) == "; did you mean 'resid_post'?"


def test_names_may_come_from_any_iterable() -> None:
    assert suggestion("catt", (word for word in ("cat", "dog"))) == "; did you mean 'cat'?"


def test_one_error_that_programs_can_catch() -> None:
    assert classlens.ClasslensError is ClasslensError
    assert issubclass(ClasslensError, ValueError)
    assert str(ClasslensError("a sentence")) == "a sentence"


def test_public_names() -> None:
    assert set(classlens.__all__) <= set(dir(classlens))
    for name in classlens.__all__:
        assert getattr(classlens, name) is not None
    with pytest.raises(AttributeError, match="'classlens' has no attribute 'loads'"):
        classlens.loads  # noqa: B018


PROGRAM = """
import sys
import classlens

heavy = {"torch", "timm", "torchvision", "matplotlib", "xarray", "numpy", "rich", "typer", "ray", "transformers"}
assert classlens.__version__
assert issubclass(classlens.ClasslensError, ValueError)
early = heavy & set(sys.modules)
assert not early, early
assert callable(classlens.load)
assert "torch" in sys.modules
late = {"matplotlib", "ray", "transformers"} & set(sys.modules)
assert not late, late
"""


def test_the_import_is_light_until_something_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
