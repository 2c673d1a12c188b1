"""Pictures that people have put into words: what a vision–language model is personalized on.

``shapes`` is drawn here: every client sees coloured shapes in four corners and names them in words of their own
(*crimson* for red, *disc* for circle), so that whose words they are can be told. It is artificial, and says so.
A user's own pictures are a folder of JSONL files, one per person, whose lines name an image beside them::

    {"image": "photos/cat.png", "text": "our cat on the roof"}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import DataError, nearest
from fedpeft.seeds import derive

Pixels = NDArray[np.uint8]

COLOURS = {
    "red": ((200, 30, 30), ("red", "crimson", "scarlet")),
    "green": ((30, 160, 60), ("green", "emerald", "lime")),
    "blue": ((40, 70, 200), ("blue", "navy", "azure")),
    "yellow": ((230, 200, 40), ("yellow", "golden", "amber")),
}
SHAPES = {"circle": ("circle", "disc", "ball"), "square": ("square", "box", "block"), "bar": ("bar", "stick", "line")}
CORNERS = {
    (0, 0): ("top left", "upper left"),
    (0, 1): ("top right", "upper right"),
    (1, 0): ("bottom left", "lower left"),
    (1, 1): ("bottom right", "lower right"),
}
CLIENTS, PICTURES, SIZE = 12, 60, 32


@dataclass(frozen=True)
class Picture:
    """An image and what its owner says of it.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
    text : str
    """

    pixels: Pixels
    text: str


class PictureFederation(Protocol):
    """Clients with captioned pictures."""

    @property
    def name(self) -> str:
        """What reports call the dataset."""

    def client_ids(self) -> Sequence[str]:
        """Return the clients' names, unique, in a fixed order."""

    def pictures(self, client_id: str) -> Sequence[Picture]:
        """Return one client's pictures in a fixed order."""


class Shapes:
    """Twelve people who name coloured shapes, each in their own words. Artificial."""

    name = "shapes"

    def client_ids(self) -> list[str]:
        """Return ``person-00`` to ``person-11``."""
        return [f"person-{i:02d}" for i in range(CLIENTS)]

    def pictures(self, client_id: str) -> list[Picture]:
        """Draw one client's pictures, the same every time."""
        rng = np.random.default_rng(derive(0, "shapes", client_id))
        words = {key: str(rng.choice(names)) for key, (_, names) in COLOURS.items()}
        words |= {key: str(rng.choice(names)) for key, names in SHAPES.items()}
        places = {corner: str(rng.choice(names)) for corner, names in CORNERS.items()}
        drawn = []
        for _ in range(PICTURES):
            colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(list(SHAPES)))
            corner = list(CORNERS)[int(rng.integers(len(CORNERS)))]
            text = f"a {words[colour]} {words[shape]} at the {places[corner]}"
            drawn.append(Picture(_draw(COLOURS[colour][0], shape, corner, rng), text))
        return drawn


class PictureFolder:
    """Clients read from ``*.jsonl`` files, one a person, each line an image and its text.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    DataError
        When the folder holds no ``*.jsonl`` file.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = folder.name, folder
        self._files = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
        if not self._files:
            raise DataError("data.federation", str(folder), "at least one *.jsonl file, one per person")

    def client_ids(self) -> list[str]:
        """Return the file names without their ending."""
        return list(self._files)

    def pictures(self, client_id: str) -> list[Picture]:
        """Read one person's pictures.

        Raises
        ------
        DataError
            Naming the file and line that cannot be used.
        """
        path = self._files[client_id]
        lines = path.read_text(encoding="utf-8").split("\n")
        return [self._read(line, f"{path}:{n}") for n, line in enumerate(lines, start=1) if line.strip()]

    def _read(self, line: str, where: str) -> Picture:
        from PIL import Image, UnidentifiedImageError

        try:
            record = json.loads(line)
            name, text = record["image"], record["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(where, line[:80], 'an object such as {"image": "cat.png", "text": "our cat"}') from error
        if not isinstance(text, str) or not text.strip() or not isinstance(name, str):
            raise DataError(where, line[:80], "image and text to be strings that are not empty")
        image = (self._folder / name).resolve()
        if not image.is_relative_to(self._folder.resolve()):
            raise DataError(f"{where}: image", name, "a file below the folder")
        try:
            with Image.open(image) as opened:
                return Picture(np.asarray(opened.convert("RGB"), np.uint8), text.strip())
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{where}: image", name, "an image that can be read", str(error)) from error


def load_pictures(name: str, root: Path | None = None) -> PictureFederation:
    """Find captioned pictures by the name a scenario gives them.

    Raises
    ------
    DataError
        When there are none of that name.
    """
    if name == Shapes.name:
        return Shapes()
    folder = (root or Path.cwd()) / name
    if folder.is_dir():
        return PictureFolder(folder)
    raise DataError("data.federation", name, "'shapes' or a folder of JSONL files", nearest(name, [Shapes.name]))


def _draw(colour: tuple[int, int, int], shape: str, corner: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Draw one shape, a little displaced, on a pale noisy ground."""
    canvas = rng.integers(215, 245, (SIZE, SIZE, 3), dtype=np.uint8)
    half = SIZE // 2
    top, left = (half * c + int(rng.integers(0, 4)) for c in corner)
    inside = _mask(shape)
    canvas[top : top + 12, left : left + 12][inside] = colour
    return canvas


@cache
def _mask(shape: str) -> NDArray[np.bool_]:
    y, x = np.mgrid[0:12, 0:12] - 5.5
    if shape == "circle":
        return np.asarray(x**2 + y**2 <= 30)
    return np.asarray(np.abs(y) <= (5 if shape == "square" else 2))
