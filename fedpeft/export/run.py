"""Everything of a run that travels to devices: the base once, and every adapter that was kept."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
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
    found, out = RunExport(run, base, key, settings), into or run
    exported = {NOBODY: found.write_base(variant_folder(out, found.options.variant))}
    for owner in found.adapters:
        exported[owner] = found.write_adapter(owner, exported[NOBODY], adapter_folder(out, owner))
    return exported


class RunExport:
    """A run, read and ready to be written for devices.

    Parameters
    ----------
    run, base, key, settings
        As of :func:`export_run`.
    owners : collection of str, optional
        Whose adapters; all of the run when not given.

    Raises
    ------
    RunError
        When the run's scenario cannot be read, or it has no adapter of one of the owners.
    """

    def __init__(
        self,
        run: Path,
        base: Base | None = None,
        key: SigningKey | None = None,
        settings: RunSettings | None = None,
        owners: Collection[str] | None = None,
    ) -> None:
        self.adapters, self.scenario, self.record = find_adapters(run), read_scenario(run), read_record(run)
        if owners is not None:
            for owner in owners:
                if owner not in self.adapters:
                    raise RunError("adapter", owner, f"one that {run} has", "its rounds are not over")
            self.adapters = {owner: self.adapters[owner] for owner in owners}
        self._settings, self._classes = settings or RunSettings.of(self.scenario), Classes.of(self.scenario)
        self.base = base or _load(self.scenario, self._classes)
        self._ground, self._key = _ground(self.base, self.scenario, self._settings), key or signing_key(run)
        options = self._settings.options
        self.options = replace(options, sites=options.sites | needed_sites(self.adapters.values(), self._ground))

    def write_base(self, out: Path) -> Manifest:
        """Write the base's bundle."""
        return export_base(self.base, out, key=self._key, options=self.options)

    def write_adapter(self, owner: str, base: Manifest, out: Path) -> Manifest:
        """Write the bundle of somebody's adapter for a base's bundle."""
        classes = self._classes
        start, end = classes.range_of(owner) if classes else (0, 0)
        return export_adapter(
            Adapter.load(self.adapters[owner], self.base.fingerprint),
            out,
            owner=owner,
            base=base,
            key=self._key,
            ground=self._ground,
            numbers=self._settings.adapters,
            scenario=self.record.get("scenario"),
            privacy=self.record.get("privacy"),
            labels=classes.labels[start:end] if classes else (),
            classes=slice(start, end) if classes else slice(None),
            context=ranked_context(self.scenario),
        )

    def fits(self, base: Manifest) -> bool:
        """Say whether a base's bundle can be used as it is; an encoder's does not say how it pools, and is not."""
        options, kinds = self.options, {site_kind(name) for name in base.tensors}
        return (
            base.base_fingerprint == self.base.fingerprint
            and base.decoder is not None
            and (base.variant, base.precision) == (options.variant, options.precision)
            and options.sites <= kinds
        )


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
