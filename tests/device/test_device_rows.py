"""Rows of one batch: whatever the others are, however they come and go, each says what it would say alone."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpeft.base import load_base
from fedpeft.bench.serve_people import random_lora
from fedpeft.device import Bundle, LoadedAdapter, Runtime
from fedpeft.device.loaded import from_values
from fedpeft.device.rows import CHUNK, RowDecoder
from fedpeft.errors import BundleError
from fedpeft.export import export_adapter, export_base
from fedpeft.export.options import ExportOptions
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
PLACES = 4


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """Both variants of a base, with every kind of site."""
    folder = tmp_path_factory.mktemp("rows")
    base = load_base("keyboard")
    for variant in ("optional", "rows"):
        export_base(base, folder / variant, key=KEY, options=ExportOptions(variant, sites=frozenset({"all"})))
    return folder


@pytest.fixture(scope="module")
def single(bases) -> Runtime:
    return Runtime(bases / "optional")


@pytest.fixture(scope="module")
def people(single, bases) -> dict[str, LoadedAdapter | None]:
    """The base, LoRAs of four ranks, and one adapter that fills each other kind of site."""
    lora = {name: shape for name, shape in single.manifest.tensors.items() if ".lora_" in name}
    plain = single.manifest.model_copy(update={"tensors": lora})
    found: dict[str, LoadedAdapter | None] = {"base": None}
    for rank in (2, 4, 8, 16):
        adapter = random_lora(plain, rank, seed=rank, deviation=0.05)
        name = f"rank {rank}"
        export_adapter(adapter, bases / name, owner=name, base=single.manifest, key=KEY)
        found[name] = single.load(bases / name)
    rng = np.random.default_rng(0)
    for name, ending, width in (
        ("scales", "_scale", 0),
        ("biases", "bias_delta", 0),
        ("bottlenecks", ".serial.gelu.", 6),
        ("prompt", "soft_prompt", 5),
    ):
        shapes = {
            site: tuple(width if size is None else size for size in shape)
            for site, shape in single.manifest.tensors.items()
            if ending in f"{site} "
        }
        values = {site: rng.normal(float("scale" in ending), 0.05, shape) for site, shape in shapes.items()}
        found[name] = loaded(single, name, values)
    return found


def loaded(single: Runtime, name: str, values: dict[str, np.ndarray]) -> LoadedAdapter:
    assert values
    manifest = single.manifest.model_copy(
        update={
            "kind": "adapter",
            "name": name,
            "variant": None,
            "decoder": None,
            "tensors": {site: array.shape for site, array in values.items()},
        }
    )
    kept = {site: ort.OrtValue.ortvalue_from_numpy(array.astype(np.float32)) for site, array in values.items()}
    return from_values(kept, manifest)


@pytest.fixture(scope="module")
def rows(bases) -> RowDecoder:
    bundle = Bundle.open(bases / "rows", "base")
    bundle.verify()
    return RowDecoder(bundle, PLACES)


class Text:
    """A row that writes greedily, and what it wrote."""

    def __init__(self, rows: RowDecoder, adapter: LoadedAdapter | None, ids: list[int]) -> None:
        first = rows.facts.vocabulary
        whole = [*range(first, first + (adapter.prompt if adapter else 0)), *ids]
        self.ids, self.adapter = ids, adapter
        self.row = rows.open(adapter)
        for start in range(0, len(whole), CHUNK):
            logits = rows.read(self.row, whole[start : start + CHUNK])
        rows.seat(self.row)
        self.made = [int(logits.argmax())]


def step(rows: RowDecoder, texts: list[Text]) -> None:
    by_row = {text.row: text for text in texts}
    logits = rows.step([by_row[row].made[-1] for row in rows.seated])
    for row, scores in zip(rows.seated, logits, strict=True):
        by_row[row].made.append(int(scores.argmax()))


def alone(single: Runtime, text: Text) -> list[int]:
    return list(single.generate(text.ids, text.adapter, tokens=len(text.made), ends=()))


NAMES = ("base", "rank 2", "rank 4", "rank 8", "rank 16", "scales", "biases", "bottlenecks", "prompt")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_row_writes_what_it_would_write_alone_whoever_comes_and_goes(rows, single, people, data):
    sitting: list[Text] = []
    done: list[Text] = []
    try:
        for _ in range(data.draw(st.integers(3, 12), "steps")):
            for _ in range(data.draw(st.integers(0, PLACES - len(sitting)), "join")):
                name = data.draw(st.sampled_from(NAMES), "adapter")
                ids = data.draw(st.lists(st.integers(5, 2047), min_size=1, max_size=90), "prompt")
                sitting.append(Text(rows, people[name], [1, *ids]))
            if sitting:
                step(rows, sitting)
            leaving = data.draw(st.sets(st.integers(0, PLACES - 1), max_size=PLACES), "leave")
            for i in sorted(leaving, reverse=True):
                if i < len(sitting):
                    done.append(sitting.pop(i))
                    rows.leave(done[-1].row)
        for text in (*done, *sitting):
            assert text.made == alone(single, text)
    finally:
        for text in sitting:
            rows.leave(text.row)
    assert rows.seated == []


def test_an_adapter_changes_its_own_row_and_no_other(rows, single, people):
    ids = [1, 3, 300, 400, 500]
    texts = [Text(rows, people[name], ids) for name in ("base", "rank 16", "base", "scales")]
    for _ in range(20):
        step(rows, texts)
    for text in texts:
        rows.leave(text.row)
    base, lora, again, scaled = (text.made for text in texts)
    assert base == again == list(single.generate(ids, tokens=21, ends=()))
    assert len({tuple(base), tuple(lora), tuple(scaled)}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_a_row_are_those_of_the_text_alone(rows, single, people, name):
    adapter, others = people[name], [Text(rows, people[n], [1, 3, 77]) for n in ("rank 8", "prompt")]
    text = Text(rows, adapter, [1, 3, 300, 400, 500])
    logits = rows.step([other.made[-1] for other in others] + [600])[-1].copy()
    for each in (*others, text):
        rows.leave(each.row)
    expected = single.logits([*text.ids, 600], adapter)[-1]
    assert np.abs(logits - expected).max() < 1e-4
    assert name == "base" or np.abs(expected - single.logits([*text.ids, 600])[-1]).max() > 0.01


def test_a_prefix_comes_before_its_own_row_only(rows, single):
    rng = np.random.default_rng(0)
    shape = (1, rows.facts.kv_heads, 7, rows.facts.head_dim)
    names = [f"past_key_values.{i}.{part}" for i in range(rows.facts.layers) for part in ("key", "value")]
    prefix = {name: ort.OrtValue.ortvalue_from_numpy(rng.normal(0, 1, shape).astype(np.float32)) for name in names}
    manifest = single.manifest.model_copy(update={"kind": "adapter", "variant": None, "decoder": None, "tensors": {}})
    texts = [Text(rows, LoadedAdapter(manifest, None, None, prefix), [1, 3, 300]), Text(rows, None, [1, 3, 300])]
    for _ in range(10):
        step(rows, texts)
    for text in texts:
        rows.leave(text.row)
    assert [text.made for text in texts] == [alone(single, text) for text in texts]
    assert texts[0].made != texts[1].made


def test_a_row_that_leaves_while_it_is_read_leaves_no_trace(rows, single, people):
    row = rows.open(people["rank 16"])
    rows.read(row, [1, 3, 5])
    rows.leave(row)
    rows.leave(row)
    text = Text(rows, None, [1, 3])
    step(rows, [text])
    rows.leave(text.row)
    assert text.made == alone(single, text)


def test_only_one_row_is_read_at_a_time_and_no_more_than_there_are_places(rows, people):
    texts = [Text(rows, None, [1, 3]) for _ in range(PLACES)]
    with pytest.raises(BundleError, match="rows"):
        rows.open(None)
    rows.leave(texts.pop().row)
    row = rows.open(None)
    with pytest.raises(BundleError, match="rows"):
        rows.open(None)
    with pytest.raises(BundleError, match="desk"):
        rows.read(texts[0].row, [5])
    for each in (row, *(text.row for text in texts)):
        rows.leave(each)


def test_tokens_that_do_not_fit_are_refused_before_anything_is_read(rows, single):
    row = rows.open(None)
    for ids in ([], [5] * (CHUNK + 1)):
        with pytest.raises(BundleError, match="tokens"):
            rows.read(row, ids)
    for start in range(0, rows.facts.context, CHUNK):
        rows.read(row, [7] * min(CHUNK, rows.facts.context - start))
    rows.seat(row)
    for tokens in ([5], [], [5, 6]):
        with pytest.raises(BundleError, match="tokens"):
            rows.step(tokens)
    rows.leave(row)


def test_rows_of_a_shorter_context_write_the_same_and_end_sooner(bases, single, people):
    rows = RowDecoder(Bundle.open(bases / "rows", "base"), 2, context=12)
    texts = [Text(rows, people[name], [1, 3, 300]) for name in ("rank 8", "prompt")]
    for _ in range(4):
        step(rows, texts)
    assert [text.made for text in texts] == [alone(single, text) for text in texts]
    assert texts[1].row.length == 12
    with pytest.raises(BundleError, match="1 rows full"):
        step(rows, texts)
    rows.leave(texts[1].row)
    step(rows, texts)
    assert texts[0].made == alone(single, texts[0])
    with pytest.raises(BundleError, match="12 in all"):
        rows.read(rows.open(None), [5] * 13)


def test_an_adapter_that_does_not_fit_is_refused_and_its_place_stays_free(rows, single):
    manifest = single.manifest.model_copy(
        update={"kind": "adapter", "variant": None, "decoder": None, "tensors": {"elsewhere": (2,)}}
    )
    stranger = from_values({"elsewhere": ort.OrtValue.ortvalue_from_numpy(np.zeros(2, np.float32))}, manifest)
    with pytest.raises(BundleError, match="elsewhere"):
        rows.open(stranger)
    other = single.manifest.model_copy(update={"base_fingerprint": "0" * 64})
    with pytest.raises(BundleError, match="another base"):
        rows.open(LoadedAdapter(other, None))
    rows.leave(rows.open(None))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rows_of_a_quantized_base_write_what_they_would_write_alone(tmp_path, precision):
    base = load_base("keyboard")
    for variant in ("optional", "rows"):
        manifest = export_base(base, tmp_path / variant, key=KEY, options=ExportOptions(variant, precision))
    single, rows = Runtime(tmp_path / "optional"), RowDecoder(Bundle.open(tmp_path / "rows", "base"), PLACES)
    adapters: list[LoadedAdapter | None] = [None]
    for rank in (2, 8, 16):
        export_adapter(random_lora(manifest, rank, rank, 0.05), tmp_path / "x", owner="x", base=manifest, key=KEY)
        adapters.append(single.load(tmp_path / "x"))
    texts = [Text(rows, adapter, [1, 3, 300 + i]) for i, adapter in enumerate(adapters)]
    for _ in range(16):
        step(rows, texts)
    assert [text.made for text in texts] == [alone(single, text) for text in texts]
    assert len({tuple(text.made) for text in texts}) == len(texts)


def test_a_base_whose_rows_would_be_rounded_together_is_refused(bases, tmp_path):
    options = ExportOptions("rows", "dynamic-int8")
    export_base(load_base("keyboard"), tmp_path / "base", key=KEY, options=options)
    with pytest.raises(BundleError, match="dynamic-int8"):
        RowDecoder(Bundle.open(tmp_path / "base", "base"), 2)


def test_a_base_of_another_variant_is_refused(bases):
    with pytest.raises(BundleError, match="'rows'"):
        RowDecoder(Bundle.open(bases / "optional", "base"), 2)
