"""Everything of a run that travels to devices: the base once, and every adapter that was kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpeft.adapters import Adapter
from fedpeft.adapters.adapter import read_config
from fedpeft.base import Base, load_base
from fedpeft.device.folders import EVERYBODY, NOBODY, TRUST, adapter_folder, base_folder
from fedpeft.device.manifest import Manifest, Variant
from fedpeft.errors import AdapterError, BaseError, RunError, nearest
from fedpeft.export.adapter import export_adapter
from fedpeft.export.base import backend_of, export_base
from fedpeft.export.encoder_run import Classes
from fedpeft.export.fill import Ground, fill, require_fillable
from fedpeft.export.merged import export_merged
from fedpeft.export.options import site_kind
from fedpeft.export.settings import RunSettings, ranked_context, read_record, read_scenario
from fedpeft.seeds import derive
from fedpeft.signing.keyfile import own_key
from fedpeft.signing.signature import SigningKey


def export_run(
    run: Path,
    base: Base | None = None,
    key: SigningKey | None = None,
    settings: RunSettings | None = None,
    into: Path | None = None,
) -> dict[str, Manifest]:
    """Export a run's base and adapters to ``<run>/device``; the base of another variant beside the usual one.

    Parameters
    ----------
    run : Path
        With ``scenario.json``, ``adapters/global`` and ``clients/<user>/personal``.
    base : Base, optional
        The run's base if it is loaded already.
    key : Ed25519PrivateKey, optional
        Whose signature the bundles carry; when not given, the run's own, which is made with its first export.
    settings : RunSettings, optional
        By default what the scenario's ``[export]`` table says.
    into : Path, optional
        Where ``device`` is made, instead of in the run; with a key, the run is then only read.

    Returns
    -------
    dict of str to Manifest
        By owner; the base's own under ``base``.

    Raises
    ------
    RunError
        When the run's scenario cannot be read, or a client has a reserved name.
    FedpeftError
        When the base or an adapter cannot be exported.
    """
    adapters, scenario, record = find_adapters(run), read_scenario(run), read_record(run)
    settings, classes = settings or RunSettings.of(scenario), Classes.of(scenario)
    base = base or _load(scenario, classes)
    ground = _ground(base, scenario, settings)
    key, out = key or signing_key(run), into or run
    options = replace(settings.options, sites=settings.options.sites | needed_sites(adapters.values(), ground))
    exported = {NOBODY: export_base(base, variant_folder(out, options.variant), key=key, options=options)}
    for owner, folder in adapters.items():
        start, end = classes.range_of(owner) if classes else (0, 0)
        exported[owner] = export_adapter(
            Adapter.load(folder, base.fingerprint),
            adapter_folder(out, owner),
            owner=owner,
            base=exported[NOBODY],
            key=key,
            ground=ground,
            numbers=settings.adapters,
            scenario=record.get("scenario"),
            privacy=record.get("privacy"),
            labels=classes.labels[start:end] if classes else (),
            classes=slice(start, end) if classes else slice(None),
            context=ranked_context(scenario),
        )
    return exported


def export_persons_model(
    run: Path, user: str, key: SigningKey | None = None, settings: RunSettings | None = None
) -> tuple[Path, Manifest]:
    """Export one person's model of a run, their adapter merged into it, to ``<run>/device/merged/<user>``.

    Returns
    -------
    folder : Path
    manifest : Manifest

    Raises
    ------
    RunError
        When nobody of that name has an adapter in the run.
    FedpeftError
        When it cannot be merged.
    """
    adapters, scenario = find_adapters(run), read_scenario(run)
    if user not in adapters:
        raise RunError("user", user, f"somebody with an adapter in {run}", nearest(user, adapters))
    settings, base = settings or RunSettings.of(scenario), _load(scenario, None)
    adapter, out = Adapter.load(adapters[user], base.fingerprint), merged_folder(run, user)
    ground, key = _ground(base, scenario, settings), key or signing_key(run)
    return out, export_merged(adapter, out, owner=user, ground=ground, key=key, options=settings.options)


def _ground(base: Base, scenario: Mapping[str, Any], settings: RunSettings) -> Ground:
    return Ground(base, derive(int(scenario.get("seed", 0)), "initial adapter"), settings.options.pooling)


def variant_folder(run: Path, variant: Variant) -> Path:
    """Return where a run's base of a variant lies or will lie; the other bundles beside it fit them all."""
    return base_folder(run) if variant == "optional" else base_folder(run).with_name(f"base-{variant}")


def merged_folder(run: Path, user: str) -> Path:
    """Return where a person's merged model lies or will lie."""
    return base_folder(run).with_name("merged") / user


def needed_sites(folders: Iterable[Path], ground: Ground) -> frozenset[str]:
    """Return the kinds of sites that adapters fill; of those of one configuration, one shows what all of them do."""
    examples = {json.dumps(read_config(folder), sort_keys=True): folder for folder in folders}
    fillings = (fill(Adapter.load(folder, ground.base.fingerprint), ground) for folder in examples.values())
    return frozenset(kind for filling in fillings for name in filling.inputs if (kind := site_kind(name)))


def signing_key(run: Path) -> SigningKey:
    """Return the key that signs a run's bundles; it is made when there is none, and only its owner can read it."""
    return own_key(run / TRUST / "bundles.pem")


def obstacle(base: Base, config: Mapping[str, Any]) -> str | None:
    """Return why a base and adapters of this configuration cannot become bundles, or None when nothing is known."""
    try:
        backend_of(base)
        require_fillable(config)
    except (AdapterError, BaseError) as error:
        return str(error)
    return None


def find_adapters(run: Path) -> dict[str, Path]:
    """Return the folders of a run's adapters by owner, the one that all share first.

    Raises
    ------
    RunError
        When a client has a reserved name.
    """
    shared = run / "adapters" / "global"
    found = {EVERYBODY: shared} if shared.is_dir() else {}
    for folder in sorted(run.glob("clients/*/personal")):
        owner = folder.parent.name
        if owner in (NOBODY, EVERYBODY):
            raise RunError(f"client of {run}", owner, f"a name other than {NOBODY!r} and {EVERYBODY!r}")
        found[owner] = folder
    return found


def _load(scenario: Mapping[str, Any], classes: Classes | None) -> Base:
    named = scenario["base"]
    labels = len(classes.labels) if classes else 0 if ranked_context(scenario) else None
    return load_base(str(named["name"]), str(named["dtype"]), labels=labels)
