"""Why: the advice in sentences, each with the number it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedpeft.compare.advice import Plan, Proposal, Wish
from fedpeft.compare.row import Comparison, Row
from fedpeft.compare.table import QUALITY
from fedpeft.federation.folder import to_toml
from fedpeft.report.wording import percent, size
from fedpeft.secagg import SECURE

STEPS = 8
"""Training steps of a round that a scenario is begun with."""
FEW = 50
"""Examples of a client below which a private head has little to learn from."""


@dataclass(frozen=True)
class Found:
    """What was chosen, and from what.

    Parameters
    ----------
    plan : Plan
        The choice.
    best : Proposal
        What would be taken without limits.
    wish : Wish
    comparison : Comparison
    share : str
        The data size that was looked at.
    row : Row
        The choice's.
    linear : bool
        Whether its mean is exact.
    shortened : bool
        Whether its window is shorter than what was asked for.
    """

    plan: Plan
    best: Proposal
    wish: Wish
    comparison: Comparison
    share: str
    row: Row
    linear: bool
    shortened: bool


def reasons(found: Found, broken: list[str], least: int) -> list[str]:
    """Return the sentences, the most important first.

    Parameters
    ----------
    found : Found
    broken : list of str
        The limits that the choice breaks, which is then what breaks them least.
    least : int
        Bytes that the smallest candidate sends.
    """
    texts = [] if not broken else [_nothing_fits(found, broken, least)]
    texts += [_measured(found), *_link(found), *_memory(found), *_privacy(found), *_head(found), *_settings(found)]
    return texts


def _nothing_fits(found: Found, broken: list[str], least: int) -> str:
    wish, plan = found.wish, found.plan
    told = []
    if "uplink" in broken:
        told.append(f"uplink: {size(wish.uplink)} allowed, the least any method sends is {size(least)}")
    if "memory" in broken:
        told.append(
            f"memory: {size(wish.memory)} allowed; the least that is estimated to do is {size(plan.memory_bytes)}"
        )
    return f"Nothing fits. What binds is {'; '.join(told)}. Nearest is {plan.method['name']}."


def _measured(found: Found) -> str:
    c, score = found.comparison, found.row.sizes[found.share]
    where = f"on {c.base} with {c.scenario['data']['federation']}"
    if c.base != found.wish.base:
        where += f" (not on {found.wish.base}: nothing was measured there)"
    per_client = round(score.examples / c.clients)
    gain = "" if score.loss_share is None else f", {percent(score.loss_share, 0)} of full fine-tuning's gain in loss"
    return (
        f"{found.row.method} reached {percent(score.quality)} {QUALITY[c.metric]}{gain} {where}, "
        f"with about {per_client:,} examples a client, the measured size nearest to {found.wish.examples:,}."
    )


def _link(found: Found) -> list[str]:
    plan, best, wish = found.plan, found.best, found.wish
    texts = [
        f"A client sends {size(plan.bytes_up)} and receives {size(plan.bytes_down)} a round, "
        f"counted on {wish.base}: {plan.trainable:,} numbers, {percent(plan.share, 2)} of it."
    ]
    if plan.partition == "alternate":
        texts.append("B and A take turns (alternate): half the bytes, and each round's mean is exact.")
    if plan.partition == "ffa":
        texts.append("A stays at its seeded start and only B travels (ffa): the mean is exact.")
    if best.method["name"] != plan.method["name"]:
        texts.append(
            f"Without limits {best.method['name']} would gain most ({percent(best.gain, 0)} against "
            f"{percent(plan.gain, 0)}) and send {size(best.bytes_up)}."
        )
    return texts


def _memory(found: Found) -> list[str]:
    plan, wish = found.plan, found.wish
    limit = f" of {size(wish.memory)}" if wish.memory else ""
    texts = [f"Training takes about {size(plan.memory_bytes)}{limit}: an estimate from its shapes, not a measurement."]
    ways = []
    if plan.dtype == "bfloat16":
        ways.append("a base in bfloat16")
    if plan.precision != "full":
        ways.append(f"its linear layers in {'4' if plan.precision == 'nf4' else '8'} bits")
    if plan.chunk:
        ways.append(f"logits of {plan.chunk} predictions at a time")
    if plan.checkpointing:
        ways.append("activations computed again in the backward pass")
    if plan.micro_batch:
        ways.append(f"{plan.micro_batch} of a step's {plan.batch} examples at a time")
    if found.shortened:
        ways.append(f"examples of {plan.window} tokens")
    if wish.memory and ways:
        texts.append(f"To stay within it: {', '.join(ways)}.")
    if wish.mixed:
        texts.append("Devices differ: the memory is the weakest one's, because all clients train the same tensors.")
    return texts


def _privacy(found: Found) -> list[str]:
    if found.wish.privacy == "dp":
        return [
            "Differential privacy: noise in two trained factors multiplies, so only what averages linearly was "
            f"considered; noise grows with the numbers sent, so few are better ({found.plan.trainable:,}).",
            *_no_channel(),
        ]
    if found.wish.privacy == "secure":
        return ["Only the sum is opened: this rule needs no more than the sum.", *_no_channel()]
    if not found.linear:
        return [f"The mean of its parameters is a heuristic ({found.row.algebra}): all clients start alike."]
    return []


def _no_channel() -> list[str]:
    if secure_channel():
        return []
    return ["This version has no secure channel yet: with its plain one the server could read each update."]


def _head(found: Found) -> list[str]:
    if found.wish.task != "classification":
        return []
    if found.plan.head == "shared":
        return ["The head is averaged with the rest: clients learn the same classes together."]
    texts = ["The head stays with each client: with it, nothing that fits would be small enough to send."]
    if found.wish.examples < FEW:
        texts.append(
            f"With {found.wish.examples:,} examples a client such a head learns little: allow a larger uplink."
        )
    return texts


def _settings(found: Found) -> list[str]:
    if found.plan.measured:
        return []
    return ["Exactly these settings were not measured: the expected gain is the measured one times assumed factors."]


def tables(found: Found) -> str:
    """Return the tables of a scenario file that say what is advised."""
    plan, wish = found.plan, found.wish
    training: dict[str, Any] = {"steps": STEPS, "batch": plan.batch, "learning_rate": plan.rate}
    if plan.chunk:
        training["chunk"] = plan.chunk
    if plan.checkpointing:
        training["checkpointing"] = True
    if plan.micro_batch:
        training["micro_batch"] = plan.micro_batch
    held = {"dtype": plan.dtype} if plan.precision == "full" else {"dtype": plan.dtype, "precision": plan.precision}
    parts: dict[str, dict[str, Any]] = {
        "base": {"name": wish.base, **held},
        "data": {"window": plan.window},
        "method": plan.method,
    }
    parts["training"] = training
    if wish.task == "classification":
        parts = {"task": {"kind": wish.task, "head": plan.head}, **parts}
    if plan.partition != "all":
        parts["federation"] = {"partition": plan.partition}
    secure = secure_channel() if wish.privacy != "none" else None
    parts["channel"] = {"name": secure or "plain"}
    return to_toml(parts).lstrip()


def secure_channel() -> str | None:
    """Return the name of a channel of which the server learns the sum alone, if this version has one."""
    return min(SECURE, default=None)
