"""Classes of devices: who is of which, and which of them cannot work."""

from collections import Counter
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.errors import ScenarioError
from fedpeft.scenario import parse_scenario
from fedpeft.scenario.devices import DeviceTable, assign, largest_remainder
from fedpeft.training import Training

PEOPLE = [f"user-{n:02d}" for n in range(20)]
DESKTOP = {"name": "desktop", "share": 0.3, "dtype": "float32"}
PHONE = {"name": "phone", "share": 0.7, "precision": "nf4"}


def classes(*tables):
    return [DeviceTable(**table) for table in tables]


def refused(*devices, **tables):
    with pytest.raises(ScenarioError) as error:
        parse_scenario({"name": "trial", "devices": list(devices), **tables})
    return str(error.value)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 200))
def test_whole_parts_are_within_one_of_their_share_and_sum_to_the_whole(weights, total):
    shares = {str(i): weight / sum(weights) for i, weight in enumerate(weights)}
    counts = largest_remainder(shares, total)
    assert sum(counts.values()) == total
    for i, weight in enumerate(weights):
        exact = Fraction(weight * total, sum(weights))
        assert floor(exact) <= counts[str(i)] <= floor(exact) + 1


def test_shares_are_met_exactly_whatever_order_the_clients_come_in():
    found = assign(classes(DESKTOP, PHONE), PEOPLE, seed=3)
    assert Counter(found.values()) == {"desktop": 6, "phone": 14}
    assert assign(classes(PHONE, DESKTOP), PEOPLE[::-1], seed=3) == found
    assert list(found) == PEOPLE
    others = [assign(classes(DESKTOP, PHONE), PEOPLE, seed) for seed in range(5)]
    assert len({tuple(other.values()) for other in others}) == 5


def test_four_classes_all_have_somebody_in_a_cohort_of_four():
    quarters = classes(*({"name": name, "share": 0.25} for name in "abcd"))
    assert sorted(assign(quarters, PEOPLE[:4], 0).values()) == list("abcd")


def test_named_clients_are_of_their_class_and_shares_divide_the_others():
    named = {"name": "server", "clients": ["user-07", "user-01"]}
    found = assign(classes(named, {**DESKTOP, "share": 0.5}, {**PHONE, "share": 0.5}), PEOPLE, 0)
    assert [client for client, name in found.items() if name == "server"] == ["user-01", "user-07"]
    assert Counter(found.values()) == {"server": 2, "desktop": 9, "phone": 9}
    alone = assign(classes({"name": "a", "clients": PEOPLE[:5]}, {"name": "b", "clients": PEOPLE[5:]}), PEOPLE, 0)
    assert Counter(alone.values()) == {"a": 5, "b": 15}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            [{"name": "a", "clients": ["user-99"]}, {"name": "b", "share": 1.0}],
            "devices[a].clients: found 'user-99', expected a client of the federation; did you mean 'user-19'?",
        ),
        (
            [{"name": "a", "clients": ["user-00", "user-01"]}],
            "devices: found 'no class for user-02', expected a class for every client; give one a share",
        ),
        (
            [{"name": "a", "share": 0.99}, {"name": "b", "share": 0.01}],
            "devices[b].share: found 0.01, expected one that is somebody of 20 clients; "
            "raise it, or leave the class out",
        ),
    ],
)
def test_a_class_that_fits_no_client_and_a_client_that_fits_no_class_are_refused(tables, message):
    with pytest.raises(ScenarioError) as error:
        assign(classes(*tables), PEOPLE, 0)
    assert str(error.value) == message


PREFIX = {"method": {"name": "prefix_tuning"}}
HALVES = {**DESKTOP, "share": 0.5}, {**PHONE, "share": 0.5}


@pytest.mark.parametrize(
    ("devices", "tables", "message"),
    [
        ([DESKTOP, DESKTOP], {}, "devices.name: found 'desktop', expected names used once"),
        ([{"name": "a"}], {}, "devices[a]: found 'neither', expected share or clients"),
        ([{**DESKTOP, "clients": ["x"]}], {}, "devices[desktop]: found 'both', expected share or clients"),
        (
            [{"name": "a", "clients": ["x"]}, {"name": "b", "clients": ["x"]}],
            {},
            "devices[b].clients: found 'x', expected a client named once; a has it",
        ),
        ([DESKTOP], {}, "devices.share: found 0.3, expected shares that sum to 1"),
        (
            [DESKTOP, PHONE],
            {"task": {"kind": "caption"}},
            "devices[phone].precision: found 'nf4', expected full; vision–language bases are not quantized yet",
        ),
        (
            [DESKTOP, {**PHONE, "dtype": "float16"}],
            {},
            "devices[phone].dtype: found 'float16', expected float16 everywhere, or bfloat16 and float32",
        ),
        (
            HALVES,
            {"method": {"name": "full"}},
            "devices[phone]: found 'bfloat16, nf4', expected float32, full; full trains the base's own weights",
        ),
        (
            [{"name": "a", "share": 1.0, "precision": "full"}],
            {"method": {"name": "qlora"}},
            "devices.precision: found 'full', expected a class that qlora trains on; or use lora",
        ),
        (
            [DESKTOP, {**PHONE, "checkpointing": True}],
            PREFIX,
            "devices[phone].checkpointing: found True, expected false; "
            "prefix_tuning keeps keys and values that cannot be computed again",
        ),
        (
            [DESKTOP, {**PHONE, "chunk": 8}],
            {"task": {"kind": "classification"}},
            "devices[phone].chunk: found 8, expected task.kind = 'next_word'; few classes need no chunks",
        ),
        (
            [DESKTOP, {**PHONE, "chunk": 8}],
            {"personalization": {"training": {"steps": 1, "distillation": {}}}},
            "devices[phone].chunk: found 8, expected no distillation; a live teacher needs all logits at once",
        ),
        (
            [DESKTOP, {**PHONE, "micro_batch": 16}],
            {},
            "devices[phone].micro_batch: found 16, expected at most batch = 8",
        ),
        (
            [DESKTOP, {**PHONE, "micro_batch": 8}],
            {"personalization": {"training": {"steps": 1, "batch": 4}}},
            "devices[phone].micro_batch: found 8, expected at most batch = 4",
        ),
        (
            [DESKTOP, {**PHONE, "dtype": "bfloat16"}],
            {"base": {"dtype": "float32"}, "training": {"steps": 1, "autocast": True}},
            "devices[phone].autocast: found True, expected base.dtype = 'float32'; the base computes in it already",
        ),
        # what a class may not change, and what the types refuse
        ([{**DESKTOP, "steps": 4}], {}, "devices[0].steps: found 'steps', expected a known field; known: "),
        ([{**DESKTOP, "batch": 4}], {}, "devices[0].batch: found 'batch', expected a known field; did"),
        ([DESKTOP, {**PHONE, "precison": 4}], {}, "devices[1].precison: found 'precison', expected a known field; did"),
        ([{**DESKTOP, "share": 0}], {}, "devices[0].share: found 0, expected input should be greater than 0"),
        ([{**DESKTOP, "name": "a b"}], {}, "devices[0].name: found 'a b', expected string should match"),
        ([{**PHONE, "clients": []}], {}, "devices[0].clients: found [], expected list should have at least 1 item"),
        ([{**PHONE, "precision": "int4"}], {}, "devices[0].precision: found 'int4', expected input should be"),
        ([{**PHONE, "chunk": 0}], {}, "devices[0].chunk: found 0, expected input should be greater than or equal to 1"),
    ],
)
def test_devices_that_cannot_work_together_are_refused(devices, tables, message):
    assert refused(*devices, **tables).startswith(message)


def test_a_class_fills_in_what_the_base_and_the_method_say():
    tables = {"name": "trial", "base": {"dtype": "float32"}, "method": {"name": "qlora"}}
    devices = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "dtype": "bfloat16", "precision": "full"}]
    found = parse_scenario({**tables, "devices": devices}).classes
    assert [(kind.dtype, kind.precision) for kind in found] == [("float32", "nf4"), ("bfloat16", "full")]
    (alone,) = parse_scenario(tables).classes
    assert (alone.name, alone.dtype, alone.precision) == ("", "float32", "nf4")


def test_a_class_trains_as_everybody_does_but_for_its_memory():
    training = Training(steps=4, batch=8, learning_rate=1e-2, chunk=64)
    phone = DeviceTable(name="phone", share=1.0, checkpointing=True, micro_batch=2)
    changed = phone.thrifty(training)
    assert (changed.checkpointing, changed.micro_batch, changed.chunk) == (True, 2, 64)
    assert changed.model_copy(update={"checkpointing": False, "micro_batch": None}) == training
    assert DeviceTable(name="desktop", share=1.0).thrifty(training) == training


def test_classes_are_part_of_what_clients_must_agree_on():
    plain = {"name": "trial"}
    digests = {
        parse_scenario({**plain, "devices": list(devices)}).digest
        for devices in ((), (DESKTOP, PHONE), (DESKTOP, {**PHONE, "chunk": 8}), HALVES)
    }
    assert len(digests) == 4
