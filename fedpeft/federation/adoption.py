"""What a device makes of the global adapter: a bundle under its own key, for onnxruntime, on which its person's builds.

The base's graph is made here too where the app did not bring one: its weights are on the device already.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fedpeft.adapters.schema import Vector
from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.events import Adopted, Linked
from fedpeft.device.edge.home import OWN_PARTS
from fedpeft.device.edge.joining import Seat
from fedpeft.device.edge.training import alone
from fedpeft.device.folders import EVERYBODY
from fedpeft.device.manifest import Manifest
from fedpeft.errors import AdapterError, BaseError, BundleError, FedpeftError, StoreError
from fedpeft.export import export_adapter, export_base
from fedpeft.export.fill import Ground
from fedpeft.export.run import needed_sites, obstacle
from fedpeft.export.settings import RunSettings
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from fedpeft.seeds import derive

_PATIENCE = 60.0  # seconds; a disk that is full is not full for ever


class Adoption:
    """The bundles of one device.

    Parameters
    ----------
    worker : Worker
        The device's.
    seat : Seat

    Attributes
    ----------
    round : int or None
        Of the adapter that was installed last.

    Raises
    ------
    BaseError
        When the base that the app brought is not the federation's.
    """

    def __init__(self, worker: Worker, seat: Seat) -> None:
        self._worker, self._seat = worker, seat
        self.round: int | None = None
        self._not_before = 0.0
        scenario = worker.scenario
        self._settings = RunSettings.of(scenario.model_dump(mode="json"))
        seed = derive(scenario.seed, "initial adapter")
        self._ground = Ground(worker.base, seed, self._settings.options.pooling)
        self._hindered = obstacle(worker.base, worker.attached.config(SHARED)) or ""
        if self._hindered:
            seat.tell(Linked(f"the adapter cannot answer on this device: {self._hindered}"))
            return
        self._base = self._known_base() or self._make_base()

    def update(self) -> bool:
        """Install the newest adapter that was sent, unless it is installed; return whether nothing is left to do."""
        newest = self._worker.newest
        if newest is None or newest[0] == (self.round or 0) or self._hindered:
            return True
        if time.monotonic() < self._not_before:
            return False
        try:
            with alone(self._seat.home.lock):
                self._install(*newest)
        except StoreError:
            return False  # the person's own is being trained, on top of the one before: a little later
        except AdapterError as error:
            self._hindered = str(error)
            self._seat.tell(Linked(f"the adapter of round {newest[0]} cannot answer on this device: {error}"))
            return True
        except (FedpeftError, OSError) as error:
            self._not_before = time.monotonic() + _PATIENCE
            self._seat.tell(Linked(f"the adapter of round {newest[0]} is not installed yet: {error}"))
            return False
        self.round = newest[0]
        self._seat.tell(Adopted(newest[0]))
        return True

    def _install(self, round_: int, change: Vector) -> None:
        worker, member = self._worker, self._seat.member
        vector = worker.start(member.client, round_ + 1, change)
        slot = self._seat.home.shared
        out = slot.draft()
        export_adapter(
            worker.attached.adapter(SHARED, vector),
            out,
            owner=EVERYBODY,
            base=self._base,
            key=self._seat.key,
            ground=self._ground,
            numbers=self._settings.adapters,
            scenario=worker.scenario.digest,
            details={"round": round_, "federation": member.federation, OWN_PARTS: bool(worker.private_mask.any())},
        )
        slot.install(out)

    def _known_base(self) -> Manifest | None:
        """Return what the base's bundle says of itself, if there is one for this federation's base."""
        own, wanted = self._seat.home.base.current(), self._worker.base
        folder = self._seat.base or own
        if folder is None:
            return None
        try:
            found = Bundle.open(folder, "base", self._seat.trusted).manifest
        except BundleError:
            if folder == own:
                return None  # it was cut short, or is of another version: it is made again
            raise
        if found.base_fingerprint == wanted.fingerprint:
            return found
        if folder == own:
            return None
        expected = f"the federation's {wanted.name}, {wanted.fingerprint[:12]}…"
        raise BaseError(f"base {folder}", f"{found.base_fingerprint[:12]}…", expected, "give this app that base")

    def _make_base(self) -> Manifest:
        slot, options = self._seat.home.base, self._settings.options
        start = self._worker.attached.initial[SHARED]
        with TemporaryDirectory() as folder:
            example = Path(folder) / "example"
            self._worker.attached.adapter(SHARED, start).save(example)
            options = replace(options, sites=options.sites | needed_sites([example], self._ground))
        out = slot.draft()
        try:
            made = export_base(self._worker.base, out, key=self._seat.key, options=options)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
        # Adapters made for another base would be refused over this one.
        self._seat.home.shared.clear()
        slot.install(out)
        return made
