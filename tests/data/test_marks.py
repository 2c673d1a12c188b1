"""What a window holds is what the base's own chat template would have made of the messages."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fedpeft.data.marks import Marks
from fedpeft.data.messages import Excerpt, Message
from fedpeft.data.windows import IGNORED, windows
from fedpeft.errors import BaseError, DataError

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = "{{ bos_token }}{% for m in messages %}<|h|>{{ m.role }}<|/h|>\n\n{{ m.content }}{{ eos_token }}{% endfor %}"
TEMPLATES = {"chatml": CHATML, "llama 2": LLAMA2, "llama 3": LLAMA3}
TALK = ("hi there", "Good morning!", "how are\nyou?", "fine, thanks  ")


def tokenizer(template: str | None, **special: str) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", **special}
    extra = ["<|h|>", "<|/h|>", "[INST]", "[/INST]"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special.values(), *extra], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    words.train_from_iterator([*TALK, "system user assistant Be kind."] * 3, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    made.chat_template = template
    return made


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_window_reads_what_the_template_writes_and_learns_the_persons_own_messages(name):
    chat = tokenizer(TEMPLATES[name])
    said = [Message(text, i % 2 == 1, float(i)) for i, text in enumerate(TALK)]
    made = windows([Excerpt(tuple(said))], chat, 128)
    (ids,), (labels,) = made.ids.tolist(), made.labels.tolist()
    turns = [{"role": "assistant" if m.mine else "user", "content": m.text} for m in said]
    expected = chat.apply_chat_template(turns, tokenize=False)
    length = len(chat(expected, add_special_tokens=False)["input_ids"])
    assert chat.decode(ids[:length]) == expected
    assert ids[:length] == chat(expected, add_special_tokens=False)["input_ids"]
    learnt = [piece for piece in labels if piece != IGNORED]
    assert chat.decode(learnt) == "Good morning!<|im_end|>fine, thanks  <|im_end|>"


def test_a_template_that_forgets_messages_or_roles_is_refused():
    for template, complaint in (
        ("{{ messages[0].content }}", "expected one that writes what was said, in order"),
        ("{{ raise_exception('only one message') }}", "expected one that writes user and assistant by turns"),
        ("!{% for m in messages %}<{{ loop.index }}>{{ m.content }}{% endfor %}", "expected one mark for each person"),
    ):
        with pytest.raises(BaseError, match=complaint):
            Marks.of(tokenizer(template))


def test_a_window_that_the_templates_own_words_fill_is_refused():
    with pytest.raises(DataError, match=r"data\.window: found 8, expected at least \d+: this base's contexts begin"):
        windows([Excerpt((Message("hi", True, 0.0),))], tokenizer(CHATML), 8)


def test_a_template_that_tells_the_day_has_the_same_marks_every_day():
    dated = "{% for m in messages %}{% if loop.first %}{{ strftime_now('%d %b %Y') }}{% endif %}" + LLAMA3[15:].replace(
        "{% for m in messages %}", ""
    )
    chat = tokenizer(dated)
    marks = Marks.of(chat)
    assert chat.decode(marks.start) == "26 Jul 2024"
    assert chat.decode(marks.you) == "<|h|>user<|/h|>\n\n"
