"""A smaller base of the same vocabulary: the first and the last layers of a larger one.

    layers 1 ... ceil(m/2) and L - floor(m/2) + 1 ... L   of L

In deep models the middle layers change a token's state least (ShortGPT: Men et al. 2024, arXiv:2403.03853). What is
left writes worse than the whole; shared logits teach it some of what it lost (``fedpeft.training.shared_logits``). Its
weights are other ones, so it has a fingerprint of its own: adapters of the larger base do not fit it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.load import check_kind
from fedpeft.base.locate import locate
from fedpeft.base.quiet import quietly
from fedpeft.errors import BaseError

_CARD = """\
---
license: {licence}
---
# {name} with {kept} of its {layers} layers

Made by `fedpeft base shrink {name} --layers {kept}`: layers {first} and {last} of `{source}`, embeddings, last norm and
head as they were (ShortGPT, arXiv:2403.03853). Nothing was trained after that: it writes worse than the whole model
until it is taught, and knows nothing that the whole model does not know.

The licence and the limits of `{name}` hold for it too.
"""


def kept_layers(layers: int, wanted: int) -> list[int]:
    """Return which of ``layers`` stay, counted from 0: the first and the last."""
    return [*range(wanted - wanted // 2), *range(layers - wanted // 2, layers)]


def shrink(name: str, layers: int, out: Path, licence: str = "other", root: Path | None = None) -> str:
    """Write a base with fewer layers.

    Parameters
    ----------
    name : str
        As of :func:`fedpeft.base.load_base`: a causal language model.
    layers : int
        How many stay.
    out : Path
        A new folder.
    licence : str
        For the card.
    root : Path, optional
        What a relative path is relative to.

    Returns
    -------
    str
        The fingerprint of what was written.

    Raises
    ------
    BaseError
        When there is no such base, it is no causal language model with a list of layers, it has too few of them, or
        ``out`` is there already.
    """
    if out.exists():
        raise BaseError("--out", str(out), "a folder that is not there yet")
    source = locate(name, root)
    try:
        check_kind(name, source, None)
        config: Any = AutoConfig.from_pretrained(source)
        with quietly():
            model: Any = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseError(f"base {name}", f"{error}".partition("\n")[0], "a causal language model") from error
    total = int(getattr(config, "num_hidden_layers", 0))
    stacks = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if len(stacks) != 1:
        raise BaseError("base.name", name, "a model with one list of layers", f"it is {type(model).__name__}")
    if not 2 <= layers < total:
        raise BaseError("--layers", layers, f"2 to {total - 1}, fewer than the {total} of {name}")
    place, stack = stacks[0]
    chosen = kept_layers(total, layers)
    model.set_submodule(place, nn.ModuleList(stack[i] for i in chosen))
    model.config.num_hidden_layers = layers
    kinds = getattr(model.config, "layer_types", None)
    if kinds is not None:
        model.config.layer_types = [kinds[i] for i in chosen]
    first, last = (", ".join(str(i + 1) for i in part) for part in (chosen[: -(layers // 2)], chosen[-(layers // 2) :]))
    card = _CARD.format(
        name=name, kept=layers, layers=total, first=first, last=last, source=fingerprint(source)[:16], licence=licence
    )
    _write(model, tokenizer, card, out)
    return fingerprint(out)


@torch.no_grad()
def _write(model: Any, tokenizer: Any, card: str, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(dir=out.parent, prefix=".draft-"))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / "README.md").write_text(card, encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(out)
    except (OSError, SafetensorError) as error:
        raise BaseError("--out", str(out), "room to write a base", str(error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
