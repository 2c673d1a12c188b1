"""A text that goes on is read once, and answers are those of a text that is read from its beginning."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.device import Generation
from fedpeft.device.memory import Bound, Growing, memory_kind
from fedpeft.device.sampling import Sampling
from fedpeft.errors import BundleError, FedpeftError

tokens = st.lists(st.integers(5, 1500), min_size=1, max_size=12)


def test_the_builtin_base_keeps_its_past_in_place(runtime):
    assert memory_kind(runtime._decoder) is Bound


@settings(deadline=None, max_examples=25)
@given(texts=st.lists(st.tuples(tokens, st.integers(0, 30)), min_size=1, max_size=5), who=st.sampled_from([0, 1, 2]))
def test_both_ways_to_keep_a_past_give_the_scores_of_reading_at_once(runtime, ada, loud, texts, who):
    adapter = (None, ada, loud)[who]
    memories = [kind(runtime._decoder, adapter) for kind in (Bound, Growing)]
    read: list[int] = []
    for new, keep in texts:
        read = [*read[:keep], *new]
        expected = runtime.logits(read, adapter)[-len(new) :]
        for memory in memories:
            memory.rewind(keep)
            assert np.abs(memory.read(np.array(new, np.int64)) - expected).max() < 1e-4 * max(1, np.abs(expected).max())
            assert memory.length == len(read)


def test_a_past_in_place_grows_beyond_its_first_buffer_and_up_to_the_context(runtime, ada):
    memory = Bound(runtime._decoder, ada)
    ids = np.random.default_rng(0).integers(5, 1500, runtime.context)
    found = np.concatenate([memory.read(part) for part in np.array_split(ids, 7)])
    assert np.abs(found - runtime.logits(ids.tolist(), ada)).max() < 1e-3
    with pytest.raises(BundleError, match=f"{runtime.context + 1} tokens"):
        memory.read(np.array([5]))


def test_a_bound_run_is_not_silently_the_base_s(runtime, ada):
    ids = np.array([1, 3, 300, 400])
    mine, base = (Bound(runtime._decoder, adapter).read(ids) for adapter in (ada, None))
    assert np.abs(mine - base).max() > 0.1
    assert np.abs(mine - runtime.logits(ids.tolist(), ada)).max() < 1e-4


@settings(deadline=None, max_examples=20)
@given(st.lists(tokens, min_size=1, max_size=4))
def test_a_conversation_answers_as_if_it_had_read_nothing_before(runtime, loud, texts):
    talk = runtime.converse(loud)
    for text in texts:
        assert list(talk.generate([1, *text], tokens=5, ends=())) == list(
            runtime.generate([1, *text], loud, tokens=5, ends=())
        )


def test_a_conversation_reads_only_what_is_new(runtime, ada):
    talk = runtime.converse(ada)
    text = [1, 3, *range(300, 340)]
    made = list(talk.generate(text, tokens=6, ends=()))
    next(talk.generate([*text, *made, 500, 501], tokens=1, ends=()))
    # The last token that was made was never read.
    assert talk.reused == len(text) + 5
    next(talk.generate(text, tokens=1, ends=()))
    assert talk.reused == len(text) - 1


def test_a_second_request_waits_for_the_end_of_the_first(runtime, ada):
    talk = runtime.converse(ada)
    first = talk.generate([1, 3, 300], tokens=9, ends=())
    next(first)
    with pytest.raises(BundleError, match="under way"):
        next(talk.generate([1, 3, 300], tokens=9, ends=()))
    first.close()
    assert next(talk.generate([1, 3, 300], tokens=9, ends=())) == next(runtime.generate([1, 3, 300], ada, ends=()))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "seed": 3, "top_p": 0.9}, {"stop": ("e ", "t")}])
def test_a_stream_joins_to_the_completion(runtime, ada, loud, options):
    for prompt in ("I am", "I am ", ""):
        for adapter in (None, ada, loud):
            parts = list(runtime.stream(prompt, adapter, tokens=20, **options))
            whole = runtime.complete(prompt, adapter, Generation(tokens=20, **options))
            assert "".join(parts) == whole
            assert not any(stop in whole for stop in options.get("stop", ()))


def test_a_stop_text_cuts_what_would_have_been_said(runtime):
    whole = runtime.complete("I am", tokens=20)
    stop = whole[5:8]
    assert runtime.complete("I am", tokens=20, stop=(stop,)) == whole[: whole.index(stop)]


def test_a_repetition_penalty_reads_the_prompt_too(runtime):
    prompt = [1, 3, 300, 300, 300]
    logits = runtime.logits(prompt)[-1]
    best = int(logits.argmax())
    heavy = Sampling(repetition_penalty=50.0)
    assert next(runtime.generate([*prompt, best], sampling=heavy, ends=())) != best


def test_options_are_refused_before_anything_is_read(runtime):
    with pytest.raises(FedpeftError, match="top_p: found 3"):
        runtime.stream("I am", top_p=3)
    with pytest.raises(TypeError):
        runtime.stream("I am", topp=3)


def test_people_talking_at_once_get_what_they_get_alone(run, runtime, ada, loud):
    people = [None, ada, loud] * 8
    options = {"tokens": 12, "temperature": 0.8, "seed": 4}
    alone = [runtime.complete("What do you", p, **options) for p in people[:3]]
    words = [runtime.suggest("What do y", p) for p in people[:3]]
    talks = [runtime.converse(p) for p in people]

    def ask(i: int) -> tuple[str, list]:
        mine = runtime.load(run / "device" / "adapters" / "ada") if people[i] is ada else people[i]
        return talks[i].complete("What do you", **options), runtime.suggest("What do y", mine)

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, range(len(people))))
    assert together == [(alone[i % 3], words[i % 3]) for i in range(len(people))]
    assert len(set(alone)) == 3
