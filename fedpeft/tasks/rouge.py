"""ROUGE-L: how much of what somebody wrote a text says in the same order (Lin 2004, section 3).

    R = LCS(x, y) / |x|,  P = LCS(x, y) / |y|,  F = 2 R P / (R + P)

x are the words of the reference, y those of the text, LCS the length of their longest common subsequence. Words are
lower-case runs of letters, digits and apostrophes; Lin's β, which favours recall, is 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def rouge_l(reference: str, text: str) -> float:
    """Return the F measure, from 0 to 1.

    Parameters
    ----------
    reference : str
        What was written.
    text : str
        What was made instead. Two texts without a word are alike, one is like none.
    """
    wanted, found = words(reference), words(text)
    if not wanted or not found:
        return float(wanted == found)
    common = longest_common_subsequence(wanted, found)
    return 2 * common / (len(wanted) + len(found))


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.lower())


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many words two texts share in the same order, by dynamic programming over their beginnings."""
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for j, match in enumerate(other):
            row.append(before[j] + 1 if word == match else max(before[j + 1], row[j]))
        before = row
    return before[-1]
