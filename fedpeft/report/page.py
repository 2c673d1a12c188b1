"""``report.html``: one self-contained page per run. It loads nothing, runs no script, and needs no server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpeft.errors import RunError
from fedpeft.files import write_whole
from fedpeft.report.details import engine_note, flat, people_grid, rounds_grid, sent, skipped_grid, voices
from fedpeft.report.figures import figures
from fedpeft.report.findings import cautions, facts, headline, verdict
from fedpeft.report.folder import read_record
from fedpeft.report.plots import plots
from fedpeft.report.record import Record
from fedpeft.report.replies import sheet
from fedpeft.report.tables import grids
from fedpeft.report.wording import GLOSSARY, moment, name_of, terms_of

REPORT = "report.html"
_CAPTIONS = {
    "gain": "Each bar is one person’s change in perplexity on their own test text when their personal "
    "adapter replaces the global one. The circle in its column is what the global adapter changed before.",
    "learning": "The global adapter on validation text. Round 0 is the base before any training; thin "
    "lines, where there are some, are single seeds.",
    "bytes": "Messages of one client in each round. The dashed line is what sending the whole model would "
    "take, once and in one direction.",
}


def build(run_folder: Path) -> Path:
    """Read a run folder and write its ``report.html``.

    Parameters
    ----------
    run_folder : Path
        Finished or not.

    Returns
    -------
    Path
        The page, replaced at once or not at all.

    Raises
    ------
    RunError
        When the folder is no run, a file in it is damaged, or jinja2 or matplotlib is not installed.
    """
    record = read_record(run_folder)
    return write_page(run_folder, record, figures(record))


def write_page(run_folder: Path, record: Record, found: Mapping[str, Any]) -> Path:
    """Write the page of a record that is already read, with its figures."""
    path = run_folder / REPORT
    try:
        write_whole(path, render(record, found))
    except ModuleNotFoundError as error:
        expected = "jinja2 and matplotlib to be installed"
        raise RunError("report", f"no module {error.name}", expected, "pip install 'fedpeft[train]'") from error
    return path


def render(record: Record, found: Mapping[str, Any]) -> str:
    """Return the page as text: the same record, the same text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    pages = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    cards = {"Data": record.data, "Environment": record.environment}
    if not record.scenario_text:
        cards = {"Scenario": record.scenario, **cards}
    return pages.get_template("page.html").render(
        css=(here / "page.css").read_text(encoding="utf-8"),
        run=record.run,
        started=moment(record.run.started),
        seeds=len(record.seeds),
        terms=terms_of(record.task),
        headline=headline(record, found),
        verdict=verdict(found),
        cautions=cautions(found, record.run.status),
        grids=grids(found),
        glossary=[(name_of(control), what) for control, what in GLOSSARY.items()],
        lines=facts(found),
        plots=[(plot, _CAPTIONS[plot.name]) for plot in plots(record)],
        samples=record.samples,
        voices=voices,
        sheet=sheet(record.samples),
        written=found["rouge_l"]["replies"] if found["rouge_l"] else 0,
        people=people_grid(record),
        rounds=rounds_grid(record),
        sent=sent(record, found),
        engine_note=engine_note(record),
        skipped=skipped_grid(record),
        scenario_text=record.scenario_text,
        cards=[(label, flat(card)) for label, card in cards.items() if card],
    )
