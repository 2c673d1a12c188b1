"""``fedpeft export``: write bases and adapters for devices, of a run or of adapters from elsewhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedpeft.cli.options import AsJson
from fedpeft.device.folders import LATEST, NOBODY, PERSON, RECORD, SCENARIO, base_folder, find_run
from fedpeft.errors import FedpeftError

if TYPE_CHECKING:
    from fedpeft.device.manifest import Manifest

_RUN, _OTHER, _ONE = "A run", "Adapters from elsewhere", "One person's model"


def export(
    *,
    run: Annotated[str, typer.Option(help="A run's name or folder, or 'latest'.", rich_help_panel=_RUN)] = LATEST,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.", rich_help_panel=_RUN)] = Path("runs"),
    precision: Annotated[
        str | None, typer.Option(help="Of the base: float32, int8, int4 or dynamic-int8; by default the scenario's.")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="How the base takes adapters: optional, required (browsers) or rows (services)."),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(help="Places for adapters besides those needed: lora, scale, bias, bottleneck, prompt; or all."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Who makes the graph: native or torch; by default native where there is one."),
    ] = None,
    genai: Annotated[
        bool, typer.Option("--genai", help="Write device/genai too, a folder that onnxruntime-genai runs.")
    ] = False,
    adapters: Annotated[str | None, typer.Option(help="Adapters' numbers: float32 or float16.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="Signing key (Ed25519, PEM, mode 600); by default the run's own.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="An adapter's folder, peft's or ours, or its name in --store.", rich_help_panel=_OTHER),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The base it was trained on.", rich_help_panel=_OTHER)] = None,
    store: Annotated[Path | None, typer.Option(help="An adapter store.", rich_help_panel=_OTHER)] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder, laid out as a run.", rich_help_panel=_OTHER)] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Put --user's adapter into the base's weights.", rich_help_panel=_ONE)
    ] = False,
    user: Annotated[str | None, typer.Option(help="Whose.", rich_help_panel=_ONE)] = None,
    as_json: AsJson = False,
) -> None:
    """Export a run's base as one ONNX graph, and every person's adapter as a file that swaps over it.

    Example: fedpeft export --run latest --precision int4 --adapters float16

    Example: fedpeft export --adapter my-peft-folder --base keyboard --out mine

    Example: fedpeft export --merged --user global

    Example: fedpeft export --precision int4 --genai
    """
    from fedpeft.export.run import export_persons_model, export_run  # imports torch
    from fedpeft.export.settings import RunSettings, read_scenario
    from fedpeft.signing.keyfile import read_key

    if merged and genai:
        raise FedpeftError("--genai", "with --merged", "one of the two", "its folder is of a base and its adapters")
    if (user is not None) != merged:
        raise FedpeftError("--user", user, "--merged --user NAME", "people's adapters are exported without --user")
    if (adapter is not None) != (out is not None) or (adapter is None and (base is not None or store is not None)):
        raise FedpeftError("--adapter", adapter, "--adapter FOLDER --base NAME --out DIR together")
    folder = _collect(adapter, base, store, out) if adapter and out else find_run(run, runs)
    kinds = frozenset(sites.split(",")) if sites is not None else None
    settings = RunSettings.of(read_scenario(folder)).with_(
        adapters, precision=precision, variant=variant, sites=kinds, backend=backend
    )
    signer = read_key(key) if key is not None else None
    if merged and user is not None:
        place, manifest = export_persons_model(folder, user, signer, settings)
        _show(place, {user: manifest}, f"{user}'s own model, {_bytes(manifest) / 1e6:.1f} MB", as_json)
        return
    exported = export_run(folder, key=signer, settings=settings)
    people = [manifest for owner, manifest in exported.items() if owner != NOBODY]
    size, own = _bytes(exported[NOBODY]) / 1e6, sum(map(_bytes, people)) / 1e6
    said = f"the base in {exported[NOBODY].precision}, {size:.1f} MB, and {len(people)} adapters, {own:.1f} MB"
    if genai:
        from fedpeft.export.genai import export_run_genai

        said += f"; for onnxruntime-genai: {export_run_genai(folder)}"
    _show(base_folder(folder).parent, exported, said, as_json)


def _collect(names: list[str], base: str | None, store: Path | None, out: Path) -> Path:
    """Lay adapters out as a run's, so that every other verb finds them.

    Raises
    ------
    FedpeftError
        When the base is not named, an adapter cannot be read or has no name that a person can have, or there is
        something at ``out`` already.
    """
    from fedpeft.cli.adapter_source import Source, whole

    if base is None:
        raise FedpeftError("--base", None, "the base that the adapter was trained on")
    out = out.resolve()  # "." has no name, and is another folder once this one was replaced
    source = Source(store, base=base)
    found = {_name(name): source.load(name) for name in names}
    if len(found) != len(names):
        raise FedpeftError("--adapter", names, "adapters of different names")
    with whole(out) as draft:
        for name, adapter in found.items():
            adapter.save(draft / "clients" / name / "personal")
        (draft / SCENARIO).write_text(json.dumps({"base": {"name": base, "dtype": "float32"}}), encoding="utf-8")
        started = datetime.now(UTC).isoformat(timespec="seconds")
        (draft / RECORD).write_text(json.dumps({"name": out.name, "started": started}), encoding="utf-8")
    return out


def _name(adapter: str) -> str:
    """Return whose an adapter is by what it was called, in a store or as a folder."""
    path = Path(adapter)
    name = path.resolve().name if path.name in ("", "..") else path.name
    if not PERSON.fullmatch(name) or name == NOBODY:
        expected = f"a name of letters, digits and ._@+-, a letter, digit or _ first; not {NOBODY!r}"
        raise FedpeftError("--adapter", name, expected, "rename the folder")
    return name


def _bytes(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files.values())


def _show(folder: Path, exported: dict[str, Manifest], said: str, as_json: bool) -> None:
    if not as_json:
        Console().print(f"{folder}: {said}", highlight=False)
        return
    facts: dict[str, Any] = {"run": str(folder.parent), "device": str(folder)}
    typer.echo(json.dumps({**facts, "bytes": {owner: _bytes(manifest) for owner, manifest in exported.items()}}))
