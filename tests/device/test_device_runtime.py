"""Generation: switching adapters, keeping them alive, stopping where the context or the message ends."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.device import Runtime
from fedpeft.device.sampling import Sampling
from fedpeft.errors import BundleError, FedpeftError

IDS = [1, 3, 300, 400, 500]


def test_reading_token_by_token_scores_as_reading_at_once(runtime, ada):
    for adapter in (None, ada):
        whole = runtime.logits(IDS, adapter)
        for n in range(1, len(IDS) + 1):
            assert np.abs(runtime.logits(IDS[:n], adapter)[-1] - whole[n - 1]).max() < 1e-4


def test_cached_generation_equals_scoring_the_whole_text_for_every_token(runtime, ada):
    for adapter in (None, ada):
        text = list(IDS)
        for _ in range(20):
            text.append(int(runtime.logits(text, adapter)[-1].argmax()))
        assert list(runtime.generate(IDS, adapter, tokens=20, ends=())) == text[len(IDS) :]


def test_an_adapter_that_only_a_generation_refers_to_stays_active(run, runtime, loud):
    expected = list(runtime.generate(IDS, loud, tokens=16, ends=()))
    assert expected != list(runtime.generate(IDS, tokens=16, ends=()))
    generation = runtime.generate(IDS, runtime.load(run / "device" / "adapters" / "global"), tokens=16, ends=())
    first = next(generation)
    gc.collect()
    assert [first, *generation] == expected


def test_a_loaded_adapter_does_not_need_its_files_any_more(runtime, ada, ada_copy):
    copy = runtime.load(ada_copy)
    for path in ada_copy.iterdir():
        path.write_bytes(b"overwritten")
    assert np.array_equal(runtime.logits(IDS, copy), runtime.logits(IDS, ada))


def test_requests_of_several_people_at_once_do_not_mix(runtime, ada, loud):
    people = [None, ada, loud] * 6
    alone = {id(p): list(runtime.generate(IDS, p, tokens=12, ends=())) for p in people[:3]}
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda p: list(runtime.generate(IDS, p, tokens=12, ends=())), people))
    assert together == [alone[id(p)] for p in people]


def test_generation_stops_before_the_end_of_the_message(runtime):
    tokens = list(runtime.generate(IDS, tokens=12, ends=()))
    stop = tokens[5]
    assert list(runtime.generate(IDS, tokens=12, ends={stop})) == tokens[: tokens.index(stop)]


def test_generation_stops_when_the_context_is_full(runtime):
    ids = [1, *([300] * (runtime.context - 3))]
    # Two more tokens are read; the third is chosen and has no place to be read from.
    assert len(list(runtime.generate(ids, tokens=50, ends=()))) == 3
    with pytest.raises(BundleError, match="context"):
        runtime.logits([1] * (runtime.context + 1))


def test_a_prompt_longer_than_the_context_loses_its_beginning(runtime):
    text = "so what are you doing today " * 200
    ids = runtime.text.begin(text, room=100)
    assert len(ids) == 100
    assert ids[0] == 1
    assert text.strip().endswith(runtime.text.decode(ids).strip())
    assert runtime.complete(text, tokens=300, temperature=1.0) == runtime.complete(
        text * 2, tokens=300, temperature=1.0
    )


def test_no_tokens_at_all_are_refused(runtime):
    with pytest.raises(BundleError, match="at least one"):
        runtime.logits([])


def test_a_seed_decides_the_draws(runtime, ada):
    hot = Sampling(temperature=8.0)
    one, again, other = (list(runtime.generate(IDS, ada, tokens=9, sampling=hot, seed=s, ends=())) for s in (1, 1, 2))
    assert one == again
    assert one != other


def test_completing_after_a_space_adds_no_second_space(runtime):
    for prompt in ("", "I am ", "Hello  "):
        assert not runtime.complete(prompt, temperature=1.0, seed=5).startswith(" ")


@pytest.mark.parametrize(
    "settings", [{"temperature": -0.1}, {"top_k": -1}, {"tokens": 0}, {"temperature": float("nan")}]
)
def test_settings_without_meaning_are_refused_by_name(runtime, settings):
    with pytest.raises(FedpeftError, match=next(iter(settings))):
        runtime.complete("Hi", **settings)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_survives_its_pieces(runtime, text):
    found = runtime.text.decode(runtime.text.encode(text))
    assert found == (text if not text or text[0] == " " else f" {text}")


def test_a_typed_mark_is_only_characters(runtime):
    assert not set(runtime.text.encode("</s><me><you><pad>")) & {0, 1, 2, 3, 4}


def test_pieces_spell_the_text(runtime):
    ids = runtime.text.encode("Grüße 👋 don't")
    assert b"".join(runtime.text.pieces[i] for i in ids).decode() == " Grüße 👋 don't"


def test_a_runtime_of_more_threads_gives_the_same_scores(run, runtime):
    assert np.abs(Runtime(run / "device" / "base", threads=2).logits(IDS) - runtime.logits(IDS)).max() < 1e-4


def test_nothing_is_logged_while_adapters_come_and_go(run, capfd):
    runtime = Runtime(run / "device" / "base")
    runtime.complete("I am", runtime.load(run / "device" / "adapters" / "ada"))
    assert capfd.readouterr() == ("", "")
