"""The builtin base in float32, exported once, with adapters of several ranks as peft holds them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat
from fedpeft.base import Base, load_base
from fedpeft.device import LoadedAdapter, Manifest, Runtime
from fedpeft.export import export_adapter, export_base
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.signing.signature import SigningKey

SLOTS = {"rank 8": (SHARED,), "rank 2": (PRIVATE,), "both": (SHARED, PRIVATE), "base": ()}
"""Which of torch's slots are active for each of the exported adapters."""

KEY = SigningKey.from_private_bytes(bytes(32))

DEVIATION = 0.05
"""Of the numbers in A and B. With 0.2 the network is so ill-conditioned that torch's own float32 is 3e-3 from
float64, and no two implementations agree; a test of its own looks at that."""


@dataclass(frozen=True)
class Exported:
    base: Base
    attached: Attached
    adapters: dict[str, Adapter]
    manifest: Manifest
    folder: Path
    runtime: Runtime
    loaded: dict[str, LoadedAdapter | None]

    def torch_logits(self, ids: list[int], name: str) -> np.ndarray:
        self.attached.activate(*SLOTS[name])
        with torch.no_grad():
            return self.attached.model(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(tmp_path_factory.mktemp("home")))
        yield load_base("keyboard", "float32")


@pytest.fixture(scope="session")
def bare(base: Base) -> torch.nn.Module:
    """The builtin base's model without anything attached to it, as ``base.model`` has."""
    return load_base("keyboard", "float32").model


@pytest.fixture(scope="session")
def exported(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("bundles")
    manifest = export_base(base, folder / "base", key=KEY)
    attached = Attached(base, Lora(rank=8), Lora(rank=2, rslora=True), seed=0)
    adapters = {}
    for seed, (name, slot) in enumerate({"rank 8": SHARED, "rank 2": PRIVATE}.items()):
        size = attached.schemas[slot].size
        vector = np.random.default_rng(seed).normal(0, DEVIATION, size).astype(np.float32)
        attached.write(slot, vector)
        adapters[name] = attached.adapter(slot, vector)
    adapters["both"] = cat([adapters["rank 8"], adapters["rank 2"]], [1.0, 1.0])
    runtime = Runtime(folder / "base")
    loaded: dict[str, LoadedAdapter | None] = {"base": None}
    for name, adapter in adapters.items():
        export_adapter(adapter, folder / name, owner=name, base=manifest, key=KEY)
        loaded[name] = runtime.load(folder / name)
    return Exported(base, attached, adapters, manifest, folder, runtime, loaded)
