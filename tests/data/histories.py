"""Histories for property tests: conversations in order of time, in which every word occurs once."""

from hypothesis import strategies as st

from fedpeft.data import Conversation, Message

WORDS = [f"w{i}" for i in range(600)]

_drafts = st.lists(
    st.lists(
        st.tuples(st.integers(0, 40), st.booleans(), st.integers(1, 5)),  # time, mine, number of words
        min_size=1,
        max_size=12,
    ),
    max_size=8,
)


def _history(drafts: list[list[tuple[int, bool, int]]]) -> list[Conversation]:
    words = iter(WORDS)
    return [
        tuple(
            Message(" ".join(next(words) for _ in range(length)), mine, float(time))
            for time, mine, length in sorted(draft, key=lambda turn: turn[0])
        )
        for draft in drafts
    ]


histories = _drafts.map(_history)
"""Up to 8 conversations of up to 12 messages; times often coincide, within a conversation and across."""
