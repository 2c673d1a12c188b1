"""One file per published figure, each against a named rival in the same run."""

from fedpeft.bench.result import BENCHES, Result

__all__ = ["BENCHES", "Result"]
