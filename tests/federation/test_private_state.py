"""What a client keeps for itself between rounds: one file a round, its own, whole, and as it was before a round."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fedpeft.errors import AdapterError
from fedpeft.federation.private_state import PrivateState

SCHEMA = "s" * 64


def vector(number: int) -> np.ndarray:
    return np.full(4, number, np.float32)


@pytest.fixture
def state(tmp_path: Path) -> PrivateState:
    return PrivateState(tmp_path / "ada", 4, SCHEMA)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "ada" / "state").iterdir())


def test_a_client_that_was_never_asked_has_nothing(state: PrivateState, tmp_path: Path) -> None:
    assert state.before(1) is None
    assert not (tmp_path / "ada").exists()


def test_a_round_starts_from_what_the_last_one_before_it_left(state: PrivateState) -> None:
    state.keep(2, vector(2))
    state.keep(5, vector(5))
    assert state.before(2) is None
    assert [state.before(r).tolist() for r in (3, 5)] == [[2.0] * 4] * 2
    assert [state.before(r).tolist() for r in (6, 99)] == [[5.0] * 4] * 2


def test_a_round_that_is_run_again_starts_from_the_state_before_it(state: PrivateState) -> None:
    """An interrupted round has already written; the same training from the same start then writes the same."""
    state.keep(1, vector(1))
    state.keep(2, vector(7))
    assert np.array_equal(state.before(2), vector(1))
    state.keep(2, vector(2))
    assert np.array_equal(state.before(3), vector(2))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), unique=True, min_size=1, max_size=6).map(sorted))
def test_of_any_course_the_last_two_rounds_are_on_disk(tmp_path_factory: pytest.TempPathFactory, rounds) -> None:
    folder = tmp_path_factory.mktemp("client")
    state = PrivateState(folder, 4, SCHEMA)
    for number in rounds:
        state.keep(number, vector(number))
    kept = sorted(int(path.stem.removeprefix("round-")) for path in (folder / "state").iterdir())
    assert kept == rounds[-2:]
    assert np.array_equal(state.before(rounds[-1] + 1), vector(rounds[-1]))


def test_only_the_owner_can_read_it(state: PrivateState, tmp_path: Path) -> None:
    state.keep(1, vector(1))
    assert (tmp_path / "ada" / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ada" / "state" / "round-1.safetensors").stat().st_mode & 0o777 == 0o600
    assert files(tmp_path) == ["round-1.safetensors"]  # and no draft of it


@pytest.mark.parametrize(
    "content",
    [
        b"",
        save({SCHEMA: vector(1)})[:-3],
        save({"t" * 64: vector(1)}),
        save({SCHEMA: vector(1)[:3]}),
        save({SCHEMA: np.array([1.0, np.nan, 1.0, 1.0], np.float32)}),
    ],
    ids=["empty", "cut off", "another schema", "another size", "not finite"],
)
def test_a_damaged_file_is_refused_by_its_path(state: PrivateState, tmp_path: Path, content: bytes) -> None:
    state.keep(1, vector(1))
    path = tmp_path / "ada" / "state" / "round-1.safetensors"
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=f"private state {path}"):
        state.before(2)
    assert state.before(1) is None


def test_files_of_others_in_the_folder_are_left_alone(state: PrivateState, tmp_path: Path) -> None:
    state.keep(1, vector(1))
    (tmp_path / "ada" / "state" / "notes.txt").write_text("mine")
    for number in (2, 3, 4):
        state.keep(number, vector(number))
    assert files(tmp_path) == ["notes.txt", "round-3.safetensors", "round-4.safetensors"]
