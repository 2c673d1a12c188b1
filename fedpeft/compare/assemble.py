"""From finished pieces to rows: a method is a row only when every piece of it succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpeft.compare.children import FAILED, Answer
from fedpeft.compare.row import FULL, Comparison, Failure, Reference, Row, Score
from fedpeft.methods import Method

Pieces = Mapping[str, Mapping[str, Answer]]
"""Method -> name of the piece (``profile`` or a share of the data) -> answer."""


def assemble(empty: Comparison, methods: Mapping[str, Method], shares: Sequence[str], pieces: Pieces) -> Comparison:
    """Return the comparison that the pieces amount to.

    Parameters
    ----------
    empty : Comparison
        Without rows; its reference may be None.
    methods : mapping of str to Method
        Those asked for.
    shares : sequence of str
        Of the training examples, rising; the last one is what a row's own quality is of.
    pieces : mapping
        What there is of each method.
    """
    base = empty.reference.sizes if empty.reference else {}
    full = _scores(pieces.get(FULL, {}), shares)
    rows, failures, missing = [], list(empty.failures), []
    for name, method in methods.items():
        own = pieces.get(name, {})
        failed = next((own[key] for key in ("profile", *shares) if FAILED in own.get(key, {})), None)
        if failed is not None:
            failures.append(Failure(method=name, stage=failed["stage"], kind=failed[FAILED], reason=failed["reason"]))
        elif all(key in own for key in ("profile", *shares)):
            sizes = {
                share: score.against(base.get(share), full.get(share)) for share, score in _scores(own, shares).items()
            }
            rows.append(_row(method, own["profile"], own[shares[-1]], sizes))
        else:
            missing.append(name)
    return empty.model_copy(update={"rows": rows, "failures": failures, "missing": missing})


def _scores(own: Mapping[str, Answer], shares: Sequence[str]) -> dict[str, Score]:
    return {share: Score(**own[share]["score"]) for share in shares if "score" in own.get(share, {})}


def _row(method: Method, profile: Answer, last: Answer, sizes: dict[str, Score]) -> Row:
    best = sizes[list(sizes)[-1]]
    measured: dict[str, Any] = {key: value for key, value in profile.items() if key in Row.model_fields}
    return Row(
        method=method.name,
        settings=method.model_dump(mode="json"),
        algebra=method.averaging.value,
        rate=method.rate,
        quality=best.quality,
        loss=best.loss,
        perplexity=best.perplexity,
        attainment=best.attainment,
        gain_share=best.gain_share,
        loss_share=best.loss_share,
        sizes=sizes,
        reload_error=last["reload_error"],
        federates=True,
        federated=last["federated"],
        bytes_up=last["bytes_up"],
        bytes_down=last["bytes_down"],
        **measured,
    )


def reference(answer: Answer | None) -> Reference | None:
    """Read the piece about the bare base."""
    return None if answer is None or FAILED in answer else Reference(**answer)
