"""Amounts of bytes as people write them."""

from __future__ import annotations

import pytest

from fedpeft.errors import FedpeftError
from fedpeft.training.amounts import amount


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("2GB", 2_000_000_000), ("500 kB", 500_000), ("1.5MiB", 1_572_864), ("64000", 64_000), ("8kb", 8000)],
)
def test_units_are_decimal_unless_they_say_otherwise(text: str, bytes_: int) -> None:
    assert amount(text, "--memory") == bytes_


@pytest.mark.parametrize("text", ["", "GB", "-1kB", "2 parsecs", "0", "1e3", "0.1b"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(FedpeftError, match="--memory: found"):
        amount(text, "--memory")
