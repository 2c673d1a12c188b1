"""Contexts and replies: whose turn is a reply, and what it answers."""

from fedpeft.data.messages import Excerpt, Message
from fedpeft.data.pairs import pairs


def excerpt(spoken: str, first: int = 0) -> Excerpt:
    """Make an excerpt of messages like ``you:hi me:hello``."""
    made = [part.partition(":") for part in spoken.split()]
    return Excerpt(tuple(Message(text, who == "me", float(i)) for i, (who, _, text) in enumerate(made)), first)


def test_each_turn_of_the_persons_own_is_a_reply_to_all_that_was_said_before():
    found = pairs([excerpt("you:a me:b me:c you:d you:e me:f you:g")])
    assert found == [("a", "b\nc"), ("a\nb\nc\nd\ne", "f")]


def test_what_the_person_opens_with_answers_nobody():
    assert pairs([excerpt("me:a you:b me:c")]) == [("a\nb", "c")]
    assert pairs([excerpt("me:a me:b")]) == []


def test_messages_before_the_split_are_context_alone():
    assert pairs([excerpt("you:a me:b you:c me:d", 2)]) == [("a\nb\nc", "d")]
    # A turn that the split cuts: what was said of it before is read, not predicted.
    assert pairs([excerpt("you:a me:b me:c you:d me:e", 2)]) == [("a\nb", "c"), ("a\nb\nc\nd", "e")]


def test_conversations_know_nothing_of_each_other():
    assert pairs([excerpt("you:a me:b"), excerpt("you:c me:d")]) == [("a", "b"), ("c", "d")]
