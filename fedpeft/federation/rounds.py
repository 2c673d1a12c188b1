"""The rounds, as the server runs them; the same code in every engine.

1. Choose by seed whom to ask, the cohort and ``federation.oversample`` more; send each client the plan and the global
   adapter's change since its seeded start.
2. Add the replies as they arrive, in integers; a reply that is not exactly what was agreed is a failure. When as many
   as the cohort have answered, or the deadline is over, whoever is late is left out.
3. With enough contributors open the sum, decode it, let the aggregation rule move the global adapter. With too
   few the round is burnt: the adapter stays as it was and the next round begins.
4. Score the new adapter on the validation text of a fixed panel, again through the channel; too few of the panel, and
   the round has no score.
5. Append the round to ``metrics.jsonl``, then replace the checkpoint.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from fedpeft.adapters.schema import Vector
from fedpeft.adapters.update import WEIGHT, Update
from fedpeft.aggregation import advance
from fedpeft.codecs import WireCodec
from fedpeft.errors import RunError
from fedpeft.federation.checkpoint import Checkpoint
from fedpeft.federation.cohort import Roll, choose
from fedpeft.federation.collect import Collected, collect
from fedpeft.federation.folder import METRICS, RunFolder
from fedpeft.federation.lateness import LATE, Late, nobody
from fedpeft.federation.messages import COHORT, hash_of, published, request
from fedpeft.federation.plan import LEAST_SCALE, RoundPlan
from fedpeft.federation.watcher import Watcher
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from fedpeft.secagg import Asked, ServerEnd
from fedpeft.training.evaluate import Tally

# Rotated coordinates are close to Gaussian: one beyond eight deviations of the mean client's is one of the few clients
# whose update is several times larger than the mean.
_DEVIATIONS = 8.0
# Pieces of the longest example that anybody scores; sums that say more are noise, by somebody's false word.
_LONGEST = 1 << 16


Renewed = Callable[[int, ServerEnd, Roll], tuple[ServerEnd, Roll]]


def lasting(round_: int, end: ServerEnd, roll: Roll) -> tuple[ServerEnd, Roll]:
    """Keep one session for all rounds."""
    return end, roll


class Rounds:
    """Runs the rounds of one run.

    Parameters
    ----------
    grid : Grid
    worker : Worker
        The server's own, for schema, codec and base fingerprint; it never sees a client's text.
    roll : Roll
    end : ServerEnd
        The server's end of the channel.
    folder : RunFolder
    watcher : Watcher
    late : callable, optional
        Who is to be taken for late, in a simulation.
    renewed : callable, optional
        From a round that is about to begin, the channel's end and the roll to those for it.
    """

    def __init__(
        self,
        grid: Grid,
        worker: Worker,
        roll: Roll,
        end: ServerEnd,
        folder: RunFolder,
        watcher: Watcher,
        late: Late = nobody,
        renewed: Renewed = lasting,
    ) -> None:
        self.grid, self.worker, self.roll, self.end = grid, worker, roll, end
        self.folder, self.watcher, self.late, self.renewed = folder, watcher, late, renewed
        self.scenario = worker.scenario

    def run(self) -> Vector:
        """Run what is left of the rounds and return the published global change, shape (d,)."""
        start = time.monotonic()
        point = Checkpoint.read(self.folder.path, self.scenario.digest, self.worker.size)
        if point is None:
            point = Checkpoint(0, np.zeros(self.worker.size, np.float32), {})
            row = {"round": 0, **self.validate(0, point.change), "seconds": time.monotonic() - start}
            self._finish(row, [], point)
        rows = [row for row in self.folder.lines(METRICS) if row["round"] <= point.round]
        for round_ in range(point.round + 1, self.scenario.federation.rounds + 1):
            start = time.monotonic()
            row, point = self._attended(round_, point, rows)
            row["seconds"] = time.monotonic() - start
            self._finish(row, rows, point)
        return published(point.change)

    def _attended(
        self, round_: int, before: Checkpoint, rows: Sequence[dict[str, Any]]
    ) -> tuple[dict[str, Any], Checkpoint]:
        """Run one round in a session with those who are there; the row says who came and went."""
        known = self.roll.nodes.keys()
        self.end, self.roll = self.renewed(round_, self.end, self.roll)
        now = self.roll.nodes.keys()
        row, after = self.one(round_, before, rows)
        changes = {"joined": sorted(now - known), "left": sorted(known - now)}
        return {**row, **{change: clients for change, clients in changes.items() if clients}}, after

    def one(
        self, round_: int, before: Checkpoint, rows: Sequence[dict[str, Any]] = ()
    ) -> tuple[dict[str, Any], Checkpoint]:
        """Run one round.

        Parameters
        ----------
        round_ : int
        before : Checkpoint
        rows : sequence of dict
            Of the rounds before; an adaptive range follows from them.

        Returns
        -------
        row : dict
            The round's line of ``metrics.jsonl``.
        after : Checkpoint
        """
        there, least = self.end.present(self.roll.clients), self.scenario.federation.minimum
        if len(there) < least:
            raise RunError(f"round {round_}", f"{len(there)} clients whose certificates hold", f"at least {least}")
        cohort = choose(there, self.scenario.asked, self.scenario.seed, "cohort", round_)
        scale = self._scale(rows)
        codec = self.worker.train_codec(round_, scale)
        late = self.late(round_, cohort)
        got = self._collect("train", f"round {round_}", round_, before.change, cohort, codec, scale, late)
        row: dict[str, Any] = {
            "round": round_,
            "cohort": cohort,
            "contributors": got.contributors,
            "failures": len(got.failures),
            "bytes_down": got.bytes_down // max(1, len(cohort) - len(late)),
            "bytes_up": got.bytes_up // max(1, len(cohort) - len(got.failures)),
            "handshake_up": got.handshake_up // max(1, len(cohort) - len(got.failures)),
        }
        if got.failures:
            row["reasons"] = got.failures
        if self.scenario.devices:
            answered = Counter(self._kind(c) for c in cohort if c not in got.failures)
            row["devices"] = dict(sorted(answered.items()))
        summed, contributors, reason = got.total, got.contributors, self._unusable(got)
        if summed is None or reason:
            if len(got.failures) == len(cohort) and LATE not in got.failures.values():
                raise RunError(f"round {round_}", next(iter(got.failures.values())), "at least one contributor")
            return {**row, "burnt": True, "reason": reason}, replace(before, round=round_)
        mean = np.zeros(self.worker.size, np.float32)
        mean[self.worker.shared_mask(round_)] = summed.mean()
        step, state = advance(mean, before.state, self.scenario.aggregation)
        after = Checkpoint(round_, before.change + step, state)
        if scale != 1.0:
            row["scale"] = scale
        row |= _health(summed, contributors) | {"update_norm": float(np.linalg.norm(step))}
        return row | self.validate(round_, after.change), after

    def _kind(self, client: str) -> str:
        """Return a client's class of device: the one that it said it is of, or the one that it was drawn into."""
        return self.roll.devices.get(client) or self.worker.fleet.classes[client]

    def _unusable(self, got: Collected) -> str:
        """Say why what was opened, if anything, must not be used; nothing when it may be."""
        least = self.scenario.federation.minimum
        if got.total is None:
            return got.burnt
        if got.contributors < least:
            return f"{got.contributors} contributors, expected at least {least}"
        weight = got.total.lanes[WEIGHT]
        if not 0.0 < weight <= got.contributors:
            # Somebody sent other integers than an honest client can: nobody's weight is more than 1.
            return f"weights of {weight:g} in all from {got.contributors} contributors, expected at most 1 from each"
        return ""

    def validate(self, round_: int, change: Vector) -> dict[str, Any]:
        """Score a global change on the panel's validation text; without a panel or enough of it there is no score."""
        panel = choose(self.end.present(self.roll.clients), self.scenario.federation.panel, self.scenario.seed, "panel")
        if not panel:
            return {"validation": None}
        got = self._collect("evaluate", f"validate {round_}", round_, change, panel, self.worker.tally_codec)
        if len(got.failures) == len(panel):
            reason = next(iter(got.failures.values()))
            raise RunError(f"validation of round {round_}", reason, "enough clients of the panel", "resume the run")
        if got.total is None:
            return {"validation": None, "unscored": got.burnt}
        tally = Tally(**got.total.lanes)
        most = got.contributors * self.scenario.federation.panel_windows * _LONGEST
        if not 0 <= tally.top1 <= tally.top3 <= tally.tokens <= most:
            found = f"{tally.tokens:g} pieces, {tally.top3:g} and {tally.top1:g} of them right"
            return {"validation": None, "unscored": f"{found}, expected at most {most} pieces"}
        return {"validation": tally.metrics()}

    def _scale(self, rows: Sequence[dict[str, Any]]) -> float:
        """Return the share of the range that the next round needs, by the last round's mean norm."""
        norms = [row["client_norm"] for row in rows if "client_norm" in row]
        if self.scenario.channel.range != "adaptive" or not norms:
            return 1.0
        deviation = norms[-1] / np.sqrt(self.worker.train_codec(1).coordinates)
        return float(np.clip(_DEVIATIONS * deviation / self.worker.ring.range, LEAST_SCALE, 1.0))

    def plan(self, round_: int, change: Vector, scale: float = 1.0) -> RoundPlan:
        """Return what a round asks of everybody."""
        return RoundPlan(
            run=self.folder.path.name,
            round=round_,
            scenario=self.scenario.digest,
            schema=self.worker.attached.schemas[SHARED].digest,
            base=self.worker.base.fingerprint,
            model=hash_of(self.worker.public(change)),
            scale=scale,
        )

    def request(self, plan: RoundPlan, change: Vector, extra: dict[str, str] | None = None) -> RecordDict:
        """Write a plan with the global change that goes with it: the part of it that is anybody else's."""
        return request(plan, self.worker.public(change), extra)

    def _collect(
        self,
        purpose: str,
        stage: str,
        round_: int,
        change: Vector,
        clients: list[str],
        codec: WireCodec,
        scale: float = 1.0,
        late: Collection[str] = (),
    ) -> Collected:
        """Send one request to all, open the sum of what comes back."""
        plan = self.plan(round_, change, scale)
        asked = Asked(round_, purpose, plan.digest, tuple(sorted(clients)))
        content = self.request(plan, change, {COHORT: ",".join(asked.cohort)})
        return collect(
            self.grid,
            self.roll.nodes,
            purpose,
            content,
            clients,
            self.end.collect(asked, codec.ring, codec.length),
            codec,
            lambda done, total: self.watcher.stage(stage, done, total),
            self.scenario.federation.cohort if purpose == "train" else None,
            frozenset(late),
        )

    def _finish(self, row: dict[str, Any], rows: list[dict[str, Any]], point: Checkpoint) -> None:
        rows.append(row)
        self.folder.write_lines(METRICS, rows)
        point.write(self.folder.path, self.scenario.digest)
        self.watcher.round(row, self.scenario.federation.rounds)


def _health(summed: Update, contributors: int) -> dict[str, float]:
    """Return what the lanes say about a round: loss, and what quantization did to the sum."""
    lanes = summed.lanes
    norm = float(np.linalg.norm(summed.vector.astype(np.float64)))
    return {
        "train_loss": lanes["loss"] / max(lanes["tokens"], 1.0),
        "weight": lanes[WEIGHT],
        "client_norm": float(np.sqrt(lanes["squared_norm"] / contributors)),
        "quantization_error": float(np.sqrt(lanes["squared_error"]) / max(norm, 1e-30)),
        "clipped": lanes["clipped"] / max(summed.vector.size * contributors, 1),
    }
