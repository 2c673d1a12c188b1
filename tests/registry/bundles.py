"""Bundles of a few kilobytes that are signed and whole, and that nobody runs."""

from __future__ import annotations

import random
from pathlib import Path

from fedpeft.device.bundle import hash_files, seal
from fedpeft.device.manifest import DecoderFacts, Manifest
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.version import Head, Version
from fedpeft.registry.publisher import Facts, Publisher
from fedpeft.signing.signature import SigningKey, public_bytes

KEY, OTHER_KEY = SigningKey.from_private_bytes(bytes(32)), SigningKey.from_private_bytes(bytes([1]) * 32)
FEDERATION = "chat"
TRUST = Trust(FEDERATION, frozenset({public_bytes(KEY).hex()}))
FACTS = DecoderFacts(
    context=8, vocabulary=8, layers=1, kv_heads=1, head_dim=8, start=(0,), me=(1,), you=(2,), end=(3,), pad=0
)


def fingerprint(base: int) -> str:
    return f"{base:064x}"


def write_bundle(folder: Path, kind: str, files: dict[str, bytes], base: int = 1, key: SigningKey = KEY) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    manifest = Manifest(
        kind=kind,
        base_fingerprint=fingerprint(base),
        signer=public_bytes(key).hex(),
        name="keyboard" if kind == "base" else "global",
        variant="optional" if kind == "base" else None,
        files=hash_files(folder),
        tensors={},
        decoder=FACTS if kind == "base" else None,
    )
    seal(folder, manifest, key)
    return folder


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def base_bundle(folder: Path, base: int = 1, size: int = 300_000, graph: int = 0, key: SigningKey = KEY) -> Path:
    files = {"model.onnx": noise(graph, 500), "model.onnx.data": noise(100 + base, size), "tokenizer.json": b"{}"}
    return write_bundle(folder, "base", files, base, key)


def adapter_bundle(folder: Path, seed: int = 0, base: int = 1, size: int = 20_000, key: SigningKey = KEY) -> Path:
    return write_bundle(folder, "adapter", {"adapter.onnx_adapter": noise(1000 + seed, size)}, base, key)


def publisher(folder: Path, key: SigningKey = KEY, federation: str = FEDERATION) -> Publisher:
    return Publisher(folder, federation, key)


def put(
    shelf: Publisher, drafts: Path, number: int, base: int = 1, channel: str = "stable", **of_base
) -> tuple[Version, Head]:
    """Publish the ``number``-th version of a run."""
    folders = {"base": drafts / f"base-{number}", "adapter": drafts / f"adapter-{number}"}
    base_bundle(folders["base"], base, key=shelf.key, **of_base)
    adapter_bundle(folders["adapter"], number, base, key=shelf.key)
    facts = Facts("run", number, "5" * 64, "keyboard", {"top3": 0.25}, {"mechanism": "none"})
    return shelf.publish(facts, folders, channel)
