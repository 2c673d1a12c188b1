"""What a base is and what holding it costs, told from its files without loading its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.locate import builtin_names, locate
from fedpeft.base.packages import PACKAGES
from fedpeft.base.quantize import BITS, packable
from fedpeft.errors import BaseError


@dataclass(frozen=True)
class Description:
    """A base in numbers.

    Parameters
    ----------
    name : str
    folder : Path
    kind : {"causal", "encoder"}
        Whether it writes or is to be put under a classification head.
    architecture : str
    parameters : int
        Tied ones once.
    linear : int
        Those in linear layers, which quantization packs.
    memory : dict of str to int
        Bytes of the weights by precision.
    licence : str
    fingerprint : str
    chat : bool
        Whether its tokenizer has a chat template.
    """

    name: str
    folder: Path
    kind: str
    architecture: str
    parameters: int
    linear: int
    memory: dict[str, int]
    licence: str
    fingerprint: str
    chat: bool


def describe(name: str, root: Path | None = None) -> Description:
    """Describe a base; a packaged one is converted, one on the hub fetched.

    Raises
    ------
    BaseError
        When there is no such base, or its files are not a model's.
    """
    folder = locate(name, root)
    try:
        config = AutoConfig.from_pretrained(folder)
        architecture = str((config.architectures or [""])[0])
        causal = architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        parameters, linear = _count(config, causal=causal)
    except (OSError, ValueError, KeyError) as error:
        raise BaseError(f"base {name}", f"{error}".partition("\n")[0], "a model's folder") from error
    memory = {"float32": 4 * parameters, "bfloat16": 2 * parameters}
    for precision, bits in BITS.items():
        memory[precision] = round(2 * (parameters - linear) + linear * bits / 8)
    return Description(
        name,
        folder,
        "causal" if causal else "encoder",
        architecture,
        parameters,
        linear,
        memory,
        _licence(name, folder),
        fingerprint(folder),
        _chats(folder),
    )


def _count(config: Any, *, causal: bool) -> tuple[int, int]:
    """Count all parameters, and those of the linear layers that quantization packs."""
    with torch.device("meta"):
        model = (AutoModelForCausalLM if causal else AutoModel).from_config(config)  # type: ignore[no-untyped-call]
    return sum(p.numel() for p in model.parameters()), sum(m.weight.numel() for m in packable(model).values())


def _licence(name: str, folder: Path) -> str:
    """Read a base's licence from what is known of it, or from its model card's front matter."""
    if name in PACKAGES:
        return PACKAGES[name].licence
    if name in builtin_names():
        return "Apache-2.0"
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    if lines[:1] == ["---"]:
        for line in lines[1:200]:
            if line == "---":
                break
            if line.startswith("license:"):
                return line.partition(":")[2].strip().strip("'\"")
    return "not stated"


def _chats(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and "chat_template" in json.loads(settings.read_text(encoding="utf-8"))
