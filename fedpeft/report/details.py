"""The long tables and lists of the page: every person, every round, what travelled, what ran where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedpeft.report.record import CONTROLS, Person, Record, Round, Samples
from fedpeft.report.tables import Grid
from fedpeft.report.wording import NOTHING, Terms, counted, name_of, number, percent, signed, size, terms_of

_SIMULATED = ("inprocess", "serial", "ray")


def people_grid(record: Record) -> Grid | None:
    """Tabulate every person, in the order of the plot: most helped first."""
    if not record.people:
        return None
    perplexities = tuple(f"Perplexity, {name_of(c)}" if c == CONTROLS[0] else name_of(c) for c in CONTROLS)
    terms = terms_of(record.task)
    head = ("Person", *perplexities, "Change", f"{terms.label}, global", "personal", "Gate", "Messages", "Wrong user")
    people = sorted(record.people, key=lambda p: (_gain(p), p.client))
    return Grid(head, tuple(_person_row(person, terms) for person in people))


def _gain(person: Person) -> float:
    return person.test["personal"].loss - person.test["global"].loss


def _person_row(person: Person, terms: Terms) -> tuple[str, ...]:
    change = person.test["personal"].perplexity / person.test["global"].perplexity - 1.0
    return (
        person.client,
        *(number(person.test[c].perplexity if c in person.test else None) for c in CONTROLS),
        f"{signed(100 * change)}%",
        percent(getattr(person.test["global"], terms.metric)),
        percent(getattr(person.test["personal"], terms.metric)),
        number(person.gate, 2),
        f"{person.messages:,}",
        person.wrong_user or NOTHING,
    )


def rounds_grid(record: Record) -> Grid | None:
    """Tabulate every round, of every seed in turn."""
    terms = terms_of(record.task)
    head = (
        "Round", "Answered", "Train loss", "Validation perplexity", terms.label, "Update norm", "Quantization error",
        "Clipped", "Sent", "Received", "Seconds",
    )  # fmt: skip
    if record.seeds:
        rows = [(str(seed), *_round_row(r, terms)) for seed, part in record.seeds.items() for r in part.rounds]
        return Grid(("Seed", *head), tuple(rows), words=3) if rows else None
    rows = [_round_row(r, terms) for r in record.rounds]
    return Grid(head, tuple(rows), words=2) if rows else None


def _round_row(r: Round, terms: Terms) -> tuple[str, ...]:
    answered = f"{r.contributors} of {len(r.cohort)}{', burnt' if r.burnt else ''}" if r.cohort else NOTHING
    return (
        str(r.round),
        answered,
        number(r.train_loss, 3),
        number(r.validation.perplexity if r.validation else None, 2),
        percent(getattr(r.validation, terms.metric) if r.validation else None),
        _short(r.update_norm),
        percent(r.quantization_error, 3),
        percent(r.clipped, 2),
        size(r.bytes_up),
        size(r.bytes_down),
        number(r.seconds),
    )


def _short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def sent(record: Record, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what a client's messages held, what they never hold, and which base and schema both sides named."""
    run, base = record.run, record.run.base
    parameters = counted(run.adapter_parameters, "adapter parameter", "adapter parameters")
    lines = [
        ("A client sent", f"{size(found['bytes_up'])} a round: one vector for {parameters}"),
        ("A client received", f"{size(found['bytes_down'])} a round: what changed in the global adapter"),
        ("Never in a message", "a person’s text, their private adapter, or the base"),
        ("Base", f"{base.name}: {base.parameters:,} parameters, {size(base.float32_bytes)} in float32"),
        ("Base fingerprint", base.fingerprint),
        ("Adapter schema", run.schema_digest or NOTHING),
    ]
    return lines if found["bytes_per_client_round"] is not None else lines[2:]


def engine_note(record: Record) -> str:
    """Say where the clients of this run were."""
    engine = record.run.engine
    if engine in _SIMULATED:
        return (
            f"The clients of this run were simulated (engine {engine}): the bytes are those of the messages "
            "that each of them would exchange with a server."
        )
    return f"The clients of this run were processes of their own (engine {engine})."


def voices(samples: Samples, at: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return who completed one prompt, with what after it, and their suggestions."""
    prompt = samples.prompts[at]
    return [(each.who, _after(prompt, each.texts[at]), each.suggestions[at]) for each in samples.completions]


def _after(prompt: str, text: str) -> str:
    """Return what follows a prompt, whether or not the text repeats it, set off from it by a space."""
    rest = text.removeprefix(prompt)
    return f" {rest}" if rest[:1].isalnum() and not prompt[-1:].isspace() else rest


def skipped_grid(record: Record) -> Grid | None:
    """Tabulate who has no score, and why."""
    rows = tuple((s.client, s.reason) for s in record.skipped)
    return Grid(("Client", "Reason"), rows, words=2) if rows else None


def flat(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List a nested card as dotted names and texts."""
    return list(_leaves(card, prefix))


def _leaves(card: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in card.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _leaf(value)


def _leaf(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_leaf(item) for item in value) or NOTHING
    return str(value) or NOTHING
