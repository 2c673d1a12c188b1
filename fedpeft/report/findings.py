"""What the figures say, in sentences; what they do not show is said as plainly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpeft.report.record import Record
from fedpeft.report.wording import counted, duration, interval, number, percent, points, signed, size, terms_of

_CAUTIONS = {  # when the interval in loss holds zero, and when it lies above zero
    "personal-global": (
        "Personal adapters are not measurably better than the global one.",
        "Personal adapters are worse than the global one.",
    ),
    "global-base": (
        "The federation’s adapter is not measurably better than the bare base.",
        "The federation’s adapter is worse than the bare base.",
    ),
    "personal-local": (
        "Training alone, without the federation, does as well.",
        "Training alone, without the federation, does better.",
    ),
    "personal-wrong_user": (
        "Another person’s adapter does as well: what was learnt is not personal.",
        "Another person’s adapter does better: what was learnt is not personal.",
    ),
}
_FEW = 20
_REPLIES = (("replies", "reply", "replies"), ("people", "person", "people"))


def headline(record: Record, figures: Mapping[str, Any]) -> str:
    """Say in one sentence what the run found so far."""
    terms = terms_of(figures["task"])
    right = figures[f"mean_{terms.metric}"]
    if figures["personalized"]:
        return (
            f"For the mean person, personal adapters {terms.does} "
            f"{percent(right['personal'])} of the time; the global adapter {percent(right['global'])}, "
            f"the bare base {percent(right['base'])}."
        )
    scores = [(r.round, r.validation) for rounds in record.histories[:1] for r in rounds if r.validation]
    if not scores or scores[-1][0] == 0:
        return "This run has not measured a round yet."
    (first, start), (last, end) = scores[0], scores[-1]
    origin = "the bare base’s " if first == 0 else f"round {first}’s "
    return (
        f"After {counted(last, 'round', 'rounds')} the global adapter’s validation perplexity is "
        f"{number(end.perplexity)}; {origin}is {number(start.perplexity)}. Nobody has a personal adapter yet."
    )


def verdict(figures: Mapping[str, Any]) -> str:
    """Say who gains, who loses, and what it costs."""
    sentences = []
    people = figures["personalized"]
    if people:
        better, worse = (round(figures[f"{k}_share"] * people) for k in ("improved", "harmed"))
        same = people - better - worse
        sentences.append(
            f"{better:,} of {counted(people, 'person', 'people')} {'is' if better == 1 else 'are'} "
            "better off with their personal adapter than with the global one, "
            f"{worse:,} worse off, {same:,} the same."
        )
    if figures["bytes_per_client_round"] is not None:
        sentences.append(
            f"A client moves {size(figures['bytes_per_client_round'])} in a round, "
            f"{percent(figures['bytes_ratio'])} of the base’s {size(figures['base_bytes'])}."
        )
    return " ".join(sentences)


def cautions(figures: Mapping[str, Any], status: str) -> list[str]:
    """Say what a reader must know before quoting a figure.

    A difference counts as measured when its 95 % interval, in loss, lies wholly below zero.
    """
    found = []
    if status == "trained":
        found.append("The run is trained, its adapters are not exported yet.")
    elif status != "finished":
        found.append(f"The run is {status}: these are its figures so far.")
    if 0 < figures["personalized"] < _FEW:
        found.append(f"Only {counted(figures['personalized'], 'person was', 'people were')} scored.")
    for pair, (as_well, worse) in _CAUTIONS.items():
        ends = figures["intervals"]["loss"][pair]
        if ends["high"] is not None and ends["high"] >= 0.0:
            found.append(worse if ends["low"] > 0.0 else as_well)
    if figures["seeds"] and figures["seed_mean"]["harmed_share"] is not None:
        found.append(
            "Better and worse off are counted on each person’s mean over seeds, which hides harm that one "
            f"run does: a single seed leaves {percent(figures['seed_mean']['harmed_share'])} worse off."
        )
    if figures["burnt_rounds"]:
        rounds = counted(figures["burnt_rounds"], "round was", "rounds were")
        found.append(f"{rounds} burnt: too few clients answered, and the model stayed as it was.")
    return found


def facts(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the labelled lines under the results table."""
    rounds = counted(figures["rounds"], "round", "rounds")
    clients = counted(figures["clients"], "client", "clients")
    return [
        *(_facts_of_people(figures) if figures["personalized"] else []),
        *(_facts_of_rounds(figures) if figures["bytes_per_client_round"] is not None else []),
        ("Run", f"{rounds}, {clients}, {duration(figures['seconds'])}"),
    ]


def _facts_of_people(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    people = counted(figures["personalized"], "person", "people")
    if figures["seeds"]:
        people += f", each the mean of {counted(len(figures['seeds']), 'seed', 'seeds')}"
    better, worse = percent(figures["improved_share"]), percent(figures["harmed_share"])
    median, worst = signed(figures["median_gain"], 3), signed(figures["worst_decile_gain"], 3)
    unit = terms_of(figures["task"]).unit
    lines = [
        ("Better off, worse off", f"{better} and {worse} of {people}"),
        ("Gate shut", f"{percent(figures['kept_global_share'])} kept the global adapter"),
        ("Gain in loss", f"median {median}, mean of the worst tenth {worst} nats per {unit}"),
    ]
    if figures["rouge_l"]:
        lines.append(("Replies written anew", _of_replies(figures["rouge_l"])))
    return lines


def _of_replies(rouge: Mapping[str, Any]) -> str:
    count, people = (counted(rouge[k], one, many) for k, one, many in _REPLIES)
    ends = rouge["personal-global"]
    change = f"ROUGE-L, personal − global: {points(ends['mean'])} points"
    return f"{count} of {people}; {change}, 95% interval {interval(ends['low'], ends['high'], scale=100)}"


def _facts_of_rounds(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    up, down, both = (size(figures[f"bytes_{part}"]) for part in ("up", "down", "per_client_round"))
    lines = [
        (
            "Bytes per client and round",
            f"{both} (up {up}, down {down}), {percent(figures['bytes_ratio'])} of the base in float32",
        )
    ]
    if figures["quantization_error"] is not None:
        lines.append(("Quantization error", f"{percent(figures['quantization_error'], 3)} of the sum, RMS"))
    return lines
