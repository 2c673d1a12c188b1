"""What an exported base is to be: how its graph takes adapters, which kinds of them, and how its weights are held."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from fedpeft.device.manifest import Precision, Variant
from fedpeft.errors import ScenarioError, nearest

_KINDS = {
    "lora": r"\.lora_[AB]\.weight$",
    "scale": r"\.(?:in|out)_scale$",
    "bias": r"\.bias_delta$",
    "serial_relu": r"\.serial\.relu\.\w+$",
    "serial_gelu": r"\.serial\.gelu\.\w+$",
    "serial_silu": r"\.serial\.silu\.\w+$",
    "parallel_relu": r"\.parallel\.relu\.\w+$",
    "parallel_gelu": r"\.parallel\.gelu\.\w+$",
    "parallel_silu": r"\.parallel\.silu\.\w+$",
    "prompt": r"^soft_prompt$",
}
"""Kinds of sites, by what the names of their inputs match."""

ALL_SITES = tuple(_KINDS)

Backend = Literal["native", "torch"]

Pooling = Literal["mean", "model"]

BASE_PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "int4", "dynamic-int8")


@dataclass(frozen=True)
class ExportOptions:
    """How a base is exported.

    Parameters
    ----------
    variant : {"optional", "required", "rows"}
        Sites have neutral defaults; have none and must be fed, as onnxruntime in a browser wants it; have a dimension
        in front, so that each row of a batch has an adapter of its own.
    precision : {"float32", "int8", "int4", "dynamic-int8"}
        Of the base's matrices. Adapters, and what is computed with them, stay float32.
    sites : iterable of str
        Kinds of sites: those of :data:`ALL_SITES`, ``bottleneck`` for all of the bottlenecks', ``all`` for everything.
    backend : {"native", "torch"}, optional
        Who makes the graph: written by hand for the architectures that are known, or traced by torch for any. When not
        given, native where it can be.
    pooling : {"mean", "model"}
        What a classifier's head reads; as in the scenario that it was trained by.

    Raises
    ------
    ScenarioError
        For an unknown value.
    """

    variant: Variant = "optional"
    precision: Precision = "float32"
    sites: frozenset[str] = frozenset({"lora"})
    backend: Backend | None = None
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        for field, value, known in (
            ("variant", self.variant, get_args(Variant)),
            ("precision", self.precision, BASE_PRECISIONS),
            ("backend", self.backend, (None, *get_args(Backend))),
            ("pooling", self.pooling, get_args(Pooling)),
        ):
            if value not in known:
                raise ScenarioError(
                    f"export.{field}",
                    value,
                    " or ".join(filter(None, known)),
                    nearest(str(value), list(filter(None, known))),
                )
        object.__setattr__(self, "sites", spelt_out(self.sites))


def spelt_out(kinds: Iterable[str]) -> frozenset[str]:
    """Return kinds of sites with ``all`` and ``bottleneck`` spelt out.

    Raises
    ------
    ScenarioError
        For an unknown kind.
    """
    groups = {"all": ALL_SITES, "bottleneck": tuple(k for k in _KINDS if k.startswith(("serial", "parallel")))}
    found: set[str] = set()
    for kind in kinds:
        if kind not in groups and kind not in _KINDS:
            known = [*_KINDS, *groups]
            raise ScenarioError("export.sites", kind, "kinds of sites", nearest(kind, known))
        found.update(groups.get(kind, (kind,)))
    return frozenset(found)


def site_kind(name: str) -> str | None:
    """Return the kind of a site by the name of its input, or None when it is of none."""
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, name)), None)


def module_at(site: str) -> str:
    """Return the module that a site belongs to, by the name of its input."""
    return re.sub(r"\.(?:lora_[AB]\.weight|in_scale|out_scale|bias_delta)$", "", site)
