"""The page: self-contained, escaped, the same bytes twice, and there for unfinished runs too."""

import json
import re
import threading
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from fedpeft.report.figures import figures
from fedpeft.report.folder import read_record
from fedpeft.report.page import build, render
from fedpeft.report.plots import plots
from fedpeft.report.wording import percent

from .synthetic import Truth, draw, edit_json, person_lines, write_json, write_lines, write_run

HOSTILE = "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(1)>{{ 7*7 }}"
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use", "rect"}


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page(folder: Path) -> Page:
    path = build(folder)
    assert path == folder / "report.html"
    found = Page(path.read_text(encoding="utf-8"))
    assert found.open == []
    return found


def test_the_page_says_what_the_run_found(run: Path, truth: Truth) -> None:
    words, top3 = page(run).words, percent(truth.mean("personal", "top3"))
    assert f"personal adapters predict the next token in three suggestions {top3}" in words
    for expected in (
        "Base fingerprint", "user-99 no test text", "wrong user", "on my way, see you", "grab ramen tonight",
        'name = "keyboard"', "tokens.train", "512,345", "machine.cores", "simulated (engine inprocess)",
        "1 round was burnt",
    ):  # fmt: skip
        assert expected in words
    for client in truth.clients:
        assert client in words


def test_the_page_refers_to_nothing_outside_itself(run: Path) -> None:
    found = page(run)
    for tag, attributes in found.tags:
        assert tag not in {"script", "iframe", "img", "object", "embed", "form", "base", "image"}
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "action", "srcset", "poster", "data"}:
                assert (value or "").startswith(("#", "data:,"))
            assert not name.startswith("on")
            for target in re.findall(r"url\(([^)]*)\)", value or ""):
                assert target.startswith("#")
    style = "".join(found.text)
    assert "@import" not in style
    assert "url(" not in (Path(__file__).parents[2] / "fedpeft/report/page.css").read_text(encoding="utf-8")


def test_every_id_is_unique_and_every_reference_has_its_target(run: Path) -> None:
    found = page(run)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    values = [value or "" for _, attributes in found.tags for value in attributes.values()]
    used = {t for value in values for t in re.findall(r"^#([\w.-]+)$|url\(#([^)]+)\)", value) for t in t if t}
    assert used and used <= set(ids)


def test_hostile_names_prompts_and_settings_are_shown_as_text(run: Path, truth: Truth) -> None:
    lines = person_lines(truth)
    lines[0]["client"] = lines[1]["wrong_user"] = HOSTILE
    write_lines(run / "people.jsonl", lines)
    said = {"who": HOSTILE, "texts": [HOSTILE], "suggestions": [[HOSTILE, "a", "b"]]}
    write_json(run / "samples.json", {"prompts": [HOSTILE], "completions": [said]})
    write_json(run / "skipped.json", [{"client": HOSTILE, "reason": HOSTILE}])
    write_json(run / "environment.json", {HOSTILE: HOSTILE})
    write_json(run / "data.json", {"federation": HOSTILE})
    (run / "scenario.toml").write_text(f"# </code></pre>{HOSTILE}", encoding="utf-8")
    edit_json(run / "run.json", name=HOSTILE, engine=HOSTILE, started=HOSTILE, schema_digest=HOSTILE)
    found = page(run)
    assert not {"script", "img"} & {tag for tag, _ in found.tags}
    assert found.words.count(HOSTILE) >= 12


def test_the_same_record_gives_the_same_bytes(run: Path) -> None:
    first = build(run).read_bytes()
    assert build(run).read_bytes() == first


def test_the_readers_own_matplotlib_settings_change_nothing_and_are_left_alone(run: Path) -> None:
    record = read_record(run)
    plain = [plot.wide for plot in plots(record)]
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "lines.linewidth": 9}):
        assert [plot.wide for plot in plots(record)] == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_the_page_can_be_written_from_a_thread(run: Path) -> None:
    expected = build(run).read_bytes()
    thread = threading.Thread(target=build, args=(run,))
    thread.start()
    thread.join()
    assert (run / "report.html").read_bytes() == expected


def test_no_draft_is_left_beside_the_page(run: Path) -> None:
    build(run)
    assert [path.name for path in run.glob(".*")] == []


@pytest.mark.parametrize("left", ["rounds only", "base only", "nothing"])
def test_an_unfinished_run_has_a_page(run: Path, left: str) -> None:
    for name in ("people.jsonl", "samples.json", "skipped.json", "data.json", "scenario.toml"):
        (run / name).unlink()
    metrics = run / "metrics.jsonl"
    if left == "base only":
        metrics.write_text(metrics.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    elif left == "nothing":
        metrics.unlink()
    edit_json(run / "run.json", status="running")
    found = page(run)
    assert "The run is running: these are its figures so far." in found.words
    assert ("Nobody has a personal adapter yet" in found.words) == (left == "rounds only")
    assert [tag for tag, _ in found.tags].count("svg") == {"rounds only": 4, "base only": 2, "nothing": 0}[left]


def test_a_study_has_a_page_with_its_seeds(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / "seeds" / str(seed), draw(6, rounds=2, seed=seed))
    write_json(tmp_path / "run.json", {"name": "study", "seeds": [0, 1]})
    words = page(tmp_path).words
    assert "2 seeds" in words
    assert "Worse off" in words


@pytest.mark.parametrize("people", [1, 3, 40, 260])
def test_every_plot_is_well_formed_and_titled(people: int, tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path / "r", draw(people, rounds=2)))
    drawn = plots(record)
    assert [plot.name for plot in drawn] == ["gain", "learning", "bytes"]
    for plot in drawn:
        for svg, width in ((plot.wide, 720), (plot.narrow, 350)):
            root = ET.fromstring(svg)
            assert root.get("viewBox", "").startswith(f"0 0 {width} ")
            assert root.findtext("{http://www.w3.org/2000/svg}title") == plot.title
            assert not re.search(r"(fill|stroke): #", svg), "a colour that a dark page cannot change"


def test_the_plot_of_gains_counts_what_the_figures_count(run: Path) -> None:
    record = read_record(run)
    found = figures(record)
    better, worse = round(found["improved_share"] * 40), round(found["harmed_share"] * 40)
    assert plots(record)[0].title == f"Personal adapters help {better} of 40 people and harm {worse}"


def test_a_text_that_repeats_its_prompt_is_not_shown_twice(run: Path) -> None:
    said = {"who": "base", "texts": ["see you later", "ok!"], "suggestions": [["a"], ["b"]]}
    write_json(run / "samples.json", {"prompts": ["see you", "ok"], "completions": [said]})
    text = render(read_record(run), figures(read_record(run)))
    assert '<span class="given">see you</span> later</div>' in text
    assert '<span class="given">ok</span>!</div>' in text


def test_a_missing_library_is_named_with_its_remedy(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from fedpeft.errors import RunError

    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(RunError, match=r"pip install 'fedpeft\[train\]'"):
        build(run)


def test_the_figures_are_not_rounded_on_their_way_to_json(run: Path) -> None:
    found = figures(read_record(run))
    assert json.loads(json.dumps(found))["bytes_up"] == found["bytes_up"]
