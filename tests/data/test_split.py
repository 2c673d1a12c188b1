"""What a person wrote earlier trains, what they wrote later tests, and nothing is in two splits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.data import Client, Conversation, Message
from fedpeft.data.split import temporal_split
from tests.data.histories import histories

shares = st.floats(0.05, 0.4)
PARTS = ("train", "validation", "test")


def own(history: list[Conversation]) -> list[Message]:
    return [m for conversation in history for m in conversation if m.mine]


@settings(max_examples=120, deadline=None)
@given(histories, shares, shares, st.integers(0, 9))
def test_every_own_message_lands_in_exactly_one_split(history, validation, test, context):
    split = temporal_split(history, validation, test, context)
    found = [text for part in PARTS for excerpt in getattr(split, part) for text in excerpt.mine()]
    assert sorted(found) == sorted(m.text for m in own(history))


@settings(max_examples=120, deadline=None)
@given(histories, shares, shares)
def test_whatever_is_trained_on_or_read_in_training_was_sent_before_anything_scored(history, validation, test):
    split = temporal_split(history, validation, test)
    everything = [[m.time for e in getattr(split, part) for m in e.messages] for part in PARTS]
    scored = [[m.time for e in getattr(split, part) for m in e.messages[e.first :] if m.mine] for part in PARTS]
    for earlier in range(3):
        for later in range(earlier + 1, 3):
            if everything[earlier] and scored[later]:
                assert max(everything[earlier]) < min(scored[later])


@settings(max_examples=120, deadline=None)
@given(histories, st.integers(0, 9))
def test_an_excerpt_is_a_stretch_of_one_conversation_with_a_bounded_context(history, context):
    split = temporal_split(history, context=context)
    for part in PARTS:
        excerpts = getattr(split, part)
        starts = [e.messages[e.first].time for e in excerpts]
        assert starts == sorted(starts)
        for excerpt in excerpts:
            home = next(c for c in history if excerpt.messages[0] in c)
            begin = home.index(excerpt.messages[0])
            assert home[begin : begin + len(excerpt.messages)] == excerpt.messages
            assert excerpt.first == min(context, begin + excerpt.first)
            assert excerpt.mine()


def test_context_is_not_among_what_the_owner_wrote_in_the_split():
    turns = tuple(Message(f"w{i}", True, float(i)) for i in range(20))
    split = temporal_split([turns], context=4)
    (excerpt,) = split.test
    assert [m.text for m in excerpt.messages] == [f"w{i}" for i in range(13, 20)]
    assert excerpt.first == 4
    assert excerpt.mine() == ["w17", "w18", "w19"]


@pytest.mark.parametrize(("messages", "sizes"), [(100, (70, 15, 15)), (20, (14, 3, 3)), (2, (1, 0, 1)), (1, (0, 0, 1))])
def test_the_shares_are_of_the_persons_own_messages(messages, sizes):
    mine = [(Message("a", True, float(i)), Message("b", False, float(i))) for i in range(messages)]
    split = temporal_split(mine)
    assert tuple(sum(len(e.mine()) for e in getattr(split, part)) for part in PARTS) == sizes


def test_a_person_who_wrote_nothing_has_three_empty_splits():
    split = temporal_split([(Message("hello?", False, 0.0),)])
    assert (split.train, split.validation, split.test) == ((), (), ())


def test_messages_of_one_moment_stay_together():
    split = temporal_split([(Message(f"w{i}", True, 7.0),) for i in range(10)])
    assert sum(len(e.mine()) for e in split.test) == 10


def test_a_client_is_a_name_with_a_divided_history():
    class Pair:
        name = "pair"

        def client_ids(self) -> list[str]:
            return ["ada"]

        def conversations(self, client_id: str) -> list[Conversation]:
            return [tuple(Message(f"{client_id}{i}", True, float(i)) for i in range(10))]

    client = Client.of(Pair(), "ada")
    assert client.id == "ada"
    assert [text for e in client.split.train for text in e.mine()] == [f"ada{i}" for i in range(7)]
