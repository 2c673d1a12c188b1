"""Find a base by name and load it so that many processes share one copy of it in memory.

Weights that lie on disk in the precision they compute in are mapped, not copied; loading with a cast makes a
private copy in every process (measured: 26 against 473 MB for a 313 MB base). So a base whose file has
another precision is converted once into ``$FEDPEFT_HOME/bases`` and mapped from there.
"""

from __future__ import annotations

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fedpeft.base.base import Base
from fedpeft.base.fingerprint import fingerprint
from fedpeft.errors import BaseError, nearest

BUILTIN = Path(__file__).parent / "builtin"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def builtin_names() -> list[str]:
    """Return the names of the bases that ship with fedpeft."""
    return sorted(p.name for p in BUILTIN.iterdir() if (p / "config.json").exists())


def load_base(name: str, dtype: str = "bfloat16", root: Path | None = None) -> Base:
    """Load a frozen base.

    Parameters
    ----------
    name : str
        A builtin name, the path of a Hugging Face folder, or a hub id such as ``org/model``.
    dtype : {"bfloat16", "float32", "float16"}
        The precision to compute in.
    root : Path, optional
        What a relative path is relative to; the working directory when not given.

    Returns
    -------
    Base

    Raises
    ------
    BaseError
        When there is no such base, it cannot be fetched, or its files are damaged.
    """
    if dtype not in DTYPES:
        raise BaseError("base.dtype", dtype, "a known precision", nearest(dtype, DTYPES))
    source = locate(name, root)
    identity = fingerprint(source)
    try:
        folder = _in_precision(source, identity, dtype)
        model = _read(folder, DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseError(f"base {name}", f"{error}".partition("\n")[0], "a causal language model") from error
    model.eval().requires_grad_(False)
    return Base(name, folder, identity, model, tokenizer, sum(p.numel() for p in model.parameters()))


def locate(name: str, root: Path | None = None) -> Path:
    """Return the folder a base's files lie in, fetching it from the hub when it is a hub id.

    Raises
    ------
    BaseError
        When nothing of that name is found.
    """
    if (BUILTIN / name / "config.json").exists():
        return BUILTIN / name
    folder = (root or Path.cwd()) / name
    if (folder / "config.json").exists():
        return folder
    if folder.is_dir():
        raise BaseError("base.name", name, "a folder with config.json", f"{folder} has none")
    if name.count("/") != 1 or name.startswith(("/", ".")):
        raise BaseError("base.name", name, "a builtin name, a folder or a hub id", nearest(name, builtin_names()))
    return _fetch(name)


def home() -> Path:
    """Return where fedpeft keeps what it converts: ``$FEDPEFT_HOME`` or ``~/.cache/fedpeft``."""
    return Path(os.environ.get("FEDPEFT_HOME", Path.home() / ".cache" / "fedpeft"))


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseError(
            "base.name",
            name,
            "a hub id that can be fetched from here",
            f"the hub answered: {str(error).splitlines()[0]}; use a builtin base "
            f"({', '.join(builtin_names())}) or a local folder when there is no network",
        ) from error


def _in_precision(source: Path, identity: str, dtype: str) -> Path:
    """Return a folder with the weights in ``dtype``, converting once when the source differs."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config.get("dtype", config.get("torch_dtype")) == dtype:
        return source
    # What surrounds the weights decides what they compute, and the fingerprint does not cover it.
    rest = sha256()
    for path in sorted(p for p in source.iterdir() if p.is_file() and p.suffix != ".safetensors"):
        rest.update(path.name.encode() + b"\0" + sha256(path.read_bytes()).digest())
    target = home() / "bases" / f"{identity[:16]}-{rest.hexdigest()[:8]}-{dtype}"
    if not (target / "config.json").exists():
        model, tokenizer = _read(source, DTYPES[dtype]), AutoTokenizer.from_pretrained(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(dir=target.parent, prefix=".draft-"))
        try:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            draft.replace(target)
        except (OSError, SafetensorError) as error:
            # Another process may have finished the same conversion first; its copy is as good.
            if not (target / "config.json").exists():
                raise BaseError(f"base cache {target}", str(error), "room to write a copy") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _read(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    transformers_logging.disable_progress_bar()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model
