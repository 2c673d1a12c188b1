"""Vision–language bases of the LLaVA family (Liu et al. 2023, arXiv:2304.08485): image tower, projector, writer.

``tiny-llava`` is made here from the builtin ``keyboard``, which writes, and a small image tower drawn from a fixed
seed, which nobody has trained: adapters on both parts are what makes it see. It exists to try methods on both parts
within seconds, not to look at photographs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from fedpeft.base.base import Base
from fedpeft.base.cache import kept
from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.load import DTYPES, load_base
from fedpeft.base.locate import locate
from fedpeft.errors import BaseError, nearest

TINY = "tiny-llava"
IMAGE = "<image>"
_SIZE, _PATCH, _WIDTH, _LAYERS, _SEED = 32, 8, 64, 2, 0


def load_vision(name: str, dtype: str = "float32", root: Path | None = None) -> Base:
    """Load a vision–language base.

    Parameters
    ----------
    name : str
        ``tiny-llava``, the path of a Hugging Face folder, or a hub id of the LLaVA family.
    dtype : {"bfloat16", "float32", "float16"}
    root : Path, optional
        What a relative path is relative to; the working directory when not given.

    Raises
    ------
    BaseError
        When there is no such base or it is of another family.
    """
    if dtype not in DTYPES:
        raise BaseError("base.dtype", dtype, "a known precision", nearest(dtype, DTYPES))
    folder = _tiny() if name == TINY else locate(name, root)
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseError(f"base {name}", f"{error}".partition("\n")[0], "a vision–language model") from error
    if model.config.model_type != "llava":
        raise BaseError("base.name", name, "a model of the LLaVA family", f"it is {model.config.model_type}")
    model.eval().requires_grad_(False)
    return Base(name, folder, fingerprint(folder), model, tokenizer, sum(p.numel() for p in model.parameters()))


def _tiny() -> Path:
    """Make the tiny base once and keep it."""
    writer = load_base("keyboard", "float32")
    return kept(f"{TINY}-{writer.fingerprint[:16]}", lambda draft: _write_tiny(writer, draft))


def _write_tiny(writer: Base, out: Path) -> None:
    tokenizer = writer.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    image = len(tokenizer) - 1
    tower = CLIPVisionConfig(
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=4,
        image_size=_SIZE,
        patch_size=_PATCH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        writer.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model = LlavaForConditionalGeneration(
            LlavaConfig(vision_config=tower, text_config=writer.model.config, image_token_index=image)
        )
    model.model.language_model.load_state_dict(writer.model.model.state_dict())
    model.lm_head.load_state_dict(writer.model.lm_head.state_dict())
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
