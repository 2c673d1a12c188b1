"""The tokenizer of the builtin base: byte-level BPE with marks for who is speaking."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fedpeft.data.marks import END, ME, PAD, START, YOU


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn byte-pair merges (Sennrich et al. 2016, arXiv:1508.07909) over bytes.

    Every word begins with its space, the first of a message too, so a word has one spelling wherever it
    stands and a keyboard can complete it from its first letters.

    Parameters
    ----------
    texts : iterable of str
        What to learn from; the order does not matter.
    vocabulary : int
        Number of pieces, the 256 bytes and 5 marks included.

    Returns
    -------
    PreTrainedTokenizerFast
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[PAD, START, END, ME, YOU],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[ME, YOU],
        clean_up_tokenization_spaces=False,
    )


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of a tokenizer's pieces and their numbers: two bases with the same read and write alike."""
    return sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
