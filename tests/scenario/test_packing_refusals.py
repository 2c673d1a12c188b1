"""When a window holds several chat examples, and where that is refused."""

import pytest

from fedpeft.errors import ScenarioError
from fedpeft.scenario import parse_scenario

CHAT = {"name": "x", "task": {"kind": "chat"}}


def test_a_chat_packs_unless_it_is_told_not_to_or_its_method_puts_vectors_before_the_text():
    assert parse_scenario(CHAT).packing
    assert not parse_scenario({**CHAT, "data": {"packing": False}}).packing
    assert not parse_scenario({**CHAT, "method": {"name": "prompt_tuning"}}).packing
    assert not parse_scenario({"name": "x"}).packing


def test_packing_decides_the_numbers_and_so_the_digest_but_replies_written_anew_do_not():
    plain = parse_scenario(CHAT)
    assert parse_scenario({**CHAT, "data": {"packing": False}}).digest != plain.digest
    assert parse_scenario({**CHAT, "samples": {"held_out": 0}}).digest == plain.digest


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"name": "x", "data": {"packing": True}}, "data.packing: found True, expected task.kind = 'chat'; next_word has"),
        (
            {**CHAT, "data": {"packing": True}, "method": {"name": "prefix_tuning"}},
            "data.packing: found True, expected false; prefix_tuning puts vectors before one text, not several",
        ),
        (
            {**CHAT, "training": {"steps": 1, "adversarial": {"kind": "pgd"}}},
            "training.adversarial: found 'pgd', expected data.packing = false; the worst change is of one example",
        ),
        ({"name": "x", "samples": {"held_out": -1}}, "samples.held_out: found -1, expected "),
    ],
)  # fmt: skip
def test_what_cannot_be_packed_is_refused(tables, complaint):
    with pytest.raises(ScenarioError) as refused:
        parse_scenario(tables)
    assert str(refused.value).startswith(complaint)


def test_a_worst_change_is_found_on_rows_of_one_example():
    tables = {**CHAT, "data": {"packing": False}, "training": {"steps": 1, "adversarial": {"kind": "fgm"}}}
    assert parse_scenario(tables).training.adversarial is not None
