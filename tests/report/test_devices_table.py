"""Classes of devices in the report: who is of which, what it holds, how its people fared."""

from dataclasses import replace

import pytest

from fedpeft.report.figures import figures
from fedpeft.report.folder import read_record
from fedpeft.report.page import render
from fedpeft.report.record import DeviceClass, Record
from fedpeft.report.tables import by_device, markdown

from .synthetic import RUN, draw, edit_json, people_of, person_lines, write_lines, write_run

CLASSES = (
    DeviceClass("desktop", "float32", "full", 3),
    DeviceClass("phone", "bfloat16", "nf4", 5),
    DeviceClass("watch", "bfloat16", "int8", 1),
)


@pytest.fixture
def record() -> Record:
    truth = draw(8)
    people = tuple(replace(p, device="desktop" if i < 3 else "phone") for i, p in enumerate(people_of(truth)))
    return Record(run=replace(RUN, devices=CLASSES), people=people)


def test_a_class_has_the_means_of_its_own_people(record):
    desktop, phone, watch = figures(record)["devices"]
    assert (desktop["clients"], desktop["people"], desktop["held"]) == (3, 3, "float32")
    assert (phone["clients"], phone["people"], phone["held"]) == (5, 5, "nf4, bfloat16")
    for control in ("base", "global", "personal"):
        losses = [person.test[control].loss for person in record.people]
        assert desktop["loss"][control] == pytest.approx(sum(losses[:3]) / 3)
        assert phone["loss"][control] == pytest.approx(sum(losses[3:]) / 5)
    assert watch["loss"] == {"base": None, "global": None, "personal": None}


def test_the_table_is_shown_in_markdown_and_on_the_page(record):
    found = figures(record)
    grid = by_device(found)
    assert grid.head[:4] == ("Devices", "Base held in", "Clients", "Scored")
    assert grid.rows[2] == ("watch", "int8, bfloat16", "1", "0", "–", "–", "–")
    assert "| phone | nf4, bfloat16 | 5 | 5 |" in markdown(found)
    assert "Results by class of devices" in render(record, found)


def test_of_a_study_people_are_counted_seed_by_seed(record):
    swapped = tuple(replace(p, device={"desktop": "phone", "phone": "desktop"}[p.device]) for p in record.people)
    study = replace(record, seeds={0: record, 1: replace(record, people=swapped)})
    desktop, phone, _ = figures(study)["devices"]
    assert desktop["people"] == phone["people"] == 8
    assert desktop["loss"] == pytest.approx(phone["loss"])


def test_where_all_clients_are_alike_there_is_no_table(tmp_path):
    found = figures(read_record(write_run(tmp_path / "run", draw(4))))
    assert found["devices"] is None
    assert by_device(found) is None
    assert "class of devices" not in markdown(found)


def test_classes_are_read_from_the_runs_files(tmp_path):
    truth, folder = draw(4), tmp_path / "run"
    write_run(folder, truth)
    lines = [{**line, "device": "phone"} for line in person_lines(truth)]
    write_lines(folder / "people.jsonl", lines)
    edit_json(folder / "run.json", devices=[{"name": "phone", "dtype": "float32", "precision": "nf4", "clients": 4}])
    (phone,) = figures(read_record(folder))["devices"]
    assert (phone["name"], phone["held"], phone["people"]) == ("phone", "nf4, float32", 4)
