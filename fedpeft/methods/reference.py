"""The page of methods, written from what they declare of themselves: ``python -m fedpeft.methods.reference``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedpeft.adapters.partition import PARTITIONS, Role
from fedpeft.base.quantize import quantize
from fedpeft.methods.method import Algebra, Method, known_methods
from fedpeft.methods.passthrough import ALGEBRAS, PREFIX, REFUSED

_HEAD = """\
# Methods

What `[method] name` may say; the fields of each are in [the scenario reference](scenario.md). Sizes are per adapted
matrix `out × in` or per layer: rank `r`, hidden width `d`, bottleneck `m`, vectors `k`, layers `L`. Everything that is
sent is float32 before the codec. *Merged* says whether the trained change can be folded into the base's weights. This
page is written from the code by `python -m fedpeft.methods.reference`.
"""

_AVERAGING = """\
## What the mean of adapters means

A federation averages parameters. Whether that averages the changes they make is a property of the method, its algebra,
and tests measure what is declared. The errors below are relative: the merged change of mean parameters against the mean
of the clients' merged changes, on tiny models.
"""

_MEANING: Mapping[Algebra, tuple[str, str, str]] = {
    Algebra.LINEAR: (
        "The change is linear in the parameters.",
        "below 1e-5: rounding",
        "The plain mean is exact.",
    ),
    Algebra.MULTILINEAR: (
        "Linear in each factor while the others stand still.",
        "LoRA .44, VeRA .32, LoHa .42, LoKr .16, HiRA .38, RandLoRA .74; AdaLoRA .008",
        "Freeze a factor, alternate, or correct; otherwise start alike.",
    ),
    Algebra.NORM: (
        "Divided by a norm, a rotation, or a choice among vectors.",
        "DoRA .58, OFT .23, BOFT .22, HRA .27, DeLoRA .94, VBLoRA .93",
        "The mean is a heuristic: start alike, keep steps short.",
    ),
    Algebra.NETWORK: (
        "A small network of its own.",
        "depends on how far the clients have moved apart",
        "The mean is right near a common start only.",
    ),
    Algebra.SET: (
        "Vectors whose order says nothing, or little.",
        "0 in one order; the mean of 16 orders keeps 39 % of the norm of 10 vectors",
        "A common start keeps the order; never average sets that were started apart.",
    ),
    Algebra.UNKNOWN: ("Nobody has measured it.", "unknown", "Treat it as a network."),
}

_ORDER = """\
On keyboard text, one client, 16 vectors: in another order a prompt keeps 80 % of its gain and a prefix all of it; the
mean of 16 orders keeps 34 % and 45 %.
"""

_PASSTHROUGH = f"""\
## `{PREFIX}NAME`: methods as peft has them

`name = "{PREFIX}hra"` takes any method of the installed peft that changes a model's own layers, with the fields of
peft's own configuration class; without `target_modules` it adapts all linear modules. The tensors that train are sent,
never peft's exported state. Frozen ones are bound by the digest in every message. Their measured algebra:
"""

_REFUSED = "Refused, because they do not federate as they are:\n"

_PARTITIONS = """\
## Partitions

`federation.partition` says who trains a tensor in a round and who keeps the result. A tensor is on the side of A when
its name holds `lora_A`; every other one of the method counts as B.
"""

_DIVIDED = "Partitions other than `all` need two factors to divide. These have them:"

_KEPT = """\
Whatever the partition, these parts stay with the client unless `federation.private` says otherwise, and a task's head
does with `task.head = "private"`:
"""


def reference() -> str:
    """Return the page as Markdown."""
    methods = sorted(known_methods().values(), key=lambda m: (list(Algebra).index(m.algebra), m.name))
    keeps = [(f"`{m.name}`", ", ".join(f"`{part}`" for part in m.keeps)) for m in methods if m.keeps]
    divided = ", ".join(f"`{m.name}`" for m in methods if m.algebra is Algebra.MULTILINEAR and _has_two_sides(m))
    known = [(str(a), ", ".join(f"`{kind.lower()}`" for kind in types.split())) for a, types in ALGEBRAS.items()]
    refused = [(f"`{PREFIX}{kind.lower()}`", why) for kind, why in REFUSED.items()]
    parts = (
        _HEAD,
        _table(("name", "equation", "source", "algebra", "merged", "sends", "limits"), map(_row, methods)),
        _AVERAGING,
        _table(("algebra", "meaning", "error", "rule"), [(str(a), *_MEANING[a]) for a in Algebra]),
        _ORDER,
        _PASSTHROUGH,
        _table(("algebra", "types"), known),
        _REFUSED,
        _table(("name", "why"), refused),
        _PARTITIONS,
        _table(("partition", "A, even rounds", "A, odd", "B, even", "B, odd"), map(_roles, PARTITIONS)),
        f"{_DIVIDED}\n\n{divided}.\n",
        _KEPT,
        _table(("method", "keeps"), keeps),
    )
    return "\n".join(parts)


def _row(method: type[Method]) -> tuple[str, ...]:
    algebra = str(method.algebra)
    if method.averaging is not Method.averaging:
        algebra += f" (by setting: {str(method.averaging.__doc__).removesuffix('.')})"
    merged = "yes" if method.mergeable else "no"
    return (f"`{method.name}`", method.equation, method.source, algebra, merged, method.sends, method.limits)


def _has_two_sides(method: type[Method]) -> bool:
    """Whether a method's tensors on a small model, as it is set by default, lie on both sides of a partition."""
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
        if method.precision != "full":
            quantize(model, method.precision, keep=())
        names = method().attach(model, "shared").parameters
    return len({"lora_A" in name for name in names}) == 2


def _roles(partition: str) -> tuple[str, ...]:
    words = {Role.SHARED: "trained, averaged", Role.PRIVATE: "trained, kept", Role.FROZEN: "frozen"}
    roles = [PARTITIONS[partition](name, round_) for name in ("lora_A", "lora_B") for round_ in (0, 1)]
    return (f"`{partition}`", *(words[role] for role in roles))


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    # A bar would end the cell.
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
