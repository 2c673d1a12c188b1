"""A version is a base and the adapter that all people share on it; a channel's head says which one is in force.

A version never changes, and its name is its hash. A head is replaced by one with a higher number, and never by one with
a lower: who has seen number 7 refuses 6, so that nobody who holds old signed heads can lead a device back to them. To
go back on purpose is to go forward: a new head, number 8, that names the earlier version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat, JsonValue, StringConstraints, model_validator

from fedpeft.device.manifest import MANIFEST, SIGNATURE, Digest, File, Filename, Part
from fedpeft.device.versions.document import Document, Name
from fedpeft.errors import ShelfError, nearest

STABLE = "stable"
_CHANNEL = r"^[a-z0-9][a-z0-9-]{0,31}$"
Channel = Annotated[str, StringConstraints(pattern=_CHANNEL)]
Kind = Literal["base", "adapter"]
KINDS: tuple[Kind, ...] = ("base", "adapter")
Files = Annotated[dict[Filename, File], Field(max_length=64)]

NO_GUARANTEE: dict[str, JsonValue] = {"mechanism": "none"}
"""What a version says that was trained without differential privacy."""


class Bundles(Part):
    """Every file of both bundles, their manifests included."""

    base: Files
    adapter: Files

    @model_validator(mode="after")
    def _complete(self) -> Bundles:
        for kind in KINDS:
            missing = {MANIFEST, SIGNATURE} - self.of(kind).keys()
            if missing:
                raise ValueError(f"{kind} lacks {min(missing)}")
        return self

    def of(self, kind: Kind) -> dict[str, File]:
        """Return a bundle's files by name."""
        return self.base if kind == "base" else self.adapter


class Version(Document):
    """What a version is and where it comes from.

    Parameters
    ----------
    run : str
        The run that trained the adapter.
    round : int
        Its last finished round.
    scenario : str
        Digest of what was run.
    base, base_name : str
        Fingerprint and name of the base.
    parent : str or None
        The version that it came after.
    metrics : dict of str to float
        On validation text, where the run had any.
    privacy : dict
        What training spent; ``{"mechanism": "none"}`` without guarantees.
    bundles : Bundles
    """

    LABEL: ClassVar[str] = "version"

    run: Name
    round: int = Field(ge=0)
    scenario: Digest
    base: Digest
    base_name: Name
    parent: Digest | None = None
    metrics: dict[Name, FiniteFloat]
    privacy: dict[str, JsonValue]
    bundles: Bundles

    def files(self) -> Iterator[tuple[Kind, str, File]]:
        """Yield every file with its bundle and name."""
        for kind in KINDS:
            for name, file in sorted(self.bundles.of(kind).items()):
                yield kind, name, file

    def bundle_id(self, kind: Kind) -> str:
        """Return what names a bundle: the hash of its manifest, which names all the rest."""
        return self.bundles.of(kind)[MANIFEST].sha256

    def size(self, kind: Kind) -> int:
        """Return how many bytes a bundle has."""
        return sum(file.bytes for file in self.bundles.of(kind).values())


class Head(Document):
    """Which version is in force in a channel.

    Parameters
    ----------
    channel : str
    number : int
        Higher with every head of its channel.
    version : str
    """

    LABEL: ClassVar[str] = "head"

    channel: Channel
    number: int = Field(ge=1)
    version: Digest

    def require_after(self, seen: Head | None) -> None:
        """Refuse a head that is older than one that was seen.

        Raises
        ------
        ShelfError
            Also when it has the same number and is another: then its signer, or a thief of the key, plays double.
        """
        if seen is None or self.number > seen.number:
            return
        if self.number < seen.number:
            remedy = "the server is behind, or somebody replays an old head; what is installed stays"
            raise ShelfError(
                f"head of {self.channel} number", self.number, f"{seen.number} or higher, as seen before", remedy
            )
        if self.version != seen.version:
            raise ShelfError(
                f"head of {self.channel}, number {self.number}",
                self.version[:12],
                f"{seen.version[:12]}, as seen before",
            )


def require_channel(channel: str) -> str:
    """Refuse what cannot be a channel's name.

    Raises
    ------
    ShelfError
    """
    if not re.fullmatch(_CHANNEL, channel):
        raise ShelfError("channel", channel[:40], "up to 32 small letters, digits and '-'")
    return channel


def find(prefix: str, versions: list[Version]) -> Version:
    """Return the version whose id begins like this.

    Raises
    ------
    ShelfError
        When there is none, or more than one.
    """
    found = [version for version in versions if version.id.startswith(prefix)]
    if len(found) != 1 or not prefix:
        known = [version.id[:12] for version in versions]
        expected = "the beginning of one version's id" if not found else f"more of it: {len(found)} begin so"
        raise ShelfError("version", prefix, expected, nearest(prefix, known) if known else "there is none yet")
    return found[0]
