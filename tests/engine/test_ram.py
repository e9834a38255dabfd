"""Amounts of RAM as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from classlens.engine.ram import format_ram, parse_ram
from tests.refusals import refused


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GB", 8_000_000_000),
        ("8 gb", 8_000_000_000),
        (" 500 MiB ", 500 * 1024**2),
        ("1.5kB", 1500),
        ("2kib", 2048),
        ("4GiB", 4 * 1024**3),
        ("1TB", 10**12),
        ("3MB", 3_000_000),
        ("12b", 12),
        ("12", 12),
        (1024, 1024),
    ],
)
def test_amounts(text: Any, count: int) -> None:
    assert parse_ram(text) == count


@pytest.mark.parametrize("text", ["", "much", "8G", "-1GB", "1,5GB", "GB", "8GB of it", True, None])
def test_anything_else_is_refused(text: Any) -> None:
    refused(lambda: parse_ram(text), repr(text), "8GB")


def test_amounts_in_messages() -> None:
    assert [format_ram(count) for count in (1_500_000_000, 12_000_000, 999_999_999, 10**9, 40)] == [
        "1.5 GB",
        "12.0 MB",
        "1000.0 MB",
        "1.0 GB",
        "0.0 MB",
    ]
