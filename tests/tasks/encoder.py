"""A tiny encoder on disk, and people whose labelled texts or conversations it can learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
ABOUT = {
    "card": ["card", "pin", "chip"],
    "music": ["song", "album", "band"],
    "refund": ["refund", "money", "return"],
    "weather": ["rain", "sun", "wind"],
}
AROUND = ["please", "show", "me", "the", "my", "today", "now", "what", "about", "a", "new", "i", "want"]


def publish_encoder(folder: Path) -> Path:
    """Write a BERT of two layers and a tokenizer of whole words, as their authors would publish them."""
    words = [*MARKS, *AROUND, *(word for several in ABOUT.values() for word in several)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


def write_people(folder: Path, count: int = 4, texts: int = 40) -> Path:
    """Write labelled lines of a few people, each with their own favourite subjects."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = sorted(ABOUT)
    for person in range(count):
        rng = np.random.default_rng(person)
        taste = rng.dirichlet([1.0] * len(labels))
        lines = []
        for label in rng.choice(labels, texts, p=taste):
            said = [*rng.choice(AROUND, 4), rng.choice(ABOUT[label]), *rng.choice(AROUND, int(rng.integers(0, 5)))]
            lines.append(json.dumps({"text": " ".join(said), "label": str(label)}))
        (folder / f"person-{person}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_talkers(folder: Path, count: int = 4, replies: int = 80) -> Path:
    """Write conversations of a few people who answer a subject with a word of their own for it."""
    folder.mkdir(parents=True, exist_ok=True)
    subjects = sorted(ABOUT)
    for person in range(count):
        rng = np.random.default_rng(100 + person)
        favourite = {subject: str(rng.choice(ABOUT[subject])) for subject in subjects}
        lines = []
        for turn in range(replies):
            subject = str(rng.choice(subjects))
            asked = " ".join([*rng.choice(AROUND, 3), subject])
            said = " ".join([favourite[subject], *rng.choice(AROUND, 3)])
            lines += [
                json.dumps({"text": text, "mine": mine, "conversation": f"talk-{turn // 8}"})
                for text, mine in ((asked, False), (said, True))
            ]
        (folder / f"talker-{person}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
