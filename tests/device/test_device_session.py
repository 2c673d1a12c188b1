"""How a device runs a graph changes memory and time, never answers; and nothing half-made is used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpeft.base import load_base
from fedpeft.device import Bundle, Runtime
from fedpeft.device import session as session_module
from fedpeft.device.private import ours_alone, settled
from fedpeft.errors import BundleError, FedpeftError
from fedpeft.export import ExportOptions, export_base
from tests.device.conftest import KEY

IDS = [1, 3, 300, 400]


@pytest.fixture(scope="session")
def int4(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("int4") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(tmp_path_factory.mktemp("home")))
        export_base(load_base("keyboard"), folder, key=KEY, options=ExportOptions(precision="int4"))
    return folder


def made(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir())


def test_a_prepacked_graph_is_made_once_and_answers_the_same(run, int4, tmp_path):
    store, folder = tmp_path / "packed", run / "device" / "adapters" / "ada"
    plain = Runtime(int4)
    first, again = Runtime(int4, prepacked=store), Runtime(int4, prepacked=store)
    (name,) = made(store)
    when = (store / name / "model.onnx").stat().st_mtime_ns
    Runtime(int4, prepacked=store)
    assert (store / name / "model.onnx").stat().st_mtime_ns == when
    assert store.stat().st_mode & 0o777 == 0o700
    for runtime in (first, again):
        for adapter in (None, folder):
            loaded, expected = (r.load(adapter) if adapter else None for r in (runtime, plain))
            assert np.abs(runtime.logits(IDS, loaded) - plain.logits(IDS, expected)).max() < 1e-4
            assert list(runtime.generate(IDS, loaded, tokens=6, ends=())) == list(
                plain.generate(IDS, expected, tokens=6, ends=())
            )
        assert np.abs(runtime.logits(IDS, runtime.load(folder)) - runtime.logits(IDS)).max() > 0.1


@pytest.mark.parametrize("change", ["onnxruntime", "processor", "file", "seal", "missing"])
def test_a_prepacked_graph_of_other_circumstances_is_made_again(int4, tmp_path, monkeypatch, change):
    store = tmp_path / "packed"
    Runtime(int4, prepacked=store)
    (old,) = made(store)
    if change == "onnxruntime":
        monkeypatch.setattr(session_module.ort, "__version__", "99.0")
    elif change == "processor":
        monkeypatch.setattr(session_module, "_processor", lambda: "another")
    elif change == "file":
        (store / old / "model.onnx.data").write_bytes(b"short")
    elif change == "seal":
        (store / old / "made.json").write_text(json.dumps({"model.onnx": 3}))
    else:
        (store / old / "model.onnx").unlink()
    expected = Runtime(int4).logits(IDS)
    assert np.abs(Runtime(int4, prepacked=store).logits(IDS) - expected).max() < 1e-4
    (new,) = made(store)
    assert (new != old) == (change in ("onnxruntime", "processor"))


def test_a_prepacked_graph_that_cannot_be_written_leaves_nothing(int4, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session_module, "hash_files", full)
    with pytest.raises(BundleError, match="No space left"):
        Runtime(int4, prepacked=tmp_path / "packed")
    assert not made(tmp_path / "packed")


def test_two_processes_that_start_at_once_both_get_a_whole_graph(int4, tmp_path):
    script = (
        "import sys; from pathlib import Path; from fedpeft.device import Runtime; "
        "print(Runtime(Path(sys.argv[1]), prepacked=Path(sys.argv[2])).logits([1, 3, 300]).argmax(-1).tolist())"
    )
    command = [sys.executable, "-c", script, str(int4), str(tmp_path / "packed")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [process.communicate() for process in started]
    expected = str(Runtime(int4).logits([1, 3, 300]).argmax(-1).tolist())
    assert [out.strip() for out, _ in ended] == [expected] * 3, ended
    assert len(made(tmp_path / "packed")) == 1


def test_a_place_that_others_can_write_to_is_no_place_for_a_prepacked_graph(int4, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(BundleError, match="only you can change"):
        Runtime(int4, prepacked=tmp_path / "open")


def test_a_mapped_graph_answers_the_same_and_a_quantized_one_is_refused(run, runtime, int4, ada):
    mapped = Runtime(run / "device" / "base", mapped=True)
    for adapter in (None, ada):
        assert np.abs(mapped.logits(IDS, adapter) - runtime.logits(IDS, adapter)).max() < 1e-4
    with pytest.raises(BundleError, match="precision: found 'int4'"):
        Runtime(int4, mapped=True)


@pytest.mark.parametrize(
    ("options", "complaint"), [({"threads": 0}, "threads"), ({"mapped": True, "prepacked": Path("x")}, "prepacked")]
)
def test_options_without_meaning_are_refused_by_name(run, options, complaint):
    with pytest.raises(FedpeftError, match=f"{complaint}: found"):
        Runtime(run / "device" / "base", **options)


@pytest.mark.parametrize("variant", ["rows", "required"])
def test_a_base_whose_adapters_are_taken_otherwise_is_refused(tmp_path, monkeypatch, variant):
    monkeypatch.setenv("FEDPEFT_HOME", str(tmp_path / "home"))
    export_base(load_base("keyboard"), tmp_path / "base", key=KEY, options=ExportOptions(variant=variant))
    with pytest.raises(BundleError, match=f"variant: found '{variant}'"):
        Runtime(tmp_path / "base")


def test_warming_up_changes_nothing_but_when_things_are_made(run, runtime):
    warm = Runtime(run / "device" / "base")
    warm.warm_up()
    assert list(warm.generate(IDS, tokens=5, ends=())) == list(runtime.generate(IDS, tokens=5, ends=()))


def test_a_folder_is_ours_alone_only_if_nobody_else_can_change_what_is_in_it(base_copy, tmp_path):
    assert ours_alone(base_copy)
    (base_copy / "model.onnx").chmod(0o666)
    assert not ours_alone(base_copy)
    (base_copy / "model.onnx").chmod(0o644)
    assert ours_alone(base_copy)
    tmp_path.chmod(0o777)
    assert not ours_alone(base_copy)
    tmp_path.chmod(0o1777)
    assert ours_alone(base_copy)
    tmp_path.chmod(0o700)
    (base_copy / "link").symlink_to("/etc/hostname")
    assert not ours_alone(base_copy)


def test_a_base_reached_by_a_link_is_proven_and_loaded_where_the_link_pointed_when_it_was_judged(base_copy, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(base_copy)
    assert not ours_alone(link) and not ours_alone(link / ".." / "base")
    with settled(Bundle.open(link, "base")) as bundle:
        link.unlink()
        link.symlink_to("/nowhere")
        assert bundle.folder == base_copy.resolve()
        bundle.verify()


def test_a_prepacked_graph_is_kept_where_the_link_to_its_place_points(int4, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    opened = []
    load = session_module._load
    monkeypatch.setattr(session_module, "_load", lambda path, options: opened.append(path) or load(path, options))
    Runtime(int4, prepacked=tmp_path / "link")
    (name,) = made(tmp_path / "real")
    assert opened[-1] == (tmp_path / "real" / name / "model.onnx").resolve()


def test_a_base_that_others_could_change_is_hashed_and_loaded_from_a_copy(base_copy, runtime):
    (base_copy / "model.onnx.data").chmod(0o666)
    with settled(Bundle.open(base_copy, "base")) as bundle:
        assert bundle.folder != base_copy
        (base_copy / "model.onnx.data").write_bytes(b"changed after it was hashed")
        assert bundle.folder.stat().st_mode & 0o777 == 0o700
        bundle.verify()
    assert not bundle.folder.exists()
    with pytest.raises(BundleError, match="bytes"):
        Runtime(base_copy)


def test_a_runtime_works_when_the_copy_it_was_loaded_from_is_gone(base_copy, runtime, ada):
    (base_copy / "model.onnx.data").chmod(0o666)
    for mapped in (False, True):
        copied = Runtime(base_copy, mapped=mapped)
        assert np.abs(copied.logits(IDS, ada) - runtime.logits(IDS, ada)).max() < 1e-4


def test_the_sdk_starts_without_what_trains_and_quickly(run):
    script = (
        "import sys, time; t = time.perf_counter(); import fedpeft.device; "
        "print([m for m in ('torch', 'transformers', 'peft', 'flwr', 'safetensors', 'onnx', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
