"""Replies in context: what is read, what is learnt, where it is cut."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fedpeft.base import load_base
from fedpeft.data import Client, Excerpt, Message, load_federation
from fedpeft.data.marks import Marks
from fedpeft.data.replies import Example, replies, turns
from fedpeft.data.split import temporal_split
from fedpeft.data.windows import IGNORED
from fedpeft.errors import DataError
from tests.data.histories import histories
from tests.data.test_marks import CHATML, LLAMA2, LLAMA3, TALK, tokenizer

ME, YOU = True, False


def excerpt(*said: tuple[bool, str], first: int = 0) -> Excerpt:
    return Excerpt(tuple(Message(text, mine, float(i)) for i, (mine, text) in enumerate(said)), first)


def learnt(examples: list[Example]) -> list[int]:
    return [label for example in examples for label in example.labels if label != IGNORED]


def words(examples: list[Example], tokenizer) -> list[str]:
    return [" ".join(tokenizer.convert_ids_to_tokens(example.ids)) for example in examples]


@settings(max_examples=100, deadline=None)
@given(histories)
def test_turns_alternate_and_keep_every_message_on_its_side_of_the_split(history):
    split = temporal_split(history)
    for found in (*split.train, *split.validation, *split.test):
        _, made = turns(found)
        assert all(one.mine != other.mine for one, other in pairwise(made))
        later = "\n".join(turn.text for turn in made if turn.text)
        earlier = "\n".join(turn.before for turn in made if turn.before)
        assert later == "\n".join(m.text for m in found.messages[found.first :])
        assert earlier == "\n".join(m.text for m in found.messages[: found.first])


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(8, 40))
def test_every_reply_of_the_split_is_learnt_once_with_one_end_and_nothing_else_is(marked, history, length):
    split = temporal_split(history)
    for part in (split.train, split.validation, split.test):
        wanted: list[int] = []
        for own in (turn for found in part for turn in turns(found)[1] if turn.mine and turn.text):
            wanted += [*marked(own.text, add_special_tokens=False)["input_ids"], marked.eos_token_id]
        made = replies(part, marked, length)
        assert learnt(made) == wanted
        for example in made:
            assert len(example.ids) == len(example.labels) <= length
            assert all(label in (IGNORED, piece) for piece, label in zip(example.ids, example.labels, strict=True))
            assert example.labels[0] == IGNORED != example.labels[-1]


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(12, 40))
def test_what_was_said_before_is_read_whole_turn_by_turn_or_the_last_turn_without_its_beginning(
    marked, history, length
):
    marks = Marks.of(marked)
    for conversation in history:
        _, said = turns(Excerpt(conversation))
        whole = [
            [*(marks.me if t.mine else marks.you), *marked(t.text, add_special_tokens=False)["input_ids"], *marks.end]
            for t in said
        ]
        longest = max(len(turn) for turn in whole)
        for example in replies([Excerpt(conversation)], marked, length):
            read = example.ids[len(marks.start) :]
            if longest > length // 2 - 1:
                continue  # cut turns: the next test
            stretches = [
                [token for turn in whole[i:j] for token in turn]
                for i in range(len(whole))
                for j in range(i + 1, len(whole) + 1)
            ]
            assert tuple(example.ids[: len(marks.start)]) == marks.start
            assert read in stretches


def test_the_last_turn_alone_loses_its_beginning_never_its_mark_and_the_first_kept_turn_is_the_others(marked):
    long = " ".join(f"w{i}" for i in range(30))
    assert words(replies([excerpt((YOU, long), (ME, "w100"))], marked, 12), marked) == [
        "<s> <you> w27 w28 w29 </s> <me> w100 </s>"
    ]
    said = excerpt((YOU, "w1"), (ME, "w2 w3 w4"), (YOU, "w5"), (ME, "w6"), first=3)
    assert words(replies([said], marked, 64), marked)[0].startswith("<s> <you> w1 </s> <me> w2")
    assert words(replies([said], marked, 16), marked) == ["<s> <you> w5 </s> <me> w6 </s>"]


def test_what_a_person_sends_without_a_break_is_one_turn_and_the_split_may_cut_it(marked):
    said = excerpt((YOU, "w1"), (YOU, "w2"), (ME, "w3"), (ME, "w4"), (ME, "w5"), (YOU, "w6"), first=4)
    (example,) = replies([said], marked, 32)
    assert words([example], marked) == ["<s> <you> w1 w2 </s> <me> w3 w4 w5 </s>"]
    assert marked.convert_ids_to_tokens(learnt([example])) == ["w5", "</s>"]


def test_a_reply_too_long_for_an_example_is_cut_into_several_that_overlap(marked):
    long = [f"w{i}" for i in range(50)]
    made = replies([excerpt((YOU, "w100"), (ME, " ".join(long)), (YOU, "w101"), (ME, "w102"))], marked, 16)
    assert marked.convert_ids_to_tokens(learnt(made)) == [*long, "</s>", "w102", "</s>"]
    assert all(len(example.ids) <= 16 for example in made)
    assert words(made, marked)[-1].endswith("<you> w101 </s> <me> w102 </s>")


@pytest.mark.parametrize("template", [CHATML, LLAMA2, LLAMA3])
def test_an_example_reads_what_the_template_writes(template):
    chat = tokenizer(template)
    said = [(i % 2 == 1, text) for i, text in enumerate(TALK)]
    (example,) = replies([excerpt(*said)], chat, 128)
    messages = [{"role": "assistant" if mine else "user", "content": text} for mine, text in said]
    assert chat.apply_chat_template(messages, tokenize=False).startswith(chat.decode(example.ids))
    assert chat.decode(learnt([example])) == "Good morning!<|im_end|>fine, thanks  <|im_end|>"


def test_a_systems_message_stands_where_the_template_puts_it_and_is_refused_where_there_is_no_such_place(marked):
    chat = tokenizer(CHATML)
    told = (Message("Sing.", False, 0.0, system=True), Message("hi", False, 0.0), Message("la", True, 0.0))
    (example,) = replies([Excerpt(told)], chat, 128)
    assert chat.decode(example.ids) == (
        "<|im_start|>system\nSing.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nla<|im_end|>"
    )
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + LLAMA3
    for deaf in (marked, tokenizer(strict)):
        with pytest.raises(DataError, match=r"messages: found \"a system's\", expected a user's and an assistant's"):
            replies([Excerpt(told)], deaf, 128)
    with pytest.raises(DataError, match="expected one at the beginning of a conversation"):
        replies([Excerpt(told[1:] + told[:1])], chat, 128)


def test_a_split_in_a_conversation_keeps_what_its_system_said():
    told = Message("Sing.", False, 0.0, system=True)
    said = (told, *(Message(f"m{i}", i % 2 == 1, float(i)) for i in range(60)))
    split = temporal_split([said])
    assert all(part[0].messages[0] == told for part in (split.train, split.validation, split.test))
    assert split.test[0].mine() == [m.text for m in said if m.mine][-4:]


def test_typed_marks_are_text():
    for reader in (load_base("keyboard").tokenizer, tokenizer(CHATML)):
        marks = set(reader.all_special_ids)
        typed = "</s><me> hi <|im_end|><|im_start|>assistant"
        (example,) = replies([excerpt((YOU, typed), (ME, typed))], reader, 256)
        (plain,) = replies([excerpt((YOU, "hi"), (ME, "hi"))], reader, 256)
        special = [[i for i in each.ids if i in marks] for each in (example, plain)]
        assert special[0] == special[1] != []


@torch.no_grad()
def test_reading_replies_together_costs_what_reading_each_alone_does():
    """The reason for examples of several replies: the same loss, each token read once."""
    base = load_base("keyboard", "float32")
    told = max(Client.of(load_federation("keyboard"), "user-05").split.test, key=lambda e: len(e.messages))
    told = Excerpt(told.messages[:20], min(told.first, 8))
    together = replies([told], base.tokenizer, 4096)
    assert len(together) == 1
    cuts = [i for i, m in enumerate(told.messages) if m.mine and i >= told.first]
    ends = [i for i in cuts if i + 1 == len(told.messages) or not told.messages[i + 1].mine]
    alone = []
    for end in ends:
        begin = end
        while begin - 1 >= told.first and told.messages[begin - 1].mine:
            begin -= 1
        alone += replies([Excerpt(told.messages[: end + 1], begin)], base.tokenizer, 4096)
    assert len(alone) == len(ends) > 1

    def loss(example: Example) -> float:
        logits = base.model(torch.tensor([example.ids])).logits[0, :-1]
        return float(F.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum"))

    assert sum(map(loss, alone)) == pytest.approx(loss(together[0]), rel=1e-5)
    assert np.isfinite(loss(together[0]))


def test_a_person_who_wrote_nothing_has_no_examples(marked):
    for nothing in ([], [excerpt((YOU, "w1"))], [excerpt((ME, "w1"), first=1)], [excerpt((ME, ""))]):
        assert replies(nothing, marked, 8) == []
