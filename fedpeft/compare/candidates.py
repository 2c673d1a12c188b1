"""What a method would cost on a person's own base: attached to it, counted, its messages built.

Every method is tried as it was measured, and with its rank, width or length halved until little is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fedpeft.adapters import Schema
from fedpeft.adapters.partition import PARTITIONS, Role
from fedpeft.base import Base, load_base
from fedpeft.codecs import RingCodec, WireCodec
from fedpeft.compare.children import FAILED, Answer, Job, crew
from fedpeft.compare.federate import received_bytes, sent_bytes
from fedpeft.compare.row import Row
from fedpeft.errors import ScenarioError
from fedpeft.federation.folder import cores
from fedpeft.federation.worker import TRAIN_LANES
from fedpeft.methods import Attached, Method, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.method import Algebra

SCALED = ("rank", "size", "length")
"""Fields that a method becomes smaller by, the first that it has."""
_HALVINGS = 3


@dataclass(frozen=True)
class Candidate:
    """A method with settings, a partition, and what it costs on a base.

    Parameters
    ----------
    row : Row
        Where the method was measured.
    method : Method
    halvings : int
        How often its size was halved since it was measured.
    partition : {"all", "alternate", "ffa"}
    head : {"shared", "private"}
        Whether a classifier's head travels.
    trainable, bytes_up, bytes_down, adapter_bytes : int
    linear : bool
        Whether the mean of the parameters is the mean of the changes.
    """

    row: Row
    method: Method
    halvings: int
    partition: str
    head: str
    trainable: int
    bytes_up: int
    bytes_down: int
    adapter_bytes: int
    linear: bool


def candidates(base: Base, rows: Sequence[Row], bits: int = 16, cohort: int = 16) -> list[Candidate]:
    """Attach every measured method to a base and count.

    Parameters
    ----------
    base : Base
        In float32, with nothing attached.
    rows : sequence of Row
    bits, cohort : int
        Of the ring that updates travel in.
    """
    loaded = {"full": base}
    jobs: list[tuple[str, Job]] = []
    tried: dict[str, tuple[Row, Method, int]] = {}
    for row in rows:
        for halvings, method in enumerate(_smaller(_method(row))):
            if method.precision not in loaded:
                loaded[method.precision] = load_base(base.name, "float32", None, base.labels, method.precision)
            label = f"{row.method} {halvings}"
            tried[label] = (row, method, halvings)
            jobs.append((label, partial(_count, loaded[method.precision], method, bits, cohort)))
    found = []
    for label, answer in crew(jobs, cores()):
        if FAILED not in answer:
            row, method, halvings = tried[label]
            found += [
                Candidate(row=row, method=method, halvings=halvings, **{**way, "linear": _is_linear(method, way)})
                for way in answer["ways"]
            ]
    return sorted(found, key=lambda c: (c.row.method, c.halvings, c.partition, c.head))


def _method(row: Row) -> Method:
    return parse_method({"name": row.method, **{k: v for k, v in row.settings.items() if v is not None}})


def _smaller(method: Method) -> Iterator[Method]:
    """Yield a method as measured, then halved."""
    yield method
    field = next((name for name in SCALED if isinstance(getattr(method, name, None), int)), None)
    settings = {"name": method.name, **method.model_dump(mode="json", exclude_none=True)}
    for _ in range(_HALVINGS):
        if field is None or settings[field] < 2:
            return
        settings[field] //= 2
        if field == "rank" and "alpha" in settings:
            settings["alpha"] /= 2  # the same scaling
        try:
            yield parse_method(settings)
        except ScenarioError:
            return


def _count(base: Base, method: Method, bits: int, cohort: int) -> Answer:
    """Attach, and count every way in which the tensors can be shared."""
    attached = Attached(base, method, None, seed=0)
    schema = attached.schemas[SHARED]
    size = attached.adapter(SHARED, attached.read(SHARED)).file_bytes
    kept = schema.mask(lambda name: any(part in name for part in method.keeps))
    head = schema.mask(lambda name: any(part in name for part in base.head))
    ring = RingCodec(bits, 1.0, cohort)
    ways = []
    for partition in _partitions(method, schema.names()):
        masks = [_mask(schema, partition, round_, Role.SHARED) for round_ in (0, 1)]
        for where in ("shared", "private") if head.any() else ("shared",):
            stays = kept | head if where == "private" else kept
            sent = max(int((mask & ~stays).sum()) for mask in masks)
            if sent == 0:
                continue
            length = WireCodec(ring, sent, TRAIN_LANES).length
            public = int(((masks[0] | masks[1]) & ~stays).sum())
            frozen = _mask(schema, partition, 0, Role.FROZEN) & _mask(schema, partition, 1, Role.FROZEN)
            ways.append(
                {
                    "partition": partition,
                    "head": where,
                    "trainable": int((~frozen).sum()),
                    "bytes_up": sent_bytes(np.zeros(length, ring.dtype)),
                    "bytes_down": received_bytes(np.zeros(public, np.float32), schema.digest),
                    "adapter_bytes": size,
                }
            )
    return {"ways": ways}


def _mask(schema: Schema, partition: str, round_: int, role: Role) -> np.ndarray:
    """Return which coordinates have a role in a round."""
    roles = PARTITIONS[partition]
    return schema.mask(lambda name: roles(name, round_) is role)


def _partitions(method: Method, names: list[str]) -> list[str]:
    divisible = method.averaging is Algebra.MULTILINEAR and any("lora_A" in name for name in names)
    return ["all", "alternate", "ffa"] if divisible else ["all"]


def _is_linear(method: Method, way: dict[str, Any]) -> bool:
    return method.averaging is Algebra.LINEAR or way["partition"] in ("alternate", "ffa")
