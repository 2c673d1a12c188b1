"""Load a base so that many processes share one copy of it in memory.

Weights that lie on disk in the precision they compute in are mapped, not copied; loading with a cast makes a
private copy in every process (measured: 26 against 473 MB for a 313 MB base). So a base whose file has
another precision is converted once into ``$FEDPEFT_HOME/bases`` and mapped from there.

A base is a causal language model, or, with ``labels``, an encoder under a new classification head; with no labels at
all, the encoder itself. The fingerprint is over what was published: the same for every head, dtype and precision.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fedpeft.base.base import Base
from fedpeft.base.cache import kept
from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.head import draw_head
from fedpeft.base.heap import give_back
from fedpeft.base.locate import builtin_names, locate
from fedpeft.base.quantize import PRECISIONS, quantize
from fedpeft.base.quiet import quietly
from fedpeft.errors import BaseError, nearest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def load_base(
    name: str,
    dtype: str = "bfloat16",
    root: Path | None = None,
    labels: int | None = None,
    precision: str = "full",
) -> Base:
    """Load a frozen base.

    Parameters
    ----------
    name : str
        A known name such as ``keyboard`` or ``smollm2-135m``, the path of a Hugging Face folder, or a hub id.
    dtype : {"bfloat16", "float32", "float16"}
        The precision to compute in. A classification head is float32 whatever the encoder computes in.
    root : Path, optional
        What a relative path is relative to; the working directory when not given.
    labels : int, optional
        How many classes to tell apart, 0 for an encoder without a head; a causal language model when not given.
    precision : {"full", "nf4", "int8"}
        How the linear layers are held: as computed in, or quantized to 4 or 8 bits.

    Returns
    -------
    Base

    Raises
    ------
    BaseError
        When there is no such base, it cannot be fetched, its files are damaged, or it is of the other kind: an encoder
        asked to write, or a language model asked to classify.
    """
    _require("base.dtype", dtype, DTYPES)
    _require("base.precision", precision, PRECISIONS)
    if labels is not None and labels != 0 and labels < 2:
        raise BaseError("labels", labels, "at least 2 classes to tell apart, or 0 for no head")
    source = locate(name, root)
    identity = fingerprint(source)
    expected = "a causal language model" if labels is None else "an encoder"
    try:
        check_kind(name, source, labels)
        folder = _in_precision(source, identity, dtype)
        model, head = _read(folder, DTYPES[dtype], labels)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseError(f"base {name}", f"{error}".partition("\n")[0], expected) from error
    if labels is None and head:
        raise BaseError(f"base {name}", f"weights without {head[0]}", expected)
    parameters = sum(p.numel() for p in model.parameters()) - sum(model.get_parameter(n).numel() for n in head)
    draw_head(model, head, getattr(model.config, "initializer_range", 0.02))
    if precision != "full":
        give_back()
        quantize(model, precision, keep=head)
    model.eval().requires_grad_(False)
    # Without a head, what a checkpoint lacks is a pooler that nobody reads.
    return Base(name, folder, identity, model, tokenizer, parameters, precision, labels, head if labels else ())


def prepare_base(name: str, dtype: str = "bfloat16", root: Path | None = None) -> Path:
    """Fetch and convert a base, so that loading it finds it ready.

    Parameters
    ----------
    name, dtype, root
        As of :func:`load_base`.

    Returns
    -------
    Path
        Of the folder that processes will map.

    Raises
    ------
    BaseError
        When there is no such base, it cannot be fetched, or its files are damaged.
    """
    _require("base.dtype", dtype, DTYPES)
    source = locate(name, root)
    try:
        return _in_precision(source, fingerprint(source), dtype)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseError(f"base {name}", f"{error}".partition("\n")[0], "a model's folder") from error


def _require(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise BaseError(field, value, "a known precision", nearest(value, known))


def check_kind(name: str, folder: Path, labels: int | None) -> None:
    """Refuse a language model that is to classify, an encoder that is to write, and a finished classifier."""
    architecture = _architecture(folder)
    if not architecture:
        if labels is not None:
            raise BaseError(f"base {name}: architectures", "none", "the encoder's class in config.json", "as BertModel")
        return
    writes = architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if writes and labels is not None:
        raise BaseError(
            "base.name",
            name,
            f"an encoder; {architecture} writes text",
            "use minilm or another one, such as a BERT",
        )
    if architecture.endswith("ForSequenceClassification"):
        raise BaseError(
            "base.name",
            name,
            f"an encoder without a head; {architecture} has classes of its own",
            "save what is below its head: model.base_model.save_pretrained(folder)",
        )
    if not writes and labels is None:
        raise BaseError(
            "base.name",
            name,
            f"a causal language model, which {architecture} is not",
            f"use {', '.join(builtin_names())} or another one, or give it a task for encoders",
        )


def _architecture(folder: Path) -> str:
    """Return the class that the weights were published as, empty when the configuration does not say."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("config.json is no JSON object")  # noqa: TRY004  # a damaged file, not a programmer's mistake
    return str((config.get("architectures") or [""])[0])


def _in_precision(source: Path, identity: str, dtype: str) -> Path:
    """Return a folder with the weights in ``dtype``, converting once when the source differs."""
    if _stored(source) == {_STORED[dtype]}:
        return source
    # What surrounds the weights decides what they compute, and the fingerprint does not cover it.
    rest = sha256()
    for path in sorted(p for p in source.iterdir() if p.is_file() and p.suffix != ".safetensors"):
        rest.update(path.name.encode() + b"\0" + sha256(path.read_bytes()).digest())
    return kept(f"{identity[:16]}-{rest.hexdigest()[:8]}-{dtype}", lambda draft: _convert(source, dtype, draft))


def _convert(source: Path, dtype: str, out: Path) -> None:
    published = getattr(transformers, _architecture(source), AutoModelForCausalLM)
    model, missing = _load(published, source, DTYPES[dtype], config=AutoConfig.from_pretrained(source))
    # What the source lacks, its copy lacks too: a later head must not depend on where it was converted.
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in missing}
    model.save_pretrained(out, state_dict=weights)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


def _stored(folder: Path) -> set[str]:
    """Return the floating-point formats that a folder's weights lie in."""
    found = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  # not a mapping
    return {dtype for dtype in found if "F" in dtype}


def _read(folder: Path, dtype: torch.dtype, labels: int | None) -> tuple[PreTrainedModel, tuple[str, ...]]:
    if labels is None:
        return _load(AutoModelForCausalLM, folder, dtype)
    if not labels:
        return _load(AutoModel, folder, dtype)
    return _load(AutoModelForSequenceClassification, folder, dtype, num_labels=labels)


def _load(kind: type[Any], folder: Path, dtype: torch.dtype, **options: Any) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Load a model, and name the parameters that the checkpoint did not have."""
    with torch.random.fork_rng(devices=[]), quietly():
        model, found = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, **options)
    return model, tuple(sorted(found["missing_keys"]))
