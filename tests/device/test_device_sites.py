"""Adapters of every shape: composed, in half precision, with a prefix or a soft prompt, and those that cannot be."""

import re
import resource
import signal
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from fedpeft.adapters.algebra import cat
from fedpeft.base import load_base
from fedpeft.device import LoadedAdapter, Runtime
from fedpeft.device.bundle import ADAPTER, PREFIX, hash_files, seal
from fedpeft.device.compose import parse_weights
from fedpeft.device.loaded import write_values
from fedpeft.device.manifest import Manifest
from fedpeft.device.sites import require_fit
from fedpeft.errors import BundleError, FedpeftError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.signing.signature import public_bytes
from tests.device.conftest import KEY, random_adapter

IDS = [1, 3, 300, 400, 500]
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def every(tmp_path_factory) -> Runtime:
    """A base with every kind of site."""
    folder = tmp_path_factory.mktemp("sites") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(tmp_path_factory.mktemp("home")))
        export_base(load_base("keyboard"), folder, key=KEY, options=ExportOptions(sites=frozenset({"all"})))
    return Runtime(folder)


def bundle(runtime: Runtime, folder: Path, arrays: Arrays, prefix: Arrays | None = None, **fields: object) -> Path:
    """Write what an exporter would, of any tensors."""
    folder.mkdir(parents=True)
    for name, content in ((ADAPTER, arrays), (PREFIX, prefix or {})):
        if content:
            held = {k: ort.OrtValue.ortvalue_from_numpy(v) for k, v in content.items()}
            write_values(held, folder / name)
    manifest = {
        "kind": "adapter",
        "base_fingerprint": runtime.manifest.base_fingerprint,
        "signer": public_bytes(KEY).hex(),
        "name": folder.name,
        "files": hash_files(folder),
        "tensors": {name: array.shape for name, array in arrays.items()},
    }
    seal(folder, Manifest(**(manifest | fields)), KEY)
    return folder


def fill(runtime: Runtime, names: str, width: int = 3, seed: int = 0) -> Arrays:
    """Fill the sites whose names match with random numbers."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(
            1.0 if name.endswith("scale") else 0.0, 0.1, [width if n is None else n for n in shape]
        ).astype(np.float32)
        for name, shape in runtime.manifest.tensors.items()
        if re.search(names, name)
    }


KINDS = [r"lora_", "in_scale|out_scale", "bias_delta", r"serial\.relu", r"parallel\.gelu", "soft_prompt"]


@pytest.mark.parametrize("names", KINDS)
def test_every_kind_of_site_acts_and_both_run_paths_agree(every, tmp_path, names):
    adapter = every.load(bundle(every, tmp_path / "x", fill(every, names)))
    mine, base = every.logits(IDS, adapter), every.logits(IDS)
    assert mine.shape == base.shape
    assert np.abs(mine - base).max() > 1e-3
    # The bound path answers with what the other one scores highest.
    assert next(every.generate(IDS, adapter, ends=())) == mine[-1].argmax()


def test_a_soft_prompt_takes_its_room_from_the_context_and_is_cached_with_the_text(every, tmp_path):
    adapter = every.load(bundle(every, tmp_path / "x", fill(every, "soft_prompt", width=7)))
    talk = every.converse(adapter)
    assert talk.room == every.context - 7
    one = list(talk.generate(IDS, tokens=4, ends=()))
    assert list(talk.generate([*IDS, *one], tokens=2, ends=())) == list(
        every.generate([*IDS, *one], adapter, tokens=2, ends=())
    )
    assert talk.reused >= 7 + len(IDS)
    text = list(IDS)
    for _ in range(4):
        text.append(int(every.logits(text, adapter)[-1].argmax()))
    assert text[len(IDS) :] == one


def prefix_of(runtime: Runtime, length: int, seed: int = 0) -> Arrays:
    random, d = np.random.default_rng(seed), runtime.manifest.decoder
    names = [f"past_key_values.{i}.{part}" for i in range(d.layers) for part in ("key", "value")]
    return {n: random.normal(0, 1, (1, d.kv_heads, length, d.head_dim)).astype(np.float32) for n in names}


def test_a_prefix_comes_before_every_text_on_every_path(every, tmp_path):
    prefix = prefix_of(every, 5)
    alone = every.load(bundle(every, tmp_path / "alone", {}, prefix))
    both = every.load(bundle(every, tmp_path / "both", fill(every, "lora_"), prefix))
    feeds = prefix | {"input_ids": np.array([IDS]), "attention_mask": np.ones((1, 5 + len(IDS)), np.int64)}
    expected = every._decoder.session.run(["logits"], feeds)[0][0]
    assert np.abs(every.logits(IDS, alone) - expected).max() < 1e-5
    assert np.abs(every.logits(IDS, both) - expected).max() > 1e-2
    assert np.abs(expected - every.logits(IDS)).max() > 1e-2
    for adapter in (alone, both):
        talk = every.converse(adapter)
        made = list(talk.generate(IDS, tokens=5, ends=()))
        text = list(IDS)
        for _ in range(5):
            text.append(int(every.logits(text, adapter)[-1].argmax()))
        assert text[len(IDS) :] == made
        assert list(talk.generate(IDS, tokens=5, ends=())) == made
        assert every.suggest("I am ", adapter) != every.suggest("I am ")
    assert every.converse(alone).room == every.context - 5


@pytest.mark.parametrize("change", ["missing", "shape", "length"])
def test_a_prefix_of_another_base_is_refused(every, tmp_path, change):
    prefix = prefix_of(every, every.context if change == "length" else 5)
    if change == "missing":
        prefix.popitem()
    if change == "shape":
        prefix |= {"past_key_values.0.key": np.zeros((1, 1, 5, 3), np.float32)}
    with pytest.raises(BundleError, match="adapter of x"):
        every.load(bundle(every, tmp_path / "x", {}, prefix))


def test_half_precision_is_widened_and_answers_as_its_rounded_numbers(every, tmp_path):
    arrays = fill(every, "lora_")
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    narrow = every.load(bundle(every, tmp_path / "half", half, precision="float16"))
    rounded = {name: array.astype(np.float32) for name, array in half.items()}
    wide = every.load(bundle(every, tmp_path / "wide", rounded))
    assert np.array_equal(every.logits(IDS, narrow), every.logits(IDS, wide))
    assert np.array_equal(
        list(every.generate(IDS, narrow, tokens=5, ends=())), list(every.generate(IDS, wide, tokens=5, ends=()))
    )
    assert np.abs(every.logits(IDS, narrow) - every.logits(IDS)).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_numbers_of_another_type_than_the_manifest_says_are_refused(every, tmp_path, dtype):
    arrays = {name: array.astype(dtype) for name, array in fill(every, "lora_").items()}
    with pytest.raises(BundleError, match="as the manifest says"):
        every.load(bundle(every, tmp_path / "x", arrays))


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"m.lora_A.weight": (6, 4), "m.lora_B.weight": (8, 6)}, "width of 4"),
        ({"m.lora_A.weight": (6, 4)}, "no m.lora_B.weight"),
        ({"b.serial.relu.down": (6, 2), "b.serial.relu.up": (2, 6)}, "no b.serial.relu.down_bias"),
        ({"b.serial.relu.down": (6, 2), "b.serial.relu.up": (3, 6), "b.serial.relu.down_bias": (2,)}, "width of 2"),
    ],
)
def test_halves_that_do_not_belong_together_are_refused_before_a_session_sees_them(tensors, complaint):
    sites = {
        "m.lora_A.weight": (6, None),
        "m.lora_B.weight": (None, 6),
        "b.serial.relu.down": (6, None),
        "b.serial.relu.up": (None, 6),
        "b.serial.relu.down_bias": (None,),
    }
    with pytest.raises(BundleError, match=complaint):
        require_fit(tensors | ({"m.lora_B.weight": (6, 6)} if complaint == "width of 4" else {}), sites, "x")


def adapters(run: Path, runtime: Runtime, tmp_path: Path) -> list[LoadedAdapter]:
    sources = [random_adapter(runtime.manifest, rank, 0.1) for rank in (4, 2)]
    for i, adapter in enumerate(sources):
        export_adapter(adapter, tmp_path / f"p{i}", owner=f"p{i}", base=runtime.manifest, key=KEY)
    export_adapter(cat(sources, [0.7, -0.4]), tmp_path / "cat", owner="cat", base=runtime.manifest, key=KEY)
    return [runtime.load(tmp_path / name) for name in ("p0", "p1", "cat")]


def test_composing_is_exact(run, runtime, tmp_path):
    one, two, expected = adapters(run, runtime, tmp_path)
    together = runtime.compose([one, two], [0.7, -0.4])
    assert np.abs(runtime.logits(IDS, together) - runtime.logits(IDS, expected)).max() < 1e-4
    assert list(runtime.generate(IDS, together, tokens=9, ends=())) == list(
        runtime.generate(IDS, expected, tokens=9, ends=())
    )
    assert np.abs(runtime.logits(IDS, together) - runtime.logits(IDS)).max() > 0.1
    assert together.owner == "0.7 p0 + -0.4 p1"
    only = runtime.compose([one, two], [1.0, 0.0])
    assert np.abs(runtime.logits(IDS, only) - runtime.logits(IDS, one)).max() < 1e-4


def test_bottlenecks_and_biases_compose_to_the_sum_of_what_they_do(every, tmp_path):
    last = f"layers.{every.manifest.decoder.layers - 1}.mlp.parallel.gelu"
    for kind in (re.escape(last), r"layers\.0\.self_attn\.o_proj\.bias_delta"):
        parts = [
            every.load(bundle(every, tmp_path / f"{kind[-5:]}{i}", fill(every, kind, width=2 + i, seed=i)))
            for i in (0, 1)
        ]
        together = every.compose(parts, [1.0, 1.0])
        swapped = every.compose(parts[::-1], [1.0, 1.0])
        assert np.allclose(every.logits(IDS, together), every.logits(IDS, swapped), atol=1e-4)
        assert np.allclose(every.logits(IDS, every.compose(parts, [1.0, 0.0])), every.logits(IDS, parts[0]), atol=1e-4)
        assert np.abs(every.logits(IDS, together) - every.logits(IDS, parts[0])).max() > 1e-4


def test_what_cannot_be_composed_is_refused_with_the_reason(every, tmp_path):
    scale, prompt, lora = (
        every.load(bundle(every, tmp_path / names, fill(every, names)))
        for names in ("out_scale", "soft_prompt", "lora_")
    )
    prefixed = every.load(bundle(every, tmp_path / "p", {}, prefix_of(every, 3)))
    for parts, weights, complaint in (
        ([scale, lora], [1, 1], "a scale"),
        ([scale], [0.5], "of weight 1"),
        ([prompt, prompt], [1, 1], "of weight 1"),
        ([prefixed, lora], [1, 1], "prefix"),
        ([], [], "at least one"),
        ([lora], [1, 2], "2 numbers"),
        ([lora], [float("nan")], "finite"),
    ):
        with pytest.raises(FedpeftError, match=complaint):
            every.compose(parts, weights)
    mixed = every.compose([prompt, lora], [1, 1])
    assert np.abs(every.logits(IDS, mixed) - every.logits(IDS, lora)).max() > 1e-3


def test_weights_are_read_from_text():
    assert parse_weights("ada=0.7, bob=-1") == {"ada": 0.7, "bob": -1.0}
    for text in ("", "ada", "ada=", "=1", "ada=x", "ada=1,ada=2", "ada=nan", "ada=inf"):
        with pytest.raises(FedpeftError, match="compose: found"):
            parse_weights(text)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_signed_adapter_with_numbers_that_are_none_is_refused(every, tmp_path, number):
    arrays = fill(every, "lora_A|lora_B")
    spoilt = next(name for name in arrays if name.endswith("up_proj.lora_B.weight"))
    arrays[spoilt][1, 2] = number
    with pytest.raises(BundleError, match=f"{re.escape(spoilt)}: found 'NaN or infinity'"):
        every.load(bundle(every, tmp_path / "x", arrays))


def test_a_signed_prefix_that_is_none_is_refused(every, tmp_path):
    facts = every.text.facts
    shape = (1, facts.kv_heads, 3, facts.head_dim)
    names = [f"past_key_values.{i}.{part}" for i in range(facts.layers) for part in ("key", "value")]
    good = {name: np.ones(shape, np.float32) for name in names}
    every.load(bundle(every, tmp_path / "good", {}, prefix=good))
    flat = {name: array.ravel() for name, array in good.items()}
    with pytest.raises(BundleError, match="keys and values of 4 dimensions"):
        every.load(bundle(every, tmp_path / "flat", {}, prefix=flat))
    good[names[0]][0, 0, 0, 0] = np.nan
    with pytest.raises(BundleError, match="NaN or infinity"):
        every.load(bundle(every, tmp_path / "spoilt", {}, prefix=good))


def test_a_full_temporary_folder_is_one_line_and_leaves_nothing(every, tmp_path, monkeypatch):
    arrays = fill(every, "lora_")
    folder = bundle(every, tmp_path / "x", arrays)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(BundleError, match=r"temporary folder: found .*expected room for a private copy"):
            every.load(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert every.load(folder).owner == "x"
