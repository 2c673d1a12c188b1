"""Reading a run folder: one run, or a study of several seeds whose people are pooled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fedpeft.errors import RunError
from fedpeft.report.jsonfiles import checked, read_json, read_lines, read_text
from fedpeft.report.record import Person, Record, Round, Run, Samples, Skipped
from fedpeft.report.study import pooled

_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_RUN, _ROUND, _PERSON = TypeAdapter(Run), TypeAdapter(Round), TypeAdapter(Person)
_SKIPPED, _SAMPLES = TypeAdapter(tuple[Skipped, ...]), TypeAdapter(Samples)
_SEEDS: TypeAdapter[tuple[int, ...]] = TypeAdapter(tuple[int, ...])


def read_record(folder: Path) -> Record:
    """Read and check a run folder.

    Parameters
    ----------
    folder : Path
        With ``run.json`` at least: an unfinished run has a record too, of what it has done so far.

    Returns
    -------
    Record

    Raises
    ------
    RunError
        When the folder is no run, or a file in it is damaged; the message names file and line.
    """
    outline = read_json(folder / "run.json", _OBJECT)
    if outline is None:
        raise _no_record(folder)
    if "seeds" in outline and (folder / "seeds").is_dir():
        return _study(folder, outline)
    return _single(folder)


def _single(folder: Path) -> Record:
    run = read_json(folder / "run.json", _RUN)
    if run is None:
        raise _no_record(folder)
    unfinished = run.status != "finished"
    # A resumed run repeats the round, or the person, in which it was cut short: the last line counts.
    rounds = {r.round: r for r in read_lines(folder / "metrics.jsonl", _ROUND, unfinished)}
    people = {p.client: p for p in read_lines(folder / "people.jsonl", _PERSON, unfinished)}
    return Record(
        run=run,
        rounds=tuple(rounds[number] for number in sorted(rounds)),
        people=tuple(people[client] for client in sorted(people)),
        skipped=read_json(folder / "skipped.json", _SKIPPED) or (),
        samples=read_json(folder / "samples.json", _SAMPLES),
        scenario_text=read_text(folder / "scenario.toml"),
        **_cards(folder),
    )


def _no_record(folder: Path) -> RunError:
    where = f"run folder {folder}"
    if (folder / "scenario.json").is_file():
        return RunError(where, "a run that has not begun", "a record of it", f"if it was stopped, {_go_on(folder)}")
    found = "no run.json in it" if folder.is_dir() else "no such folder"
    return RunError(where, found, "a folder written by `fedpeft simulate`")


def _go_on(folder: Path) -> str:
    return f"go on with it: `fedpeft simulate --resume {folder}`"


def _cards(folder: Path) -> dict[str, Any]:
    names = ("scenario", "data", "environment")
    return {name: read_json(folder / f"{name}.json", _OBJECT) or {} for name in names}


def _study(folder: Path, outline: Mapping[str, Any]) -> Record:
    listed = _SEEDS.validate_python(outline["seeds"])
    folders = {s: folder / "seeds" / str(s) for s in listed}
    seeds = {s: _single(path) for s, path in folders.items() if (path / "run.json").is_file()}
    if not seeds or (outline.get("status") == "finished" and len(seeds) < len(listed)):
        absent = sorted(set(listed) - set(seeds))
        raise RunError(f"run folder {folder}", f"no record of seeds {absent}", "seeds/<seed>/ for each", _go_on(folder))
    first, *_ = seeds.values()
    cards = {name: card or getattr(first, name) for name, card in _cards(folder).items()}
    return Record(
        run=_study_run(folder, outline, seeds),
        people=pooled([record.people for record in seeds.values()]),
        skipped=tuple(dict.fromkeys(s for record in seeds.values() for s in record.skipped)),
        samples=next((r.samples for r in seeds.values() if r.samples), None),
        scenario_text=read_text(folder / "scenario.toml") or first.scenario_text,
        seeds=seeds,
        **cards,
    )


def _study_run(folder: Path, outline: Mapping[str, Any], seeds: Mapping[int, Record]) -> Run:
    """Read the study's own ``run.json``; what it leaves out is taken from its seeds."""
    runs = [record.run for record in seeds.values()]
    unfinished = [run.status for run in runs if run.status != "finished"]
    whole = len(seeds) == len(outline["seeds"]) and not unfinished
    first = read_json(folder / "seeds" / str(next(iter(seeds))) / "run.json", _OBJECT) or {}
    defaults = {
        **first,
        "seconds": sum(run.seconds for run in runs),
        "status": "finished" if whole else [*unfinished, "interrupted"][0],
    }
    return checked(json.dumps({**defaults, **outline}), _RUN, str(folder / "run.json"))
