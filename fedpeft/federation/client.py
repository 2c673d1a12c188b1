"""The ClientApp: Flower messages in, work by :class:`~fedpeft.federation.worker.Worker`, messages out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fedpeft.adapters.schema import Vector
from fedpeft.device.edge.events import Contributed
from fedpeft.errors import DataError, ProtocolError
from fedpeft.federation.fleet import bonds
from fedpeft.federation.locate import config_of, run_folder_of, scenario_of
from fedpeft.federation.messages import COHORT, Fact, facts, parcel, read_bounded, read_facts, read_named, read_request
from fedpeft.federation.personal import keep_own, keep_personal, score_stranger
from fedpeft.federation.plan import RoundPlan
from fedpeft.federation.session_keys import PEOPLE_PURPOSE
from fedpeft.federation.sessions import end_of, join, leave, meet
from fedpeft.federation.spoken import require_spoken, spoken
from fedpeft.federation.worker import Device, Worker
from fedpeft.methods.attached import SHARED
from fedpeft.secagg import Asked
from fedpeft.secagg.pairwise import STAGES
from fedpeft.secagg.pairwise.wire import ENTRY
from fedpeft.secagg.trust.invitation import LONGEST, Invitation

STATES = "clients"
_CLIENT, _IDENTITY, _PINNED, _DEVICE = "client", "identity", "pinned", "device"

# A request holds a signature per survivor at most, and a sealed share per ward; its reader knows the exact length.
_MOST = 1 << 24
# Of a session whose clients nobody has a list of.
_MOST_CLIENTS = 1 << 14


def worker_at(scenario: str, folder: str, device: Device | None = None) -> Worker:
    """Return this process's worker; the base stays warm between messages."""
    return _warm(scenario, folder, device)


# Apart from what is called, because a cache tells a default that was given from one that was not.
@lru_cache(maxsize=1)
def _warm(scenario: str, folder: str, device: Device | None) -> Worker:
    from fedpeft.scenario import load_scenario

    return Worker(load_scenario(Path(scenario)), Path(folder) / STATES, device)


_DEVICES: dict[Device, Worker] = {}
"""The workers of the devices that this process is; each has its own text, and stays while the process does."""


def serve_device(worker: Worker) -> None:
    """Let a device's node find its worker."""
    if worker.device:
        _DEVICES[worker.device] = worker


def worker_of(context: Context) -> Worker:
    """Return the worker for a run's configuration."""
    device = device_of(context.node_config)
    if device in _DEVICES:
        return _DEVICES[device]
    return worker_at(str(scenario_of(config_of(context))), str(run_folder_of(context)), device)


def device_of(node_config: Mapping[str, Any]) -> Device | None:
    """Return whose device this is; None where a simulation numbers its clients."""
    if _CLIENT not in node_config:
        return None
    values = {name: str(node_config[name]) for name in (_CLIENT, _IDENTITY, _PINNED, _DEVICE)}
    return Device(values[_CLIENT], Path(values[_IDENTITY]), Path(values[_PINNED]), values[_DEVICE])


def node_config_of(device: Device) -> dict[str, str]:
    """Return the node configuration of a device's node."""
    files = {_IDENTITY: str(device.identity), _PINNED: str(device.pinned)}
    return {_CLIENT: device.client, **files, _DEVICE: device.kind}


def client_app(mods: Iterable[Mod] = ()) -> ClientApp:
    """Build the ClientApp.

    Parameters
    ----------
    mods : iterable of Mod
        Flower's wrappers around every call, outermost first.

    Returns
    -------
    ClientApp
        It answers:

    ================== ================================================== =========================
    message type       asks                                               answers
    ================== ================================================== =========================
    query.hello        who are you, and on what would you train?          name, digests, readiness
    query.keys         here is an invitation; what are your keys?         certificate, run key, signature
    query.meet         here are your peers' keys                          name
    train              one round                                          the protected update
    evaluate           score the global adapter on validation text        protected totals
    query.survivors …  the stages after which the sum can be opened       signatures, seeds, shares
    query.leave        the session is over: forget its keys               name
    query.adopt        the run is over: here is its global adapter        name
    train.keep         fine-tune, gate, keep; how much does it help?      protected totals
    train.personalize  the same, for a study (simulations only)           metrics
    evaluate.stranger  score another's adapter (simulations only)         metrics
    ================== ================================================== =========================
    """
    app = ClientApp(mods=list(mods))

    @app.query("hello")
    @_discreet
    def hello(message: Message, context: Context) -> Message:
        worker, client = worker_of(context), _client(context)
        require_spoken(read_facts(message) if message.content else {}, "the server", "this device")
        if worker.device and client not in worker.client_ids:
            raise ProtocolError("client", client, f"one of the scenario's {len(worker.client_ids)} clients")
        reason = worker.reluctance(client)
        values: dict[str, Fact] = {
            **spoken(),
            "client": client,
            "device": worker.fleet.classes[client],
            "scenario": worker.scenario.digest,
            **bonds(worker.fleet.of(client)),
            "ready": not reason,
            "reason": reason,
        }
        return Message(facts(values), reply_to=message)

    @app.query("keys")
    @_discreet
    def keys(message: Message, context: Context) -> Message:
        invitation = Invitation.from_bytes(read_bounded(message.content, LONGEST))
        own = join(worker_of(context), _client(context), invitation.manifest, invitation.revoked)
        return Message(parcel(own), reply_to=message)

    @app.query("meet")
    @_discreet
    def met(message: Message, context: Context) -> Message:
        worker, client = worker_of(context), _client(context)
        most = _MOST_CLIENTS if worker.scenario.enrolled else len(worker.client_ids)
        directory, clients = read_named(message.content, ENTRY * most)
        meet(worker, client, clients, directory)
        return Message(facts({"client": client}), reply_to=message)

    @app.query("leave")
    @_discreet
    def left(message: Message, context: Context) -> Message:
        worker, client = worker_of(context), _client(context)
        leave(worker, client)
        return Message(facts({"client": client}), reply_to=message)

    @app.train()
    @_discreet
    def train(message: Message, context: Context) -> Message:
        return _contribution(message, context, "train")

    @app.evaluate()
    @_discreet
    def evaluate(message: Message, context: Context) -> Message:
        return _contribution(message, context, "evaluate")

    @app.query("adopt")
    @_discreet
    def adopt(message: Message, context: Context) -> Message:
        worker, plan, change, _ = _agreed(message, context)
        worker.saw(plan.round, change)
        worker.over.set()
        return Message(facts({"client": _client(context)}), reply_to=message)

    def stage(name: str) -> None:
        @app.query(name)
        def answer(message: Message, context: Context) -> Message:
            request = read_bounded(message.content, _MOST)
            return Message(parcel(end_of(worker_of(context), _client(context)).answer(name, request)), reply_to=message)

    for name in STAGES:
        stage(name)

    @app.train("keep")
    @_discreet
    def keep(message: Message, context: Context) -> Message:
        if worker_of(context).seat:
            # What is learnt from a store is kept beside it, where forgetting finds it.
            raise ProtocolError("request", "train.keep", "none: this device personalizes when its person likes")
        return _contribution(message, context, PEOPLE_PURPOSE)

    @app.train("personalize")
    @_discreet
    def personalize(message: Message, context: Context) -> Message:
        worker, plan, change, _ = _agreed(message, context)
        _require_simulation(worker, message)
        try:
            result = keep_personal(worker, _client(context), change, plan.model)
        except DataError as error:
            return Message(facts({"client": _client(context), "skipped": str(error)}), reply_to=message)
        return Message(facts({"client": _client(context), "result": json.dumps(result)}), reply_to=message)

    @app.evaluate("stranger")
    @_discreet
    def stranger(message: Message, context: Context) -> Message:
        worker, _, change, extra = _agreed(message, context, ("other",))
        _require_simulation(worker, message)
        if extra["other"] not in worker.client_ids:
            raise ProtocolError("request other", extra["other"], "a client of this federation")
        metrics = score_stranger(worker, _client(context), extra["other"], change)
        return Message(facts({"client": _client(context), "result": json.dumps(metrics)}), reply_to=message)

    return app


_Call = Callable[[Message, Context], Message]


def _discreet(call: _Call) -> _Call:
    """Leave out what was found where data are wrong: a failure's reason goes to the server, text and all."""

    @wraps(call)
    def answered(message: Message, context: Context) -> Message:
        try:
            return call(message, context)
        except DataError as error:
            raise DataError(error.field, "what only this client may read", error.expected, error.remedy) from None

    return answered


def _contribution(message: Message, context: Context, purpose: str) -> Message:
    """Work on a client's text, where that is allowed, and answer with what only a sum can open."""
    worker, plan, change, extra = _agreed(message, context, (COHORT,))
    client = _client(context)
    # What people keep is asked for after the last round, and on the clock of that round: sessions know no later one.
    round_ = plan.round - 1 if purpose == PEOPLE_PURPOSE else plan.round
    asked = Asked(round_, purpose, plan.digest, tuple(extra[COHORT].split(",")))
    # A round begins with the adapter of the one before; what is scored, or kept, is a finished round's own.
    worker.saw(plan.round if purpose == "evaluate" else plan.round - 1, change)
    with worker.allowed():
        if purpose == "train":
            payload = worker.train(client, plan.round, change, plan.scale)
        elif purpose == "evaluate":
            payload = worker.score(client, plan.round, change)
        else:
            payload = keep_own(worker, client, change, plan.model)
    answer = Message(parcel(end_of(worker, client).protect(asked, payload)), reply_to=message)
    if purpose == "train":
        worker.tell(Contributed(plan.round))
    return answer


def _agreed(
    message: Message, context: Context, extra: tuple[str, ...] = ()
) -> tuple[Worker, RoundPlan, Vector, dict[str, str]]:
    """Read a request and check it against what this client runs."""
    worker = worker_of(context)
    plan, public, data, further = read_request(message.content, int(worker.public_mask.sum()), extra)
    own = worker.fleet.of(_client(context))
    plan.check(worker.scenario.digest, own.attached.schemas[SHARED].digest, own.base.fingerprint, data)
    return worker, plan, worker.whole(public), further


def _require_simulation(worker: Worker, message: Message) -> None:
    """Refuse, on a device, what would tell the server one person's scores."""
    if worker.device:
        kind = message.metadata.message_type
        raise ProtocolError("request", kind, "train.keep, whose answers are summed", "only a simulation reads scores")


def _client(context: Context) -> str:
    """Return the client this node stands for: the device's own, or by its number, as simulations give it."""
    worker, number = worker_of(context), context.node_config.get("partition-id")
    if worker.device:
        return worker.device.client
    if not isinstance(number, int) or not 0 <= number < len(worker.client_ids):
        raise ProtocolError(
            "node config partition-id",
            number,
            f"a number below {len(worker.client_ids)}",
            f"start the simulation with num-supernodes={len(worker.client_ids)}",
        )
    return worker.client_ids[number]
