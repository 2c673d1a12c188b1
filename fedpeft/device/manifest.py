"""What a bundle says of itself, as canonical JSON: kind, base, signer, files with their hashes, tensors."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from fedpeft.errors import BundleError

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
SCHEMA = 2
"""Version of the manifest's own layout; a reader refuses any other."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Filename = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=128)]
"""A plain name: without separators, drive letters or a leading dot it cannot leave the folder."""

Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

Shape = tuple[int | None, ...]
"""``None`` stands for a width that the adapter chooses: a rank, a bottleneck, a number of classes."""

Variant = Literal["optional", "required", "rows"]
"""Inputs for adapters have neutral defaults; must be fed, as in a browser; differ from row to row of a batch."""

Precision = Literal["float32", "float16", "int8", "int4", "dynamic-int8"]


class Part(BaseModel):
    """Of something that is signed: nothing in it is guessed at, converted or ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class File(Part):
    """What a file must hash to."""

    sha256: Digest
    bytes: int = Field(ge=0)


class DecoderFacts(Part):
    """What running a base's graph takes that the graph does not say itself.

    A message is ``me`` or ``you``, its pieces, ``end``; a context begins with ``start``. Marks that the
    tokenizer lacks are empty.
    """

    context: int = Field(ge=1, description="Most tokens the base can look back on, the new one included.")
    vocabulary: int = Field(ge=1)
    layers: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    start: tuple[int, ...]
    me: tuple[int, ...]
    you: tuple[int, ...]
    end: tuple[int, ...]
    pad: int


class EncoderFacts(Part):
    """What running an encoder's graph takes that the graph does not say itself."""

    context: int = Field(ge=1, description="Most tokens of a text, the marks included.")
    vocabulary: int = Field(ge=1)
    hidden: int = Field(ge=1, description="Width of what a head reads.")
    pad: int


class Manifest(Part):
    """The content of ``manifest.json``."""

    schema_version: Literal[2] = 2
    kind: Literal["base", "adapter"]
    base_fingerprint: Digest = Field(
        description="Of the base's published weights: one for its float32, int8 and int4 graphs."
    )
    signer: Key = Field(description="Ed25519 public key whose signature of this manifest lies beside it.")
    name: str = Field(min_length=1, description="The base's name, or whose adapter it is.")
    method: str | None = Field(None, description="How an adapter was trained; none for a base.")
    variant: Variant | None = Field(None, description="How a base's graph takes adapters; none for an adapter.")
    precision: Precision = Field("float32", description="Of a base's weights, or of an adapter's numbers.")
    files: dict[Filename, File]
    tensors: dict[str, Shape] = Field(
        description="A base: inputs an adapter may fill, for one row in the variant 'rows'. An adapter: those it fills."
    )
    decoder: DecoderFacts | None = None
    encoder: EncoderFacts | None = None
    labels: tuple[str, ...] = Field((), description="What the head in a classifier's adapter tells apart, in order.")
    context: int | None = Field(
        None, ge=3, description="Tokens that an adapter for ranking replies reads of a text, the marks included."
    )
    scenario: Digest | None = Field(None, description="Of the scenario an adapter was trained by.")
    privacy: dict[str, JsonValue] | None = Field(None, description="What its training spent; none without guarantees.")
    details: dict[str, JsonValue] = Field({}, description="Facts for people; nothing depends on them.")

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        facts = [self.decoder, self.encoder]
        if len([f for f in facts if f is not None]) != (self.kind == "base"):
            raise ValueError("a base has either 'decoder' or 'encoder', an adapter neither")
        if (self.variant is not None) != (self.kind == "base"):
            raise ValueError("'variant' belongs to a base, and every base has one")
        if listed := {MANIFEST, SIGNATURE} & self.files.keys():
            raise ValueError(f"{min(listed)} cannot be listed")
        return self

    def to_json(self) -> bytes:
        """Return canonical JSON: sorted keys, no spaces, UTF-8; equal manifests are equal bytes."""
        return canonical(self)

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Manifest:
        """Read a manifest.

        Parameters
        ----------
        content : bytes
        where : str
            The folder, for the message of an error.

        Raises
        ------
        BundleError
            When it is not JSON, has another schema version, or a field is missing, unknown or malformed.
        """
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where}/{MANIFEST}", str(error), "JSON", "export it again") from error
        version = fields.get("schema_version") if isinstance(fields, dict) else None
        if version != SCHEMA:
            raise BundleError(
                f"{where}/{MANIFEST} schema_version",
                version,
                str(SCHEMA),
                "export it again with this version of fedpeft, or update fedpeft on the device",
            )
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            field, found, wanted = complaint(error, "manifest")
            raise BundleError(f"{where}/{MANIFEST} {field}", found, wanted, "export it again") from error


def canonical(model: BaseModel) -> bytes:
    """Return a model as JSON with sorted keys, no spaces and UTF-8: what is signed, as equal models are equal bytes."""
    return json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def complaint(error: ValidationError, whole: str) -> tuple[str, str, str]:
    """Return the first field that is wrong, what was found there and what was expected; ``whole`` if it is no field."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or whole
    return field, "absent" if first["type"] == "missing" else str(first["input"])[:80], first["msg"]
