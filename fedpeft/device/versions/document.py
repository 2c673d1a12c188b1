r"""A signed document: one line of canonical JSON, and under it its signature in hexadecimal.

::

    content = {"created": …, "format": 1, …, "signer": public key}
    file    = content "\n" Ed25519(key, enc(label, content)) "\n"

Nothing of a document is read before its signature holds, and no signature holds for another kind of document: the label
is signed too. Whose signatures count is the reader's to say.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, ValidationError

from fedpeft.device.manifest import Key, Part, canonical, complaint
from fedpeft.errors import ProtocolError, ShelfError
from fedpeft.signing import signature
from fedpeft.signing.signature import SigningKey, public_bytes

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]

LARGEST = 256 << 10
"""Bytes of a document; what is longer is none."""


@dataclass(frozen=True)
class Trust:
    """Whose documents are believed.

    Parameters
    ----------
    federation : str
        They must name it: one key may sign for several.
    signers : frozenset of str
        Public keys in hexadecimal.
    """

    federation: str
    signers: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Trust:
        """Read ``pinned.json``, as it comes with an app.

        Raises
        ------
        ShelfError
            When it is none.
        """
        try:
            found = json.loads(path.read_bytes()[:LARGEST])
            federation, operator = str(found["federation"]), bytes.fromhex(found["operator"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            found = getattr(error, "strerror", None) or str(error)[:80]
            raise ShelfError(f"file {path}", found, "JSON with federation and operator") from error
        if len(operator) != signature.PUBLIC:
            raise ShelfError(f"file {path} operator", found["operator"][:16], "a public key in hexadecimal")
        return cls(federation, frozenset({operator.hex()}))

    def to_json(self) -> str:
        """Return what :meth:`read` reads; of one signer."""
        (operator,) = self.signers
        return json.dumps({"federation": self.federation, "operator": operator}, indent=2) + "\n"

    def require(self, signer: str, where: str) -> None:
        """Refuse a signer who is not believed.

        Raises
        ------
        ShelfError
        """
        if signer not in self.signers:
            raise ShelfError(f"{where} signer", f"{signer[:12]}…", f"one that is trusted: {_short(self.signers)}")


class Document(Part):
    """What is signed as one.

    Parameters
    ----------
    federation : str
    signer : str
        Public key in hexadecimal.
    created : int
        Unix seconds by the signer's clock; nothing depends on it.
    """

    LABEL: ClassVar[str]

    format: Literal[1] = 1
    federation: Name
    signer: Key
    created: int = Field(ge=0)

    @property
    def id(self) -> str:
        """The hash of what is signed."""
        return sha256(canonical(self)).hexdigest()

    def signed(self, key: SigningKey) -> bytes:
        """Return the document with the signature of ``key``, whose public half it names.

        Raises
        ------
        ShelfError
            When it names another.
        """
        if public_bytes(key).hex() != self.signer:
            raise ShelfError("signer", f"{self.signer[:12]}…", "the key that signs")
        content = canonical(self)
        return content + b"\n" + signature.sign(key, self.LABEL, content).hex().encode() + b"\n"

    @classmethod
    def read(cls, data: bytes, trust: Trust, where: str) -> Self:
        """Verify a document and read it.

        Parameters
        ----------
        data : bytes
        trust : Trust
        where : str
            Where it is from, for the message of an error.

        Raises
        ------
        ShelfError
            When it is not believed, is not what its signer signed, or is of another federation.
        """
        content, _, rest = data.partition(b"\n")
        fields, signer = _opened(content, f"{where} ({cls.LABEL})")
        trust.require(signer, where)
        try:
            signed = bytes.fromhex(rest.decode("ascii"))
            signature.verify(bytes.fromhex(signer), signed, f"{signer[:12]}…", cls.LABEL, content)
        except (ProtocolError, ValueError) as error:
            raise ShelfError(f"{where} signature", f"{rest[:12]!r}…", "its signer's signature of it") from error
        found = fields.get("format")
        if found != 1:
            raise ShelfError(f"{where} format", found, "1", "update fedpeft on the device")
        try:
            document = cls.model_validate_json(content)
        except ValidationError as error:
            field, value, wanted = complaint(error, cls.LABEL)
            raise ShelfError(f"{where} {field}", value, wanted) from error
        if canonical(document) != content:
            raise ShelfError(where, "another way to write it", "canonical JSON: its hash is its name")
        if document.federation != trust.federation:
            raise ShelfError(f"{where} federation", document.federation, f"{trust.federation!r}")
        return document


def claimed_signer(data: bytes, where: str) -> str:
    """Return who a document says has signed it, which is nobody's word until it is verified.

    Raises
    ------
    ShelfError
        When it is none.
    """
    return _opened(data.partition(b"\n")[0], where)[1]


def _opened(content: bytes, where: str) -> tuple[dict[str, Any], str]:
    try:
        fields = json.loads(content)
        return fields, bytes.fromhex(fields["signer"]).hex()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ShelfError(where, f"{content[:20]!r}…", "a document and its signature") from error


def _short(keys: Collection[str]) -> str:
    return ", ".join(f"{key[:12]}…" for key in sorted(keys)) or "none is"
