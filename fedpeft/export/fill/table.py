"""Which family fills the sites of an adapter, by what its configuration says.

peft's methods are known by their ``peft_type``, our own by the class of their settings. What reads its input to decide
what it does has no place in a graph that all adapters share, and is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import numpy as np

from fedpeft.adapters import Adapter
from fedpeft.errors import AdapterError
from fedpeft.export.encoder_head import Head, joined
from fedpeft.export.fill.bottlenecks import fill_bottlenecks, fill_compacter
from fedpeft.export.fill.filling import Filling
from fedpeft.export.fill.ground import Ground, as_adapter
from fedpeft.export.fill.low_rank import fill_lora, require_plain
from fedpeft.export.fill.prompts import fill_prefix, fill_prompt
from fedpeft.export.fill.vectors import fill_biases, fill_ia3
from fedpeft.export.fill.vera import fill_vera
from fedpeft.export.options import module_at
from fedpeft.methods.adalora import AdaLora
from fedpeft.methods.adapter_fusion import AdapterFusion
from fedpeft.methods.attachment import OWN_TYPE
from fedpeft.methods.bitfit import BitFit
from fedpeft.methods.compacter import Compacter
from fedpeft.methods.diff_pruning import DiffPruning
from fedpeft.methods.expert_mixture import ExpertMixture
from fedpeft.methods.fed_sb import FedSb
from fedpeft.methods.full import Full
from fedpeft.methods.houlsby import Houlsby
from fedpeft.methods.hybrid import Hybrid
from fedpeft.methods.method import Method, parse_method
from fedpeft.methods.p_tuning import PTuning
from fedpeft.methods.parallel_adapter import ParallelAdapter
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.prefix_tuning import PrefixTuning
from fedpeft.methods.shared_lora import SharedLora
from fedpeft.methods.unipelt import UniPelt

_FILLERS: Mapping[str, Callable[[Adapter, Ground | None], Filling]] = {
    "LORA": fill_lora,
    "IA3": fill_ia3,
    "PROMPT_TUNING": fill_prompt,
    "P_TUNING": fill_prompt,
    "PREFIX_TUNING": fill_prefix,
    "VERA": fill_vera,
}
"""By peft's type. A P-tuning that peft saved holds the prompt itself."""

_WITHOUT_SITE: Mapping[type[Method], str] = {
    AdapterFusion: "it attends over several adapters, for every token anew",
    DiffPruning: "its change is a whole matrix",
    ExpertMixture: "its router chooses experts by what they read",
    Full: "its change is the whole base",
    UniPelt: "its gates depend on what they read",
}


def fill(adapter: Adapter, ground: Ground | None = None) -> Filling:
    """Return what an adapter puts into its base's graph.

    Parameters
    ----------
    adapter : Adapter
    ground : Ground, optional
        Its base; plain LoRA, IA3, biases, bottlenecks and prompts do without.

    Raises
    ------
    AdapterError
        When its method has no site, its numbers are not finite, or do not make sense.
    """
    require_fillable(adapter.config)
    if not np.isfinite(adapter.vector).all():
        raise AdapterError("adapter", "NaN or infinity", "finite tensors")
    if not adapter.schema.shapes:
        raise AdapterError("adapter tensors", "none", "at least one")
    if ground is not None and ground.base.head:
        return _with_head(adapter, ground)
    if adapter.config.get("modules_to_save"):
        found = list(adapter.config["modules_to_save"])
        raise AdapterError("adapter modules_to_save", found, "none on a base that is no classifier")
    filling = _filled(adapter, ground)
    return filling if ground is None or ground.base.labels is None else _read(filling, ground)


def _with_head(adapter: Adapter, ground: Ground) -> Filling:
    """Fill the sites of a classifier's method, and its head besides."""
    head = Head.of(ground.base)
    mine, others = head.divide(adapter.tensors())
    config = {**adapter.config, "modules_to_save": None}
    # The method alone, without its head, is what its frozen tensors belong to.
    rest = _filled(as_adapter(others, config, adapter.base, adapter.schema.context), ground)
    return _read(Filling(joined(rest.inputs, head.inputs(mine)), rest.past), ground)


def _read(filling: Filling, ground: Ground) -> Filling:
    """Leave out what is given to modules that nothing reads: it has no place, and never had an effect."""
    kept = {site: value for site, value in filling.inputs.items() if module_at(site) not in ground.unread}
    return Filling(kept, filling.past)


def _filled(adapter: Adapter, ground: Ground | None) -> Filling:
    kind = adapter.config.get("peft_type")
    if kind == OWN_TYPE:
        return _own(method_of(adapter.config), adapter, ground)
    return _FILLERS[str(kind)](adapter, ground)


def require_fillable(config: Mapping[str, Any]) -> None:
    """Refuse methods that no shared graph has a place for.

    Raises
    ------
    AdapterError
        With the reason.
    """
    kind = config.get("peft_type")
    if kind == OWN_TYPE:
        method = method_of(config)
        for without, reason in _WITHOUT_SITE.items():
            if isinstance(method, without):
                remedy = "export it merged" if method.mergeable else "it runs with torch only"
                raise AdapterError(
                    "adapter method", method.name, "a method with a place in the graph", f"{reason}; {remedy}"
                )
    elif kind not in _FILLERS:
        raise AdapterError("adapter type", kind, ", ".join(_FILLERS), "this method has no place in the graph")
    elif kind == "LORA":
        require_plain(config)


def method_of(config: Mapping[str, Any]) -> Method:
    """Return the method that a configuration of our own describes.

    Raises
    ------
    AdapterError
        When it describes none.
    """
    settings = config.get("method")
    if not isinstance(settings, dict):
        raise AdapterError("adapter method", settings, "a table of settings")
    return parse_method(settings)


@singledispatch
def _own(method: Method, adapter: Adapter, _ground: Ground | None) -> Filling:
    raise AdapterError("adapter method", method.name, "a method with a place in the graph")


@_own.register
def _(method: BitFit, adapter: Adapter, _ground: Ground | None) -> Filling:
    return fill_biases(adapter)


@_own.register(Houlsby)
@_own.register(Pfeiffer)
def _(method: Houlsby | Pfeiffer, adapter: Adapter, _ground: Ground | None) -> Filling:
    return fill_bottlenecks(adapter, "serial", method.activation, 1.0)


@_own.register
def _(method: ParallelAdapter, adapter: Adapter, _ground: Ground | None) -> Filling:
    return fill_bottlenecks(adapter, "parallel", method.activation, method.scale)


@_own.register
def _(method: Compacter, adapter: Adapter, _ground: Ground | None) -> Filling:
    return fill_compacter(adapter, method.activation)


@_own.register(AdaLora)
@_own.register(FedSb)
@_own.register(SharedLora)
@_own.register(PTuning)
@_own.register(PrefixTuning)
def _(method: Method, adapter: Adapter, ground: Ground | None) -> Filling:
    return fill(_require_ground(method, ground).folded(method, adapter), ground)


@_own.register
def _(method: Hybrid, adapter: Adapter, ground: Ground | None) -> Filling:
    whole, filled = _require_ground(method, ground), Filling({})
    for name, part in method.parts():
        start = f"{name}."
        tensors = {n.removeprefix(start): t for n, t in adapter.tensors().items() if n.startswith(start)}
        filled |= fill(as_adapter(tensors, whole.attachment(part).config, adapter.base), ground)
    return filled


def _require_ground(method: Method, ground: Ground | None) -> Ground:
    if ground is None:
        raise AdapterError("adapter method", method.name, "its base beside it", "what it amounts to hangs on the base")
    return ground
