"""A client's work, without Flower: what a device does with a plan, on its own text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedpeft.adapters.partition import Role
from fedpeft.adapters.schema import Vector
from fedpeft.adapters.update import WEIGHT, Update, require_finite
from fedpeft.codecs import WireCodec
from fedpeft.codecs.ring import Ring
from fedpeft.codecs.rotation import Rotation
from fedpeft.data.stored import StoredFederation
from fedpeft.device.edge.events import Event
from fedpeft.device.edge.joining import Seat
from fedpeft.errors import DataError, ScenarioError, nearest
from fedpeft.federation.fleet import Fleet
from fedpeft.federation.private_state import PrivateState
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario
from fedpeft.scenario.validate import panel_codec, ring_codec
from fedpeft.seeds import derive, stream
from fedpeft.tasks import Splits
from fedpeft.training import Trained, evaluate, train
from fedpeft.training.evaluate import LANES as TALLY_LANES

TRAIN_LANES = (WEIGHT, "loss", "tokens", "squared_norm", "squared_error", "clipped")


@dataclass(frozen=True)
class Device:
    """Whose device a process runs on, where it runs on one.

    Parameters
    ----------
    client : str
        The one client that this process serves.
    identity : Path
        Folder of its key and certificate.
    pinned : Path
        ``pinned.json``, as the app has it.
    kind : str
        The scenario's class of devices that it is of; where empty, the one that the scenario draws for the client.
    """

    client: str
    identity: Path
    pinned: Path
    kind: str = ""


class Worker:
    """Everything that the clients served by one process share: the bases, the method, the encoded text.

    Parameters
    ----------
    scenario : Scenario
    states : Path
        Folder with one private folder per client.
    device : Device, optional
        In a deployed federation; a simulation's process serves all clients.
    seat : Seat, optional
        The device's text and what its person allows, where the scenario leaves the text to the devices.

    Attributes
    ----------
    newest : tuple of int and ndarray, or None
        Round and change of the newest global adapter that this device was sent.
    over : threading.Event
        Set when the server said that the run is over.
    fleet : Fleet
        What each client computes with.
    task, attached, base
        Of the fleet's reference; the server has no other.
    """

    def __init__(
        self, scenario: Scenario, states: Path, device: Device | None = None, seat: Seat | None = None
    ) -> None:
        # One thread per process: engines then agree to the bit, and one worker per core is fastest.
        torch.set_num_threads(1)
        self.scenario = scenario
        self.states = states
        self.device, self.seat = device, seat if scenario.enrolled else None
        text = StoredFederation(self.seat.store, device.client) if self.seat and device else None
        self.fleet = Fleet(scenario, {device.client: device.kind} if device and device.kind else {}, text)
        self.newest: tuple[int, Vector] | None = None
        self.over = threading.Event()
        self.task, self.attached = self.fleet.reference.task, self.fleet.reference.attached
        self.base = self.task.base
        self._partition = scenario.partition(self.base.head)
        self._check_roles()
        self.ring = ring_codec(scenario)
        self._splits: dict[str, Splits[Any]] = {}

    def _check_roles(self) -> None:
        """Refuse a partition that divides nothing, and private names that no tensor has."""
        federation, names = self.scenario.federation, self.attached.schemas[SHARED].names()
        for part in federation.private or ():
            if not any(part in name for name in names):
                raise ScenarioError("federation.private", part, "part of a tensor's name", f"such as {names[0]}")
        roles = [{self.role(round_, name) for name in names} for round_ in (0, 1)]
        method = self.scenario.shared_method.name
        if federation.partition != "all" and not any("lora_A" in name for name in names):
            raise ScenarioError(
                "federation.partition", federation.partition, "all", f"{method} has no factors lora_A and lora_B"
            )
        if not all(Role.SHARED in found for found in roles):
            remedy = "all of it is private or frozen: see federation.partition, federation.private and task.head"
            raise ScenarioError("method.name", method, "something to share in every round", remedy)

    @property
    def client_ids(self) -> list[str]:
        """The clients of the scenario, in the federation's order."""
        return self.fleet.clients

    @property
    def size(self) -> int:
        """Length of the shared adapter's vector."""
        return self.attached.schemas[SHARED].size

    def splits(self, client: str) -> Splits[Any]:
        """Return one client's encoded examples, read once; those of a device's store as they are now."""
        if client not in self._splits:
            if client not in self.client_ids:
                raise DataError("client", client, "a client of the federation", nearest(client, self.client_ids))
            if self.seat:
                return self.fleet.splits(client)
            self._splits[client] = self.fleet.splits(client)
        return self._splits[client]

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let something be learnt from a client's text, if on this device it may; it leaves if this ends well."""
        with self.seat.training() if self.seat else nullcontext():
            yield

    def reluctance(self, client: str) -> str:
        """Return why a client cannot take part now; nothing when it can."""
        if self.seat and not self.seat.willing:
            return "not now"
        return "" if self.splits(client).train.tokens else "no text of their own to train on"

    def saw(self, round_: int, change: Vector) -> None:
        """Remember a global adapter that was sent to a device, if it is newer than the last."""
        if self.device and (self.newest is None or round_ >= self.newest[0]):
            self.newest = round_, change

    def tell(self, event: Event) -> None:
        """Let the device's observer hear something."""
        if self.seat:
            self.seat.tell(event)

    def role(self, round_: int, name: str) -> Role:
        """Say who trains and who keeps a tensor in a round."""
        return self._partition(name, round_)

    def shared_mask(self, round_: int) -> np.ndarray:
        """Return which coordinates of the shared vector travel in a round; boolean, shape (size,)."""
        return self.attached.schemas[SHARED].mask(lambda name: self.role(round_, name) is Role.SHARED)

    @cached_property
    def public_mask(self) -> np.ndarray:
        """Return which coordinates the federation ever moves; the others are not sent to clients either."""
        # Partitions go by even and odd rounds.
        return np.asarray(self.shared_mask(0) | self.shared_mask(1))

    def public(self, change: Vector) -> Vector:
        """Return the part of a global change that travels."""
        return np.asarray(change[self.public_mask], np.float32)

    def whole(self, public: Vector) -> Vector:
        """Return a global change from the part that travelled; shape (size,)."""
        change = np.zeros(self.size, np.float32)
        change[self.public_mask] = public
        return change

    @cached_property
    def private_mask(self) -> np.ndarray:
        """Return which coordinates stay with the client in any round; boolean, shape (size,)."""
        return self.attached.schemas[SHARED].mask(lambda name: self.role(1, name) is Role.PRIVATE)

    def state(self, client: str) -> PrivateState:
        """Return what a client keeps for itself."""
        schema = self.attached.schemas[SHARED].digest
        return PrivateState(self.states / client, int(self.private_mask.sum()), schema)

    def start(self, client: str, round_: int, change: Vector) -> Vector:
        """Return the shared slot as a client has it when a round begins: the global one with its own parts."""
        return self.with_own(client, round_, self.attached.initial[SHARED] + change)

    def with_own(self, client: str, round_: int, shared: Vector) -> Vector:
        """Return a global adapter with the parts that the client had for itself when a round began."""
        vector = shared.copy()
        if self.private_mask.any():
            own = self.state(client).before(round_)
            if own is not None:
                vector[self.private_mask] = own
        return vector

    def train_codec(self, round_: int, scale: float = 1.0) -> WireCodec:
        """Return how a round's updates are written, with the ring's range times ``scale``."""
        size = int(self.shared_mask(round_).sum())
        rotation = (
            Rotation(derive(self.scenario.seed, "rotation", round_), size) if self.scenario.channel.rotate else None
        )
        return WireCodec(replace(self.ring, range=self.ring.range * scale), size, TRAIN_LANES, rotation)

    @property
    def tally_codec(self) -> WireCodec:
        """Return how evaluation totals are written: lanes alone."""
        return WireCodec(panel_codec(self.scenario, self.fewer(self.scenario.federation.panel)), 0, TALLY_LANES)

    def fewer(self, wanted: int) -> int:
        """Return how many clients can be asked where so many are wanted; enrolled ones are not counted beforehand."""
        return wanted if self.scenario.enrolled else min(wanted, len(self.client_ids))

    def train(self, client: str, round_: int, change: Vector, scale: float = 1.0) -> Ring:
        """Train one round locally and return the payload, which is yet to be protected.

        Raises
        ------
        DataError
            When the client has nothing to train on.
        ProtocolError
            When training diverged; such an update is never sent.
        """
        splits = self.splits(client)
        own = splits.train
        if not own.tokens:
            raise DataError(f"client {client}", "no text of their own", "at least one message to train on")
        scenario, equipment = self.scenario, self.fleet.of(client)
        attached = equipment.attached
        start = self.start(client, round_, change)
        attached.activate(SHARED)
        attached.write(SHARED, start)
        seed = derive(scenario.seed, "train", client, round_)
        # A falling rate is what lets averages of unlike clients converge (Li et al. 2020, arXiv:1907.02189).
        training = scenario.training.faded(scenario.federation.schedule, (round_ - 1) / scenario.federation.rounds)
        trained = train(
            attached,
            SHARED,
            equipment.task,
            own,
            equipment.kind.thrifty(training),
            seed,
            keep=lambda n: self.role(round_, n) is not Role.FROZEN,
            validation=splits.validation,
        )
        after = attached.read(SHARED)
        delta = (after - start)[self.shared_mask(round_)]
        uniform = scenario.federation.weighting == "uniform"
        weight = 1.0 if uniform else min(own.tokens / scenario.weight_cap, 1.0)
        payload = self._encode(delta, weight, trained, self.train_codec(round_, scale), seed)
        if self.private_mask.any():
            # On disk before the reply leaves: what the server hears of a round, the client has.
            self.state(client).keep(round_, after[self.private_mask])
        return payload

    def _encode(self, delta: Vector, weight: float, trained: Trained, codec: WireCodec, seed: int) -> Ring:
        require_finite(delta)
        weighted = codec.spread(np.float32(weight) * delta)
        levels = codec.ring.encode(weighted, stream(seed, "rounding"))
        error = codec.ring.decode(levels.astype(np.uint64), 1) - weighted
        update = Update.weighted(
            delta,
            weight,
            {
                "loss": trained.loss * trained.tokens,
                "tokens": float(trained.tokens),
                "squared_norm": float(np.square(delta, dtype=np.float64).sum()),
                "squared_error": float(np.square(error, dtype=np.float64).sum()),
                "clipped": float((np.abs(weighted) > codec.ring.range).sum()),
            },
        )
        return codec.join(levels, update.lanes)

    def score(self, client: str, round_: int, change: Vector) -> Ring:
        """Score the adapter of a finished round on some of a client's validation examples; totals, yet unprotected."""
        own = self.fleet.of(client)
        own.attached.activate(SHARED)
        own.attached.write(SHARED, self.start(client, round_ + 1, change))
        some = self.splits(client).validation.head(self.scenario.federation.panel_windows)
        tally = evaluate(own.attached, own.task, some)
        empty = np.zeros(0, np.float32)
        return self.tally_codec.encode(Update(empty, tally.lanes()), np.random.default_rng(0))
