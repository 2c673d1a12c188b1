"""The thread that runs the base: whoever comes, goes and waits, each is told what the runtime would say."""

import time
from dataclasses import replace
from itertools import pairwise
from queue import Queue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.device import Bundle
from fedpeft.device.rows import CHUNK, RowDecoder
from fedpeft.device.sampling import Sampling
from fedpeft.device.stream import Speech
from fedpeft.serve.job import Job
from fedpeft.serve.metrics import Metrics
from fedpeft.serve.scheduler import Scheduler

PLACES = 3


class Watched(RowDecoder):
    """Rows that write down what they were asked to do."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, PLACES)
        self.done: list[str] = []

    def read(self, row, ids):
        self.done.append(f"read {len(ids)}")
        return super().read(row, ids)

    def step(self, tokens):
        self.done.append(f"step {len(tokens)}")
        return super().step(tokens)


@pytest.fixture
def rows(people):
    return Watched(Bundle.open(people.run / "device" / "base-rows", "base"))


@pytest.fixture
def scheduler(rows):
    found = Scheduler(rows, Metrics())
    yield found
    found.close()
    assert not found.alive
    assert rows.seated == []


class Asked:
    """A job and what it was told."""

    def __init__(self, people, name: str | None, ids, tokens: int, seconds: float = 60.0, **sampling) -> None:
        self.told: Queue = Queue()
        self.adapter = people.runtime.load(people.run / "device" / "adapters" / name) if name else None
        self.sampling = Sampling(**sampling)
        speech = Speech(people.runtime.text.decode)
        deadline = time.monotonic() + seconds
        self.job = Job(ids, self.adapter, self.sampling, 5, tokens, frozenset(), speech, self.told.put, deadline)

    def answer(self) -> tuple[str, str, int]:
        text = ""
        while (said := self.told.get(timeout=20)).reason is None:
            text += said.text
        return text + said.text, said.reason, said.tokens

    def alone(self, people) -> tuple[str, str, int]:
        made = people.runtime.generate(
            self.job.ids, self.adapter, tokens=self.job.tokens, sampling=self.sampling, seed=5, ends=()
        )
        made = list(made)
        return people.runtime.text.decode(made), "length", len(made)


JOBS = st.tuples(
    st.sampled_from([None, "person00", "person01", "person02", "person03"]),
    st.lists(st.integers(5, 2047), min_size=1, max_size=150),
    st.integers(1, 12),
    st.sampled_from([{}, {"temperature": 1.0}, {"repetition_penalty": 1.5}]),
    st.booleans(),
)


@settings(max_examples=12, deadline=None)
@given(jobs=st.lists(JOBS, min_size=1, max_size=9))
def test_everybody_is_told_what_the_runtime_says_though_others_give_up(people, jobs):
    scheduler = Scheduler(Watched(Bundle.open(people.run / "device" / "base-rows", "base")), Metrics())
    asked = [(Asked(people, name, [1, *ids], tokens, **how), gives_up) for name, ids, tokens, how, gives_up in jobs]
    for each, _ in asked:
        scheduler.submit(each.job)
    for each, gives_up in asked:
        if gives_up:
            scheduler.cancel(each.job)
    answers = [(each.answer(), each.alone(people)) for each, gives_up in asked if not gives_up]
    scheduler.close()
    assert all(told == alone for told, alone in answers)


def test_a_long_prompt_is_read_in_pieces_between_the_steps_of_others(people, rows, scheduler):
    first = Asked(people, "person00", [1, 5], tokens=40)
    scheduler.submit(first.job)
    assert first.told.get(timeout=20).tokens >= 1
    long = Asked(people, None, [1, *[300] * (4 * CHUNK)], tokens=2)
    scheduler.submit(long.job)
    long.answer()
    first.answer()
    pieces = [i for i, did in enumerate(rows.done) if did == f"read {CHUNK}"]
    assert len(pieces) == 4
    for piece, following in pairwise(pieces):
        assert rows.done[piece + 1 : following] == ["step 1"]


def test_whoever_came_first_is_read_first_and_the_batch_is_kept_full(people, rows, scheduler):
    asked = [Asked(people, None, [1, *[300] * (i + 1)], tokens=6) for i in range(7)]
    for each in asked:
        scheduler.submit(each.job)
    for each in asked:
        each.answer()
    assert [did for did in rows.done if did.startswith("read")] == [f"read {i + 2}" for i in range(7)]
    assert f"step {PLACES}" in rows.done


def test_an_adapter_that_no_row_takes_fails_its_own_request_only(people, scheduler):
    first, last = (Asked(people, "person00", [1, 5], tokens=30) for _ in range(2))
    wrong = Asked(people, "person01", [1, 5], tokens=3)
    other = wrong.adapter.manifest.model_copy(update={"base_fingerprint": "0" * 64})
    wrong.job.adapter = replace(wrong.adapter, manifest=other)
    for each in (first, wrong, last):
        scheduler.submit(each.job)
    assert wrong.answer() == ("", "failed", 0)
    assert first.answer() == last.answer() == first.alone(people)


def test_nothing_runs_while_nobody_asks(people, rows, scheduler):
    Asked(people, None, [1, 5], tokens=2)
    time.sleep(0.05)
    assert rows.done == []


def test_a_job_whose_time_is_over_before_it_begins_is_not_run(people, rows, scheduler):
    late = Asked(people, None, [1, 5], tokens=2, seconds=-1)
    scheduler.submit(late.job)
    assert late.answer() == ("", "timeout", 0)
    assert rows.done == []


def test_after_the_end_whoever_comes_is_told_so(people, scheduler):
    scheduler.close()
    late = Asked(people, None, [1, 5], tokens=2)
    scheduler.submit(late.job)
    assert late.answer() == ("", "shutdown", 0)


class Spoilt(RowDecoder):
    """Rows of which one cannot be seated, for want of memory, and one is told scores that are none."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, PLACES)
        self.put, self.seats = self._stack.put, 0
        self._stack.put = self._put

    def _put(self, place, tensors) -> None:
        self.put(place, tensors)
        self.seats += 1
        if self.seats == 2:
            raise MemoryError

    def step(self, tokens):
        scores = super().step(tokens)
        if len(tokens) == PLACES:
            scores[PLACES - 1] = float("nan")
        return scores


def test_what_goes_wrong_with_one_request_ends_that_one_only(people):
    scheduler = Scheduler(Spoilt(Bundle.open(people.run / "device" / "base-rows", "base")), Metrics())
    asked = [Asked(people, f"person0{i}", [1, 300 + i], tokens=60, temperature=1.0) for i in range(4)]
    for each in asked:
        scheduler.submit(each.job)
    answers = [each.answer() for each in asked]
    # The second found no memory for its adapter, the last was told NaN when all three places were taken.
    assert [reason for _, reason, _ in answers] == ["length", "failed", "length", "failed"]
    assert [answers[i] for i in (0, 2)] == [asked[i].alone(people) for i in (0, 2)]
    assert scheduler.alive
    again = Asked(people, "person03", [1, 303], tokens=5)
    scheduler.submit(again.job)
    assert again.answer() == again.alone(people)
    scheduler.close()
