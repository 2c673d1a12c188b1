"""A torch module as an ONNX graph, by torch's own exporter; traced once per base and kept.

Tracing takes seconds for a small model and minutes for a large one, and gives the same graph every time. So the graph,
before any site is added to it, lies under ``$FEDPEFT_HOME/bases``, named after all that decides it: the base's
fingerprint and configuration, the wrapper around it, and the versions of what traces.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxscript
import torch
import transformers
from torch import nn

from fedpeft.base import Base
from fedpeft.base.cache import kept
from fedpeft.base.quiet import quietly
from fedpeft.device.bundle import GRAPH
from fedpeft.errors import BaseError
from fedpeft.export.graph import CONTRIB, OPSET

CONFIG = "config.json"
"""What a graph was traced from, beside it."""

_BESIDE = ("_name_or_path", "transformers_version", "id2label", "label2id")
"""What a configuration says that the graph does not hang on: where it lies, and the labels of a head that it lacks."""

_LAYOUT = 2
"""Raised when a wrapper changes what it computes: graphs kept before are then traced again."""


@dataclass(frozen=True)
class Traced:
    """What is to be traced.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, float32.
    arguments : tuple
        An example: no dimension of it may be 0 or 1, which torch would take for a constant.
    dimensions : tuple
        For each argument the names of its dimensions that vary, as torch.onnx.export takes them.
    inputs, outputs : sequence of str
        Names of the graph's inputs and outputs, flat and in order.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    dimensions: tuple[Any, ...]
    inputs: Sequence[str]
    outputs: Sequence[str]


def trace(base: Base, kind: str, describe: Callable[[], Traced]) -> ir.Model:
    """Return the graph of a base, traced now or before.

    Parameters
    ----------
    base : Base
    kind : str
        Which wrapper ``describe`` puts around it.
    describe : callable
        Loads and wraps the model; called only when the graph is not kept yet.

    Returns
    -------
    onnx_ir.Model
        Whose nodes still say which torch module they come from. Large weights are read when they are used.

    Raises
    ------
    BaseError
        When torch cannot trace the model, or there is no room to keep the graph.
    """
    described = _describe(base, kind)
    digest = sha256(described.encode()).hexdigest()[:16]

    def write(draft: Path) -> None:
        with quietly(), _silence():
            model = _traced(base, describe())
        ir.save(model, draft / GRAPH, external_data=f"{GRAPH}.data")
        (draft / CONFIG).write_text(described, encoding="utf-8")

    return ir.load(kept(f"{base.fingerprint[:16]}-{kind}-{digest}", write) / GRAPH)


def _describe(base: Base, kind: str) -> str:
    """Return all that a graph depends on, but for the weights, as JSON."""
    versions = [_LAYOUT, OPSET, torch.__version__, transformers.__version__, onnxscript.__version__]
    described = {
        "graph": kind,
        "versions": versions,
        "class": type(base.model).__name__,
        "config": {k: v for k, v in base.model.config.to_dict().items() if k not in _BESIDE},
    }
    return json.dumps(described, sort_keys=True, default=str)


def _traced(base: Base, traced: Traced) -> ir.Model:
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                traced.module.eval(),
                traced.arguments,
                dynamo=True,
                input_names=list(traced.inputs),
                output_names=list(traced.outputs),
                dynamic_shapes=traced.dimensions,
                opset_version=OPSET,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # torch raises whatever the model's own code raises while it is traced
        raise BaseError(
            f"base {base.name}",
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            "a model that torch.onnx.export can trace",
        ) from error
    assert program is not None  # noqa: S101 - it is None only where a file is asked for
    found: ir.Model = program.model
    found.graph.opset_imports[CONTRIB] = 1
    _tie(found)
    return found


def constant_matrix(value: ir.Value | None) -> tuple[ir.Value, bool] | None:
    """Return the constant that a value is, and whether it is its transpose; None for all that is computed.

    Torch folds transposes into weights, but not into one that something else reads too.
    """
    if value is None or value.const_value is not None:
        return None if value is None else (value, False)
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Transpose" else None
    return (source, True) if source is not None and source.const_value is not None else None


def _tie(model: ir.Model) -> None:
    """Let a tied head read the embedding table itself; traced, it has a transposed copy of its own."""
    tables = [table for node in model.graph if node.op_type == "Gather" and (table := node.inputs[0]) is not None]
    for node in list(model.graph):
        matrix = constant_matrix(node.inputs[1]) if node.op_type == "MatMul" else None
        table = next((t for t in tables if matrix and _is_transpose(t, *matrix)), None)
        if table is None:
            continue
        scopes, x = dict(node.metadata_props), node.inputs[0]
        tied = ir.node("FusedMatMul", [x, table], {"transB": 1}, domain=CONTRIB, metadata_props=scopes)
        model.graph.insert_before(node, tied)
        old, new = node.outputs[0], tied.outputs[0]
        new.type, new.shape = old.type, old.shape
        name = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        new.name = name
    passes.RemoveUnusedNodesPass()(model)


def _is_transpose(table: ir.Value, matrix: ir.Value, flipped: bool) -> bool:
    if table.const_value is None or matrix.const_value is None:
        return False
    if flipped or matrix is table:
        return flipped and matrix is table
    first, second = table.const_value, matrix.const_value
    return tuple(first.shape)[::-1] == tuple(second.shape) and np.array_equal(first.numpy().T, second.numpy())


@contextmanager
def _silence() -> Iterator[None]:
    """Keep torch from announcing each of its stages, and what is not installed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
