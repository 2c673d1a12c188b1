"""Which trainables a client shares in a round. A partition is a name here, not an algorithm of its own.

====================== ============================================================================
``all``                A and B trained and averaged (FedIT, Zhang et al. 2023, arXiv:2305.05644)
``ffa``                A keeps its seeded start, B is averaged: the mean is exact
                       (FFA-LoRA, Sun et al. 2024, arXiv:2403.12313)
``alternate``          B in even rounds, A in odd ones (RoLoRA, Chen et al. 2024, arXiv:2409.02346)
====================== ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable

Partition = Callable[[str, int], bool]
"""(tensor name, round) -> whether it is trained and shared; the others keep still."""


def _all(name: str, round_: int) -> bool:
    return True


def _ffa(name: str, round_: int) -> bool:
    return "lora_A" not in name


def _alternate(name: str, round_: int) -> bool:
    return ("lora_A" in name) == (round_ % 2 == 1)


PARTITIONS: dict[str, Partition] = {"all": _all, "ffa": _ffa, "alternate": _alternate}
