"""What a person wrote on this device, and how it is sealed.

A record is AES-256-GCM under the store's key, with a random nonce of 96 bits:

    sealed = nonce | AES-GCM(key, nonce, JSON(text, mine, conversation), bound)
    bound  = enc("stored example", schema version, store, key name, record id, time)

What is bound is not secret but authentic: a record that is moved to another place, another store or another time, or
read by another version's rules, does not open. The length of a sealed record tells the length of the text.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedpeft.errors import StoreError
from fedpeft.signing.encoding import enc

VERSION = 1
LONGEST = 1 << 16
"""Bytes of a text; nobody types a longer message."""
_NONCE, _TAG = 12, 16


@dataclass(frozen=True, slots=True)
class Written:
    """A message that is to be kept.

    Parameters
    ----------
    text : str
    mine : bool
    conversation : str
    time : float, optional
        In seconds since 1970; now when not given.
    """

    text: str
    mine: bool = True
    conversation: str = ""
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One message as the store keeps it.

    Parameters
    ----------
    id : str
        Names it in its store.
    text : str
    mine : bool
        Whether the owner of the device wrote it. Only these are learnt from; the others are context.
    conversation : str
        Groups messages that answer each other.
    time : float
        When it was written, in seconds since 1970.
    """

    id: str
    text: str
    mine: bool
    conversation: str
    time: float


class Sealer:
    """Seals and opens the records of one store under one key.

    Parameters
    ----------
    key : bytes
    store : str
        The store's own name.
    key_id : str
    """

    def __init__(self, key: bytes, store: str, key_id: str) -> None:
        self._cipher, self._store, self.key_id = AESGCM(key), store, key_id

    def seal(self, example: Example) -> bytes:
        """Encrypt an example."""
        fields = {"text": example.text, "mine": example.mine, "conversation": example.conversation}
        content = json.dumps(fields, ensure_ascii=False).encode()
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, self._bound(example.id, example.time))

    def open(self, sealed: bytes, id_: str, time: float) -> Example:
        """Decrypt an example.

        Raises
        ------
        StoreError
            When it is not what was sealed for this place under this key.
        """
        try:
            content = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._bound(id_, time))
        except (InvalidTag, ValueError) as error:
            remedy = f"the others can still be read once it is deleted: store.delete({id_!r})"
            raise StoreError(f"example {id_}", "an altered record", "what was stored", remedy) from error
        fields: dict[str, Any] = json.loads(content)
        return Example(id_, fields["text"], fields["mine"], fields["conversation"], time)

    def proof(self) -> bytes:
        """Return what shows later that a key is the right one."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, b"", self._bound("", 0.0))

    def fits(self, proof: bytes) -> bool:
        """Say whether a proof was made with this key."""
        try:
            self._cipher.decrypt(proof[:_NONCE], proof[_NONCE:], self._bound("", 0.0))
        except (InvalidTag, ValueError):
            return False
        return True

    def _bound(self, id_: str, time: float) -> bytes:
        return enc("stored example", VERSION, self._store, self.key_id, id_, time.hex())


def checked(id_: str, text: object, mine: object, conversation: object, time: object) -> Example:
    """Make an example of what an app gives.

    Raises
    ------
    StoreError
        When the text is empty, no text, or too long, or another value is of the wrong kind.
    """
    if not isinstance(text, str) or not text.strip():
        raise StoreError("text", _shown(text), "a text that is not empty")
    for field, value in (("text", text), ("conversation", conversation)):
        size = _size(value)
        if size is None or size > LONGEST:
            found = f"{size} bytes" if size else type(value).__name__
            raise StoreError(field, found, f"a text of at most {LONGEST} bytes in UTF-8")
    if not isinstance(mine, bool):
        raise StoreError("mine", _shown(mine), "true or false")
    if isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time):
        raise StoreError("time", _shown(time), "seconds since 1970")
    return Example(id_, text.strip(), mine, str(conversation), float(time))


def _size(value: object) -> int | None:
    try:
        return len(value.encode()) if isinstance(value, str) else None
    except UnicodeEncodeError:  # half of a surrogate pair is no character
        return None


def _shown(value: object) -> str:
    """Say of what kind a value is; what people write has no place in messages."""
    return "nothing" if value in ("", None) else type(value).__name__
