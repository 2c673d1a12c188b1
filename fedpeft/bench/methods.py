"""What every PEFT method costs and reaches, each trained, saved, reloaded and federated here; what a switch costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import compose_error
from fedpeft.base import load_base
from fedpeft.bench.result import Result
from fedpeft.bench.switch import measure_switch
from fedpeft.compare import Comparison
from fedpeft.compare.run import compare
from fedpeft.federation.folder import cores
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.scenario import Scenario, load_scenario, parse_scenario

FULL = ("simulations/compare-keyboard.toml", "simulations/compare-intents.toml")
_FIELDS = ("trainable", "share", "adapter_bytes", "step_ms", "peak_mb", "quality", "attainment", "algebra", "federates")
_SCORED = 96


def run(full: bool) -> Result:
    """Compare all methods.

    Parameters
    ----------
    full : bool
        The published comparisons, from the scenarios in ``simulations/``; otherwise the builtin base with few short
        steps: the costs are the methods' own, the qualities mean little.

    Returns
    -------
    Result
        ``methods`` holds the rows of the keyboard, ``intents`` those of the classifier where there is one, and
        ``failed`` what is no row and why. ``switch_us`` is the time to another person's adapter on a live model,
        ``compose_error`` the relative error of two adapters joined into one.
    """
    if full:
        keyboard, intents = (compare(load_scenario(path)) for path in FULL)
        figures: dict[str, Any] = {"methods": rows(keyboard), "intents": rows(intents)}
    else:
        keyboard = compare(_quick(), sizes=[1.0], scored=_SCORED, profilers=cores())
        figures = {"methods": rows(keyboard)}
    figures["failed"] = {failure.method: f"{failure.stage}: {failure.reason}" for failure in keyboard.failures}
    switch = measure_switch()
    figures |= {"switch_us": switch["switch_us"], "compose_error": _compose_error(), "base": keyboard.base}
    rival = {
        "name": "peft",
        "switch_us": switch["peft_set_adapter_us"],
        "set_adapter_us": switch["peft_set_adapter_us"],
        "hotswap_us": switch["peft_hotswap_us"],
    }
    return Result(figures, rival)


def rows(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return each row's figures by method."""
    return {row.method: row.model_dump(mode="json", include=set(_FIELDS)) for row in comparison.rows}


def _quick() -> Scenario:
    return parse_scenario(
        {
            "name": "methods",
            "base": {"name": "keyboard", "dtype": "float32"},
            "data": {"clients": 4, "window": 16, "max_windows": 64},
            "method": {"name": "lora"},
            "training": {"steps": 6, "batch": 4},
            "federation": {"rounds": 2, "cohort": 4, "panel": 0, "panel_windows": 16, "weighting": "uniform"},
            "channel": {"name": "plain"},
            "personalization": {"people": 0},
            "samples": {"prompts": [], "people": 0},
        }
    )


def _compose_error() -> float:
    """Return the error of joining two people's LoRAs of rank 8 on the builtin base, against the exact sum."""
    attached = Attached(load_base("keyboard", "float32"), Lora(), None, seed=0)
    rng = np.random.default_rng(0)
    one = attached.adapter(SHARED, attached.read(SHARED))
    people: list[Adapter] = [
        replace(one, vector=rng.normal(0.0, 0.05, one.vector.shape).astype(np.float32)) for _ in range(2)
    ]
    return compose_error(people, [0.6, 0.4])
