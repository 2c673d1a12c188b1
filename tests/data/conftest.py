"""Two small tokenizers over words: one with the marks of the builtin base, one that knows nothing of them."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedpeft.data.marks import END, ME, PAD, START, YOU
from tests.data.histories import WORDS


def word_tokenizer(specials: list[str], **names: str) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose pieces are whole words."""
    vocabulary = {word: i for i, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="session")
def marked() -> PreTrainedTokenizerFast:
    """Return a tokenizer with ``<s>``, ``</s>``, ``<me>``, ``<you>`` and ``<pad>``."""
    return word_tokenizer(
        [PAD, START, END, ME, YOU, "<unk>"],
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token="<unk>",
        additional_special_tokens=[ME, YOU],
    )


@pytest.fixture(scope="session")
def plain() -> PreTrainedTokenizerFast:
    """Return a tokenizer as many hub models have it: an end of sequence and an unknown word, nothing else."""
    return word_tokenizer(["<end>", "<unk>"], eos_token="<end>", unk_token="<unk>")
