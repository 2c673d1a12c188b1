"""One small real comparison, and one made by hand with numbers that are easy to check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpeft.compare import Comparison, Reference, Row, Score
from fedpeft.compare.row import Shape
from fedpeft.compare.run import compare
from fedpeft.scenario import Scenario, parse_scenario

SHAPE = {
    "parameters": 3_541_248,
    "linear": 3_014_656,
    "layers": 4,
    "hidden": 256,
    "feed_forward": 640,
    "heads": 4,
    "vocabulary": 2048,
    "batch": 8,
    "length": 32,
    "predictions": 200,
}


def tiny(**method: Any) -> Scenario:
    """Return a scenario that compares in seconds."""
    return parse_scenario(
        {
            "name": "tiny",
            "base": {"name": "keyboard", "dtype": "float32"},
            "data": {"clients": 3, "window": 16, "max_windows": 32},
            "method": method or {"name": "ia3"},
            "training": {"steps": 4, "batch": 4},
            "federation": {"rounds": 2, "cohort": 3, "panel": 0, "panel_windows": 16, "weighting": "uniform"},
            "channel": {"name": "plain"},
        }
    )


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def piece(self, name: str, done: int, total: int) -> None:
        assert done <= total
        self.pieces.append(name)

    def changed(self, comparison: Comparison) -> None:
        assert comparison.rows or comparison.failures


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the small comparison is kept in."""
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="session")
def comparison(out: Path) -> Comparison:
    """Return ia3, bitfit and full fine-tuning really compared, and a lora that cannot be attached."""
    broken = tiny(name="lora", targets=["no_such_layer"])
    return compare(broken, ["lora", "ia3", "bitfit"], [0.5, 1.0], out=out, scored=24)


def row(method: str, quality: float, up: int, **changes: Any) -> Row:
    """Return a row made by hand."""
    fewer = changes.pop("few", quality - 0.01)
    score = Score(examples=960, quality=quality, loss=4 - 2 * quality, perplexity=20.0)
    few = Score(examples=96, quality=fewer, loss=4 - 2 * fewer, perplexity=22.0)
    values: dict[str, Any] = {
        "method": method,
        "settings": {},
        "algebra": "linear",
        "rate": 1e-3,
        "trainable": up // 2,
        "share": up / 2 / SHAPE["parameters"],
        "adapter_bytes": 2 * up,
        "bytes_up": up,
        "bytes_down": up,
        "step_ms": 50.0,
        "infer_ms": 5.0,
        "peak_mb": 60.0,
        "base_mb": 14.2,
        "quality": quality,
        "loss": 3.0,
        "perplexity": 20.0,
        "attainment": None,
        "gain_share": None,
        "loss_share": None,
        "sizes": {"0.1": few, "1.0": score},
        "reload_error": 0.0,
        "federates": True,
        "federated": {"before": 4.0, "after": 3.9},
    }
    return Row(**{**values, **changes})


@pytest.fixture
def by_hand() -> Callable[..., Comparison]:
    """Return a function that makes a comparison from rows: the base scores 40 %, full fine-tuning 50 %."""

    def make(rows: list[Row], task: str = "next_word", base: str = "keyboard") -> Comparison:
        start = Score(examples=0, quality=0.40, loss=3.2, perplexity=33.0)
        whole = next((r for r in rows if r.method == "full"), None)
        placed = []
        for each in rows:
            sizes = {k: s.against(start, whole.sizes[k] if whole else None) for k, s in each.sizes.items()}
            last = sizes["1.0"]
            placed.append(
                each.model_copy(
                    update={
                        "sizes": sizes,
                        "attainment": last.attainment,
                        "gain_share": last.gain_share,
                        "loss_share": last.loss_share,
                    },
                )
            )
        return Comparison(
            name="by-hand",
            scenario={"data": {"federation": "keyboard"}},
            task=task,
            metric="top3" if task == "next_word" else "top1",
            base=base,
            seed=0,
            steps=100,
            batch=8,
            clients=4,
            train_examples=960,
            test_examples=100,
            test_predictions=1000,
            shape=Shape(**SHAPE),
            reference=Reference(
                what="the frozen base",
                parameters=SHAPE["parameters"],
                trainable=0,
                infer_ms=4.0,
                peak_mb=5.0,
                sizes={"0.1": start, "1.0": start},
            ),
            rows=placed,
        )

    return make
