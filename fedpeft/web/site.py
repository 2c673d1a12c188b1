"""The folder that a static server serves.

==================================  =======================================================================
``index.html``, ``assets/``, …      the built page, with onnxruntime-web in it
``bundles/index.json``              whose base is believed, and who can be chosen
``bundles/base/``                   the base: variant ``required``, matrices stored as int8
``bundles/adapters/<person>/``      ``manifest.json``, ``manifest.sig``, ``adapter.onnx_adapter``,
                                    ``prefix.onnx_adapter``
==================================  =======================================================================

Whoever can reach the folder can read the adapters in it, so nobody's is put there unless asked for by name.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import onnx_ir as ir

from fedpeft.base import Base, load_base
from fedpeft.device.bundle import ADAPTER, GRAPH, PREFIX, TOKENIZER, Bundle, hash_files, seal
from fedpeft.device.folders import SCENARIO, adapter_folder, base_folder, require_owner, users
from fedpeft.device.manifest import MANIFEST, SIGNATURE, Manifest, Precision
from fedpeft.errors import RunError, WebError, nearest
from fedpeft.export import ExportOptions, export_base
from fedpeft.export.folder import whole_folder
from fedpeft.export.options import site_kind
from fedpeft.export.run import signing_key
from fedpeft.scenario import load_scenario
from fedpeft.signing.signature import SigningKey
from fedpeft.web.storage import store_in_int8

INDEX = "bundles/index.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""Names that the page takes (``client/web/src/engine/site.ts``); it refuses a folder with any other as a whole."""
Weights = Literal["int8", "dynamic-int8", "float32"]


@dataclass(frozen=True)
class Site:
    """What was written: where, the base's manifest, and bytes by what they are for."""

    folder: Path
    base: Manifest
    sizes: dict[str, int]


def build_site(run: Path, out: Path, people: Sequence[str], page: Path, weights: str = "int8") -> Site:
    """Write the page, a run's base and the adapters of some people.

    Parameters
    ----------
    run : Path
        Exported already: its people's bundles are copied, with their signatures.
    out : Path
        Replaced if it is such a folder already.
    people : sequence of str
        In the order in which the page offers them.
    page : Path
        The built page.
    weights : {"int8", "dynamic-int8", "float32"}
        Matrices stored as int8 and multiplied as float32; multiplied as int8 too; neither.

    Raises
    ------
    WebError
        For an unknown kind of weights, or a name that the page does not take.
    RunError
        When somebody has no adapter in the run.
    BundleError
        When an adapter is not what it should be, or the folder cannot be written; nothing half-written is left.
    """
    if weights not in get_args(Weights):
        raise WebError("weights", weights, " or ".join(get_args(Weights)), nearest(weights, get_args(Weights)))
    _require_people(run, people)
    settings = load_scenario(run / SCENARIO).base
    exported = Bundle.open(base_folder(run), "base").manifest.tensors
    ground = Ground(
        load_base(settings.name, settings.dtype),
        signing_key(run),
        # The kinds of sites of the run's own export, so that whoever fits there fits here.
        frozenset(kind for name in exported if (kind := site_kind(name))),
    )
    with whole_folder(out, mode=0o755, marker=INDEX) as draft:
        return write_site(draft, page, ground, {name: adapter_folder(run, name) for name in people}, weights, out)


@dataclass(frozen=True)
class Ground:
    """A base, who signs for it, and the kinds of sites its graph is to have."""

    base: Base
    key: SigningKey
    sites: frozenset[str] = frozenset({"lora"})


def write_site(
    draft: Path, page: Path, ground: Ground, adapters: Mapping[str, Path], weights: str, out: Path | None = None
) -> Site:
    """Fill an empty folder; see :func:`build_site`. ``out`` is where it will lie, if elsewhere."""
    shutil.copytree(page, draft, dirs_exist_ok=True)
    sizes = {"page": _size(draft)}
    base = _web_base(ground, draft / "bundles" / "base", weights)
    sizes["base"] = _size(draft / "bundles" / "base")
    for person, bundle in adapters.items():
        copy = draft / "bundles" / "adapters" / person
        _copy_adapter(bundle, copy, base)
        sizes[person] = _size(copy)
    index = {"trusted": [base.signer], "people": list(adapters)}
    (draft / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return Site(out or draft, base, sizes)


def _web_base(ground: Ground, out: Path, weights: str) -> Manifest:
    """Export a base the way a browser runs it: one graph file, adapters as required inputs."""
    precision: Precision = "dynamic-int8" if weights == "dynamic-int8" else "float32"
    options = ExportOptions("required", precision, ground.sites)
    with TemporaryDirectory(prefix="fedpeft-web-") as folder:
        plain = Path(folder) / "base"
        manifest = export_base(ground.base, plain, key=ground.key, options=options)
        model = ir.load(plain / GRAPH)
        if weights == "int8":
            store_in_int8(model)
        ir.external_data.load_to_model(model)
        out.mkdir(parents=True)
        ir.save(model, out / GRAPH)
        shutil.copyfile(plain / TOKENIZER, out / TOKENIZER)
    manifest = manifest.model_copy(update={"precision": weights, "files": hash_files(out)})
    seal(out, manifest, ground.key)
    return manifest


def _require_people(run: Path, people: Collection[str]) -> None:
    known = users(run)
    for person in people:
        if person not in known:
            remedy = nearest(person, known) if known else f"export the run first: fedpeft export --run {run.name}"
            raise RunError("user", person, f"somebody with an adapter in {run}", remedy)
        if not _NAME.fullmatch(person):
            raise WebError("user", person, "a name of letters, digits and ._-", "the page takes no other names")


def _copy_adapter(bundle: Path, out: Path, base: Manifest) -> None:
    """Copy what the browser reads of a person's bundle, which must be whole, theirs, and signed as the base is."""
    opened = Bundle.open(bundle, "adapter", [base.signer])
    opened.require_base(base.base_fingerprint)
    require_owner(opened.manifest, out.name)
    opened.verify()
    out.mkdir(parents=True)
    for name in (MANIFEST, SIGNATURE):
        shutil.copyfile(bundle / name, out / name)
    for name in {ADAPTER, PREFIX} & opened.manifest.files.keys():
        (out / name).write_bytes(opened.read(name))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
