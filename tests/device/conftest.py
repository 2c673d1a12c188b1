"""A base bundle and a person's adapter bundle made once; tests that damage them take copies."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedpeft.adapters import Adapter, Schema
from fedpeft.base import load_base
from fedpeft.device import LoadedAdapter, Manifest, Runtime
from fedpeft.export import export_adapter, export_base
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))


def random_adapter(base: Manifest, rank: int, deviation: float) -> Adapter:
    """Make a LoRA on every linear layer."""
    shapes = {
        f"base_model.model.{name}": tuple(rank if n is None else n for n in reversed(shape))
        for name, shape in base.tensors.items()
    }
    schema = Schema.of(shapes)
    vector = np.random.default_rng(0).normal(0, deviation, schema.size).astype(np.float32)
    return Adapter(schema, vector, {"peft_type": "LORA", "r": rank, "lora_alpha": 16}, base.base_fingerprint)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run folder as `fedpeft simulate` leaves it, with device bundles for ada and for all."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(tmp_path_factory.mktemp("home")))
        base = export_base(load_base("keyboard"), folder / "device" / "base", key=KEY)
        # Ada's is of an ordinary size; the other drowns whatever the base has learnt.
        for owner, deviation in (("ada", 0.1), ("global", 0.4)):
            adapter = random_adapter(base, rank=4, deviation=deviation)
            export_adapter(adapter, folder / "device" / "adapters" / owner, owner=owner, base=base, key=KEY)
        (folder / "run.json").write_text('{"started": "2025-11-22T10:00:00+00:00"}')
        yield folder


@pytest.fixture(scope="session")
def runtime(run: Path) -> Runtime:
    return Runtime(run / "device" / "base")


@pytest.fixture(scope="session")
def ada(run: Path, runtime: Runtime) -> LoadedAdapter:
    return runtime.load(run / "device" / "adapters" / "ada")


@pytest.fixture(scope="session")
def loud(run: Path, runtime: Runtime) -> LoadedAdapter:
    """Return an adapter whose every answer differs from the base's."""
    return runtime.load(run / "device" / "adapters" / "global")


@pytest.fixture
def base_copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run / "device" / "base", tmp_path / "base")


@pytest.fixture
def ada_copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run / "device" / "adapters" / "ada", tmp_path / "ada")
