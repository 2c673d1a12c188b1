"""A base's graph in onnxruntime, as this device wants it.

=============  =========================================================================================================
``threads``    for the arithmetic of one run
``mapped``     a float32 graph computes from its file, which the system pages in and out: a tenth of the memory. Never
               for a quantized one, whose weights would be unpacked in every run
``prepacked``  a folder to keep the graph in the form that this processor wants its weights in. It is made on the first
               start and read on the next: less memory and a quicker start for some disk. Another onnxruntime, another
               processor or another base makes another
=============  =========================================================================================================
"""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import onnxruntime as ort

from fedpeft.device.bundle import FINGERPRINT, GRAPH, Bundle, hash_files
from fedpeft.device.manifest import File
from fedpeft.device.private import ours_alone
from fedpeft.errors import BundleError, FedpeftError
from fedpeft.files import private_folder

QUIET, SILENT = 3, 4
"""onnxruntime's severities "error", as it would warn once per optional input, and "fatal"."""

_SEAL = "made.json"
_WEIGHTS = f"{GRAPH}.data"


@dataclass(frozen=True)
class Device:
    """How a graph is run here.

    Parameters
    ----------
    threads : int
    mapped : bool
    prepacked : Path, optional

    Raises
    ------
    FedpeftError
        When one has no meaning.
    """

    threads: int = 1
    mapped: bool = False
    prepacked: Path | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise FedpeftError("threads", self.threads, "1 or more")
        if self.mapped and self.prepacked is not None:
            raise FedpeftError("prepacked", str(self.prepacked), "none beside mapped", "choose one of the two")


def open_graph(bundle: Bundle, device: Device) -> ort.InferenceSession:
    """Load a base's graph.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``base``, verified, and such that it stays so (:func:`fedpeft.device.private.settled`).
    device : Device

    Raises
    ------
    BundleError
        When onnxruntime cannot load the graph, it is of another base than the manifest says, it is quantized and to be
        mapped, or the prepacked graph cannot be written.
    """
    precision = bundle.manifest.precision
    if device.mapped and precision != "float32":
        raise BundleError(f"{bundle.folder} precision", precision, "float32 to be mapped", "use prepacked instead")
    options = _options(device)
    path = bundle.folder / GRAPH
    if device.mapped:
        options.add_session_config_entry("session.disable_prepacking", "1")
    elif device.prepacked is not None:
        path = _prepacked(bundle, device, device.prepacked)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _load(path, options)
    bundle.require_base(session.get_modelmeta().custom_metadata_map.get(FINGERPRINT, ""))
    return session


def _options(device: Device) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.log_severity_level = QUIET
    return options


def _load(path: Path, options: Any) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes of Exception
        raise BundleError(str(path), str(error), "a graph onnxruntime can load") from error


def _prepacked(bundle: Bundle, device: Device, store: Path) -> Path:
    """Return the graph as this device wants it, made now if it is not there or not what was made."""
    listed = bundle.manifest.files
    base = _digest([listed[name].sha256 for name in sorted(listed)])
    try:
        store = store.resolve()  # once: what is judged is what is used, wherever a link points later
        private_folder(store)
        if not ours_alone(store):
            raise BundleError("prepacked", str(store), "a folder that only you can change", "chmod 700 it")
        folder = store / f"{base}-{_digest([ort.__version__, _processor()])}"
        if not _whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            _make(bundle, device, folder)
            for other in store.glob(f"{base}-*"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        raise BundleError("prepacked", str(store), "a place to write", error.strerror or str(error)) from error
    return folder / GRAPH


def _make(bundle: Bundle, device: Device, folder: Path) -> None:
    draft = Path(mkdtemp(prefix=".draft-", dir=folder.parent))
    options = _options(device)
    options.optimized_model_filepath = str(draft / GRAPH)
    for key, value in (
        ("optimized_model_external_initializers_file_name", _WEIGHTS),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    try:
        _load(bundle.folder / GRAPH, options)
        made = {name: file.model_dump() for name, file in hash_files(draft).items()}
        (draft / _SEAL).write_text(json.dumps(made), encoding="utf-8")
        try:
            draft.rename(folder)
        except OSError:
            if not _whole(folder):  # another process was quicker, and made the same
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _whole(folder: Path) -> bool:
    """Say whether a prepacked graph is the one that was made."""
    try:
        made = {name: File(**file) for name, file in json.loads((folder / _SEAL).read_text(encoding="utf-8")).items()}
        found = hash_files(folder)
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    del found[_SEAL]
    return bool(made) and found == made


@cache
def _processor() -> str:
    """Describe what decides how weights are packed: the processor's model and what it can do."""
    lines = [platform.machine(), platform.processor(), platform.system()]
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", maxsplit=1)[0].splitlines()
        lines += [line for line in known if line.startswith(("model name", "flags", "Features", "CPU part"))]
    except OSError:
        pass  # not Linux: what platform says has to do
    return "\n".join(lines)


def _digest(parts: list[str]) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()[:16]
