"""What a large model says of public text, as a file that small ones learn from.

Of the teacher's distribution softmax(z / T) at each place the k likeliest pieces are kept and, as one number, the mass
of all others::

    p_1 >= ... >= p_k,   p_0 = 1 - p_1 - ... - p_k

Models of any size that share a vocabulary can learn from it, and nobody's own text is read for it: FedMD (Li & Wang
2019, arXiv:1910.03581) and DS-FL (Itahara et al. 2021, arXiv:2008.06180) exchange logits on public data so. The
temperature is the file's: what was left out cannot be softened afterwards.

The file is safetensors: ``text`` int32 (n, t), ``pieces`` int32 (n, t - 1, k), ``scores`` float16 (n, t - 1, k), the
logarithms of p_1 ... p_k, and ``rest`` float16 (n, t - 1), that of p_0. Place j is read after token j and says what
token j + 1 would be. Its header names the teacher and its vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fedpeft.errors import FedpeftError, ScenarioError
from fedpeft.files import write_whole

FIELD = "training.distillation.logits"
_FORMAT = "fedpeft-shared-logits/1"
_KINDS = {"text": torch.int32, "pieces": torch.int32, "scores": torch.float16, "rest": torch.float16}
_LEAST = -18.0
"""Logarithm of the smallest rest that is written, as good as none; float16 holds it."""
_BATCH = 8


@dataclass(frozen=True)
class Origin:
    """Where shared logits come from.

    Parameters
    ----------
    teacher : str
        Fingerprint of the base.
    adapter : str
        The sha256 of the adapter over it, empty for the bare base.
    vocabulary : str
        Of the tokenizer; see :func:`fedpeft.base.tokenizer.vocabulary_hash`.
    temperature : float
    """

    teacher: str
    adapter: str
    vocabulary: str
    temperature: float


@dataclass(frozen=True)
class SharedLogits:
    """What a teacher says of public windows.

    Parameters
    ----------
    text : Tensor of int32, shape (n, t)
        Windows without padding.
    pieces : Tensor of int32, shape (n, t - 1, k)
    scores : Tensor of float16, shape (n, t - 1, k)
    rest : Tensor of float16, shape (n, t - 1)
    origin : Origin
    """

    text: Tensor
    pieces: Tensor
    scores: Tensor
    rest: Tensor
    origin: Origin

    def __len__(self) -> int:
        return len(self.text)

    def rows(self, rows: Tensor | slice) -> SharedLogits:
        """Return some of the windows."""
        return SharedLogits(self.text[rows], self.pieces[rows], self.scores[rows], self.rest[rows], self.origin)

    def save(self, path: Path) -> int:
        """Write the file at once, and return its size in bytes."""
        tensors = {name: getattr(self, name).contiguous() for name in _KINDS}
        content = save(tensors, {"format": _FORMAT, **{key: str(value) for key, value in asdict(self.origin).items()}})
        write_whole(path, content)
        return len(content)


@torch.no_grad()
def ask(
    model: nn.Module,
    text: Tensor,
    top: int,
    origin: Origin,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SharedLogits:
    """Ask a teacher about public windows.

    Parameters
    ----------
    model : nn.Module
        A causal language model.
    text : Tensor of int32, shape (n, t)
    top : int
        k, at most half of the vocabulary.
    origin : Origin
    progress : callable
        Told (windows done, windows in all).

    Raises
    ------
    FedpeftError
        When ``top`` leaves too few pieces for the rest.
    """
    teacher: Any = model
    width = int(teacher.config.vocab_size)
    if not 1 <= top <= width // 2:
        raise FedpeftError("--top", top, f"1 to {width // 2}, half of the teacher's {width} pieces")
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(text), _BATCH):
        ids = text[start : start + _BATCH].long().to(teacher.device)
        logits = teacher(input_ids=ids, use_cache=False).logits[:, :-1].float() / origin.temperature
        whole = logits.logsumexp(dim=-1, keepdim=True)
        best, pieces = logits.topk(top, dim=-1)
        rest = (logits.scatter(-1, pieces, -torch.inf).logsumexp(dim=-1) - whole[..., 0]).clamp_min(_LEAST)
        found.append((pieces.int().cpu(), (best - whole).half().cpu(), rest.half().cpu()))
        progress(min(start + _BATCH, len(text)), len(text))
    pieces, scores, rest = (torch.cat(part) for part in zip(*found, strict=True))
    return SharedLogits(text.int(), pieces, scores, rest, origin)


def divergence_from(logits: Tensor, pieces: Tensor, scores: Tensor, rest: Tensor, temperature: float) -> Tensor:
    """Return T² times the summed Kullback–Leibler divergence from what was shared to a student's distribution.

    Both are taken over k + 1 events: each shared piece, and any other.

    Parameters
    ----------
    logits : Tensor of float32, shape (n, vocabulary)
    pieces : Tensor of int64, shape (n, k)
    scores : Tensor of float32, shape (n, k)
    rest : Tensor of float32, shape (n,)
    temperature : float
    """
    softened = logits / temperature
    others = softened.scatter(1, pieces, -torch.inf).logsumexp(dim=1, keepdim=True)
    student = torch.cat([softened.gather(1, pieces), others], dim=1).log_softmax(dim=1)
    # Again a distribution, after rounding to 16 bits.
    wanted = torch.cat([scores, rest[:, None]], dim=1).log_softmax(dim=1)
    return temperature**2 * (wanted.exp() * (wanted - student)).sum()


def content_hash(path: str) -> str:
    """Return the sha256 of a file, which is what clients compare: the path may be another on each.

    Raises
    ------
    ScenarioError
        When it cannot be read.
    """
    return _hashed(*_stamp(path))


def origin_of(path: str) -> Origin:
    """Read where shared logits come from, without reading them.

    Raises
    ------
    ScenarioError
        When the file cannot be read, or is of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _refused(path, "a file that `fedpeft distill` wrote", str(error)) from error
    if told.get("format") != _FORMAT:
        raise _refused(path, f"shared logits in the format {_FORMAT}")
    try:
        origin = Origin(told["teacher"], told["adapter"], told["vocabulary"], float(told["temperature"]))
    except (KeyError, ValueError) as error:
        raise _refused(path, "a whole header", f"{error!r}") from error
    if not (math.isfinite(origin.temperature) and origin.temperature > 0):
        raise _refused(path, "a temperature above 0")
    return origin


def load(path: str, vocabulary: str, width: int) -> SharedLogits:
    """Read shared logits for a student; they stay in memory for the next client of this process.

    Parameters
    ----------
    path : str
    vocabulary : str
        Hash of the student's vocabulary.
    width : int
        Of the student's logits.

    Raises
    ------
    ScenarioError
        When the file is damaged, does not say what it should, or speaks of other pieces.
    """
    shared = _read(*_stamp(path))
    if shared.origin.vocabulary != vocabulary:
        raise _refused(path, "logits over the pieces of this base", "ask a teacher with the same tokenizer")
    if int(max(shared.pieces.max(), shared.text.max())) >= width:
        raise _refused(path, f"pieces below {width}, which is how many this base knows")
    return shared


def _stamp(path: str) -> tuple[str, int, int]:
    """Return what changes when a file does."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise _refused(path, "a file that `fedpeft distill` wrote", str(error.strerror)) from error
    return path, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _hashed(path: str, _size: int, _changed: int) -> str:
    try:
        return sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise _refused(path, "a readable file", str(error.strerror)) from error


@lru_cache(maxsize=1)
def _read(path: str, _size: int, _changed: int) -> SharedLogits:
    origin = origin_of(path)
    try:
        with safe_open(path, "pt") as file:
            if set(file.keys()) != set(_KINDS):
                raise _refused(path, f"the tensors {', '.join(_KINDS)}")
            text, pieces, scores, rest = (file.get_tensor(name) for name in _KINDS)
    except (OSError, SafetensorError) as error:
        raise _refused(path, "a whole file", str(error)) from error
    shared = SharedLogits(text, pieces, scores, rest, origin)
    if any(getattr(shared, name).dtype != kind for name, kind in _KINDS.items()):
        raise _refused(path, "int32 pieces and float16 scores")
    if text.ndim != 2 or pieces.ndim != 3 or not pieces.numel() or text.shape[1] != pieces.shape[1] + 1:
        raise _refused(path, "windows of text, with pieces and scores for each place but the last")
    if pieces.shape != scores.shape or rest.shape != pieces.shape[:2] or len(text) != len(pieces):
        raise _refused(path, "as many scores as pieces, and a rest for each place")
    if int(min(text.min(), pieces.min())) < 0:
        raise _refused(path, "numbers of pieces, none below 0")
    mass = scores.double().exp().sum(-1) + rest.double().exp()
    # NaN compares as false; 16 bits round each probability by a thousandth at most.
    if not bool(((mass - 1).abs() < 0.02).all() and (scores <= 0).all() and (rest <= 0).all()):
        raise _refused(path, "logarithms of probabilities that sum to 1")
    return shared


def _refused(path: str, expected: str, remedy: str = "") -> ScenarioError:
    return ScenarioError(FIELD, path, expected, remedy)
