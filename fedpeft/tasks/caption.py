"""Say of a picture what its owner would say: next-piece prediction after an image (LLaVA's own objective).

A row is ``<s>``, one mark per patch of the image, the text's pieces, ``</s>``; the text is what is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpeft.base import Base
from fedpeft.data.card import spread
from fedpeft.data.pictures import Picture, PictureFederation
from fedpeft.data.windows import IGNORED
from fedpeft.tasks.next_word import labelled
from fedpeft.tasks.task import Batch, Splits, Task

# What CLIP's towers were trained with (Radford et al. 2021, arXiv:2103.00020, published preprocessor).
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@dataclass(frozen=True, slots=True)
class Captioned:
    """A client's pictures, ready to train on.

    Parameters
    ----------
    ids, labels : ndarray of int64, shape (n, t)
        As in :class:`~fedpeft.data.windows.Windows`.
    pixels : ndarray of float32, shape (n, 3, size, size)
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    pixels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """How many pieces are scored."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def head(self, count: int) -> Captioned:
        """Return the first ``count`` pictures."""
        return replace(self, ids=self.ids[:count], labels=self.labels[:count], pixels=self.pixels[:count])


class Caption(Task[Captioned]):
    """Captions in each client's own words.

    Parameters
    ----------
    base : Base
        Of the LLaVA family.
    federation : PictureFederation
    length : int
        Pieces of text that are read.
    most : int, optional
        Keep only the latest so many training pictures of a client.
    """

    kind: ClassVar[str] = "caption"

    def __init__(self, base: Base, federation: PictureFederation, length: int, most: int | None = None) -> None:
        super().__init__(base, length)
        self.federation, self._most = federation, most
        config: Any = base.model.config
        self._image = int(config.image_token_id)
        self._size = int(config.vision_config.image_size)
        self._patches = (self._size // int(config.vision_config.patch_size)) ** 2

    @property
    def name(self) -> str:
        """The federation's name."""
        return self.federation.name

    def client_ids(self) -> Sequence[str]:
        """Return the federation's clients."""
        return self.federation.client_ids()

    def describe(self, clients: Sequence[str]) -> dict[str, Any]:
        """Count pictures and words."""
        described: dict[str, Any] = {
            "federation": self.name,
            "clients": len(clients),
            "split": "60 % train, 20 % validation, 20 % test of each client's pictures, in their order",
        }
        parts = [dict(zip(("train", "validation", "test"), self._parts(c), strict=True)) for c in clients]
        for part in ("train", "validation", "test"):
            described[part] = {
                "messages": spread([len(own[part]) for own in parts]),
                "words": spread([sum(len(p.text.split()) for p in own[part]) for own in parts]),
            }
        return described

    def splits(self, client: str) -> Splits[Captioned]:
        """Encode one client's pictures."""
        train, validation, test = self._parts(client)
        kept = train[-self._most :] if self._most else train
        encoded = [self._encode(part) for part in (kept, validation, test)]
        return Splits(encoded[0], encoded[1], encoded[2], len(train) + len(validation) + len(test))

    def batches(self, examples: Captioned, order: np.ndarray, size: int) -> Iterator[Batch]:
        """Yield batches with their images."""
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield Batch(
                torch.from_numpy(examples.ids[rows]),
                torch.from_numpy(examples.labels[rows]),
                pixels=torch.from_numpy(examples.pixels[rows]),
            )

    def order(self, examples: Captioned) -> np.ndarray:
        """Return the pictures as they are: rows have one length."""
        return np.arange(len(examples))

    def features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, nn.Module, Tensor]:
        """Look at the images, read the text, and return the hidden states before the text's pieces."""
        seer: Any = model
        read = batch.to(seer.device)
        assert read.pixels is not None  # noqa: S101 - batches() always gives them
        pixels = read.pixels.to(seer.dtype)
        hidden = seer.model(input_ids=read.ids, pixel_values=pixels, use_cache=False).last_hidden_state
        return labelled(hidden, batch.labels, seer.get_output_embeddings())

    def predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits and targets of the text's pieces."""
        hidden, head, targets = self.features(model, batch)
        return head(hidden).float(), targets

    def replaceable(self, batch: Batch) -> Tensor:
        """Return nothing: every piece of text is a target, and images are not augmented."""
        return torch.zeros_like(batch.ids, dtype=torch.bool)

    def _parts(self, client: str) -> tuple[Sequence[Picture], Sequence[Picture], Sequence[Picture]]:
        own = self.federation.pictures(client)
        first, second = round(0.6 * len(own)), round(0.8 * len(own))
        return own[:first], own[first:second], own[second:]

    def _encode(self, pictures: Sequence[Picture]) -> Captioned:
        tokenizer = self.base.tokenizer
        texts = [p.text for p in pictures]
        encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []
        start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        before = start + [self._image] * self._patches
        end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        bodies = [[*pieces[: self.length - len(end)], *end] for pieces in encoded]
        width = len(before) + max((len(body) for body in bodies), default=0)
        ids = np.full((len(bodies), width), int(tokenizer.pad_token_id or 0), np.int64)
        labels = np.full((len(bodies), width), IGNORED, np.int64)
        for row, body in enumerate(bodies):
            ids[row, : len(before)] = before
            ids[row, len(before) : len(before) + len(body)] = body
            labels[row, len(before) : len(before) + len(body)] = body
        pixels = np.stack([self._pixels(p) for p in pictures]) if pictures else np.zeros((0, 3, 1, 1), np.float32)
        return Captioned(ids, labels, pixels)

    def _pixels(self, picture: Picture) -> NDArray[np.float32]:
        """Return the picture at the tower's size, normalized as CLIP does; shape (3, size, size)."""
        pixels = picture.pixels
        if pixels.shape[:2] != (self._size, self._size):
            from PIL import Image

            resized = Image.fromarray(pixels).resize((self._size, self._size), Image.Resampling.BICUBIC)
            pixels = np.asarray(resized, np.uint8)
        return ((pixels / np.float32(255) - _MEAN) / _DEVIATION).astype(np.float32).transpose(2, 0, 1)
