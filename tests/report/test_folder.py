"""Reading a run folder: what is accepted, and how damage is named."""

import json
import re
from pathlib import Path

import pytest

from fedpeft.errors import RunError
from fedpeft.report.folder import read_record
from fedpeft.report.record import CONTROLS

from .synthetic import SCENARIO, Truth, draw, edit_json, person_lines, write_json, write_lines, write_run


def test_a_record_holds_what_was_written(run: Path, truth: Truth) -> None:
    record = read_record(run)
    assert record.run.name == "keyboard"
    assert record.run.base.float32_bytes == 8_649_216
    assert [r.round for r in record.rounds] == list(range(13))
    assert record.rounds[0].bytes_up is None
    assert record.rounds[7].burnt
    assert [p.client for p in record.people] == sorted(truth.clients)
    for control in CONTROLS:
        losses = [p.test[control].loss for p in record.people]
        assert losses == pytest.approx(truth.scores[control]["loss"].tolist(), abs=0)
    assert record.scenario == SCENARIO
    assert record.skipped[0].reason == "no test text"
    assert record.samples is not None and len(record.samples.prompts) == 3
    assert not record.seeds


def test_the_order_of_lines_does_not_matter(run: Path, truth: Truth) -> None:
    expected = read_record(run)
    for name in ("people.jsonl", "metrics.jsonl"):
        lines = (run / name).read_text(encoding="utf-8").splitlines()
        (run / name).write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")
    assert read_record(run) == expected


def test_only_run_json_is_needed(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "run.json":
            path.unlink()
    record = read_record(run)
    assert (record.rounds, record.people, record.samples, record.scenario_text) == ((), (), None, "")


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="written by `fedpeft simulate`"):
        read_record(tmp_path / name)


def test_a_run_stopped_before_its_record_is_refused_with_the_command_that_goes_on(run: Path) -> None:
    (run / "run.json").unlink()
    with pytest.raises(RunError, match=f"a run that has not begun.*`fedpeft simulate --resume {run}`"):
        read_record(run)


def damaged(path: Path, number: int, change: object) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = change if isinstance(change, str) else json.dumps(change(json.loads(lines[number - 1])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "number", "change", "field", "found"),
    [
        ("metrics.jsonl", 3, "{not json", "", "{not json"),
        ("metrics.jsonl", 3, "[1, 2]", "", "[1, 2]"),
        ("metrics.jsonl", 5, lambda r: {**r, "round": -1}, "round", "-1"),
        ("metrics.jsonl", 5, lambda r: {**r, "bytes_up": "many"}, "bytes_up", "many"),
        ("metrics.jsonl", 6, lambda r: {**r, "train_loss": float("nan")}, "train_loss", "nan"),
        ("people.jsonl", 4, lambda p: {**p, "gate": 1.5}, "gate", "1.5"),
        ("people.jsonl", 4, lambda p: {k: v for k, v in p.items() if k != "client"}, "client", "{"),
        ("people.jsonl", 40, lambda p: {**p, "test": {"base": p["test"]["base"]}}, "", "{"),
    ],
)
def test_a_damaged_line_is_refused_by_file_and_line(
    run: Path, file: str, number: int, change: object, field: str, found: str
) -> None:
    damaged(run / file, number, change)
    with pytest.raises(RunError) as caught:
        read_record(run)
    where = f"{run / file}:{number}"
    assert caught.value.field == (f"{where}: {field}" if field else where)
    assert found in str(caught.value)
    assert caught.value.remedy


def test_missing_controls_are_named(run: Path) -> None:
    damaged(run / "people.jsonl", 2, lambda p: {**p, "test": {k: p["test"][k] for k in ("base", "global")}})
    with pytest.raises(RunError, match="test scores of local, personal too"):
        read_record(run)


def test_a_damaged_json_file_is_refused_by_name_and_field(run: Path) -> None:
    edit_json(run / "run.json", clients="some")
    with pytest.raises(RunError, match=re.escape(f"{run / 'run.json'}: clients: found 'some'")):
        read_record(run)


def test_samples_that_do_not_match_their_prompts_are_refused(run: Path) -> None:
    edit_json(run / "samples.json", prompts=["only one"])
    with pytest.raises(RunError, match=r"samples.json: found .* expected 1 texts and suggestions by 'base'"):
        read_record(run)


def test_bytes_that_are_not_text_are_refused_by_file_and_line(run: Path) -> None:
    with (run / "people.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n")
    with pytest.raises(RunError, match=r"people.jsonl:41: "):
        read_record(run)


def test_a_line_cut_short_is_damage_in_a_finished_run_and_work_in_progress_otherwise(run: Path) -> None:
    path = run / "people.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    with pytest.raises(RunError, match=r"people.jsonl:40"):
        read_record(run)
    edit_json(run / "run.json", status="interrupted")
    assert len(read_record(run).people) == 39


def test_a_whole_last_line_without_its_end_counts_in_a_finished_run(run: Path) -> None:
    path = run / "people.jsonl"
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    assert len(read_record(run).people) == 40


def test_line_separators_inside_strings_do_not_end_a_line(run: Path, truth: Truth) -> None:
    lines = [{**line, "client": f"{line['client']}\u2028x"} for line in person_lines(truth)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (run / "people.jsonl").write_text(text, encoding="utf-8")
    assert len(read_record(run).people) == 40


def test_a_line_repeated_by_a_resumed_run_counts_once_as_last_written(run: Path, truth: Truth) -> None:
    lines = person_lines(truth)
    write_lines(run / "people.jsonl", [{**lines[0], "steps": 1}, *lines])
    record = read_record(run)
    assert len(record.people) == 40
    assert record.people[0].steps == 60


class TestStudy:
    @pytest.fixture
    def study(self, tmp_path: Path) -> Path:
        for seed in range(3):
            write_run(tmp_path / "study" / "seeds" / str(seed), draw(12, rounds=3, seed=seed))
        write_json(tmp_path / "study" / "run.json", {"name": "study", "seeds": [0, 1, 2], "status": "finished"})
        return tmp_path / "study"

    def test_people_are_the_means_over_seeds(self, study: Path) -> None:
        record = read_record(study)
        drawn = [draw(12, rounds=3, seed=seed) for seed in range(3)]
        for i, person in enumerate(record.people):
            for control in CONTROLS:
                expected = sum(float(d.scores[control]["loss"][i]) for d in drawn) / 3
                assert person.test[control].loss == pytest.approx(expected, rel=1e-12)
        assert sorted(record.seeds) == [0, 1, 2]
        assert record.run.name == "study"
        assert record.run.seconds == pytest.approx(3 * 192.4)
        assert record.scenario == SCENARIO
        assert len(record.skipped) == 1

    def test_a_person_scored_in_one_seed_only_is_kept(self, study: Path) -> None:
        path = study / "seeds" / "2" / "people.jsonl"
        line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "client": "zoe"}) + "\n")
        record = read_record(study)
        assert record.people[-1].client == "zoe"
        assert record.people[-1].test["base"].loss == line["test"]["base"]["loss"]

    def test_a_missing_seed_is_refused_once_the_study_is_finished(self, study: Path) -> None:
        edit_json(study / "run.json", seeds=[0, 1, 2, 3])
        with pytest.raises(RunError, match=r"no record of seeds \[3\].*--resume"):
            read_record(study)
        edit_json(study / "run.json", status="running")
        assert len(read_record(study).seeds) == 3

    def test_a_seed_stopped_before_its_record_is_not_counted_yet(self, study: Path) -> None:
        write_json(study / "run.json", {"name": "study", "seeds": [0, 1, 2], "status": "running"})
        (study / "seeds" / "2" / "run.json").unlink()
        assert sorted(read_record(study).seeds) == [0, 1]

    def test_a_study_that_says_no_status_is_finished_when_its_seeds_are(self, study: Path) -> None:
        write_json(study / "run.json", {"name": "study", "seeds": [0, 1, 2]})
        assert read_record(study).run.status == "finished"
        edit_json(study / "seeds" / "1" / "run.json", status="interrupted")
        assert read_record(study).run.status == "interrupted"
