"""What the benchmark publishes, at a size for tests: a person's adapter that was really trained, and many at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedpeft.bench import BENCHES
from fedpeft.bench.device_gain import Person, gain, gains_kept, parity, train_person
from fedpeft.bench.device_speed import activate_us, decode_ms, our_step


@pytest.fixture(scope="session")
def person(tmp_path_factory) -> Person:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(tmp_path_factory.mktemp("home")))
        return train_person(tmp_path_factory.mktemp("person"), steps=20)


def test_the_gain_that_is_published_is_measured_through_the_runtime(person):
    kept = gains_kept(person, ("int4",))
    assert kept["float32"] > 0.05
    # tests/export looks at every precision, and at more people.
    assert 0.9 <= kept["int4"] <= 1.1
    assert gain(person, "int4").nats == pytest.approx(kept["int4"] * kept["float32"])


def test_a_trained_adapter_answers_as_in_torch(person):
    assert parity(person) <= 1e-4


def test_a_loaded_adapter_weighs_at_most_thirty_kilobytes_beside_what_is_mapped(person):
    arguments = [str(person.folder.with_name("float32")), str(person.folder), "300"]
    done = subprocess.run(
        [sys.executable, "-m", "fedpeft.bench.device_memory", *arguments], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    size = (person.folder / "adapter.onnx_adapter").stat().st_size / 1e6
    assert found["heap_mb"] / 300 <= 0.035
    # Pages of the files, not memory of the process.
    assert found["mapped_mb"] >= 0.9 * 300 * size


def test_switching_takes_microseconds(ada):
    assert activate_us(ada, times=500) <= 20


def test_ways_are_timed_in_turn(runtime, ada):
    calls: list[str] = []
    ways = {"a": lambda _: calls.append("a"), "b": lambda _: calls.append("b"), "c": our_step(runtime, ada)}
    times = decode_ms(ways, rounds=2, tokens=2)
    assert calls == ["a", "a", "b", "b"] * 2
    assert times["c"] > times["a"] >= 0


def test_the_benchmark_is_registered():
    assert "device" in BENCHES
    assert (Path(__file__).parents[2] / "fedpeft" / "bench" / "device.py").is_file()
