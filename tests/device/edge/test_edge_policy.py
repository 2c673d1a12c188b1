"""The policy is a function: better conditions never make it refuse, and every refusal has its reason."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.device.edge.policy import ANYTIME, CONDITIONS, Conditions, Policy
from fedpeft.device.edge.probes import Probes
from fedpeft.errors import PolicyError

times = st.times()
shares = st.floats(0, 1)
conditions = st.builds(
    Conditions,
    charging=st.none() | st.booleans(),
    battery=st.none() | shares,
    idle=st.none() | st.floats(0, 1e6),
    metered=st.none() | st.booleans(),
    clock=st.none() | times,
    temperature=st.none() | st.floats(-40, 150),
    memory=st.none() | st.integers(0, 1 << 40),
)
policies = st.builds(
    Policy,
    charging=st.booleans(),
    battery=st.none() | shares,
    idle=st.none() | st.floats(0, 1e6),
    unmetered=st.booleans(),
    hours=st.none() | st.tuples(times, times),
    temperature=st.none() | st.floats(-40, 150),
    memory=st.none() | st.integers(0, 1 << 40),
    assumed=st.frozensets(st.sampled_from(sorted(CONDITIONS))),
)
BEST = {"charging": True, "battery": 1.0, "idle": 1e9, "metered": False, "temperature": -50.0, "memory": 1 << 50}
NAMES = {"metered": "unmetered", "clock": "hours"}


@given(policies, conditions)
def test_it_is_allowed_exactly_when_there_is_no_reason_against_it(policy, found):
    verdict = policy.allows(found)
    assert verdict.allowed == (not verdict.reasons)
    assert len(verdict.reasons) <= len(CONDITIONS)
    if verdict.reasons:
        with pytest.raises(PolicyError, match="policy"):
            verdict.require()
    else:
        verdict.require()


@given(policies, conditions, st.sampled_from(sorted(BEST)))
def test_a_better_condition_never_adds_a_reason(policy, found, name):
    better = policy.allows(replace(found, **{name: BEST[name]}))
    assert set(better.reasons) <= set(policy.allows(found).reasons)


@given(policies, conditions)
def test_what_nobody_knows_is_decided_as_the_policy_says_and_named_either_way(policy, found):
    for field in fields(Conditions):
        name = NAMES.get(field.name, field.name)
        verdict = policy.allows(replace(found, **{field.name: None}))
        refused = any(name in reason and "not known" in reason for reason in verdict.reasons)
        assert refused == (name in verdict.unknown and name not in policy.assumed)


@given(policies, conditions)
def test_each_reason_is_of_its_own_condition_alone(policy, found):
    alone = Conditions()
    reasons = []
    for field in fields(Conditions):
        one = replace(alone, **{field.name: getattr(found, field.name)})
        reasons += replace(policy, assumed=CONDITIONS).allows(one).reasons
    assert sorted(reasons) == sorted(replace(policy, assumed=CONDITIONS).allows(found).reasons)


@given(conditions)
def test_a_policy_that_asks_nothing_allows_everything(found):
    assert ANYTIME.allows(found).allowed


@given(policies, conditions)
def test_work_that_needs_no_network_does_not_ask_what_it_costs(policy, found):
    assert "unmetered" not in " ".join(policy.offline().allows(found).unknown)
    assert policy.offline().allows(replace(found, metered=True)) == policy.offline().allows(found)


@pytest.mark.parametrize(
    ("hours", "now", "allowed"),
    [
        ((time(1), time(5)), time(3), True),
        ((time(1), time(5)), time(5), False),
        ((time(22), time(6)), time(23, 59), True),
        ((time(22), time(6)), time(5, 59), True),
        ((time(22), time(6)), time(12), False),
        ((time(0), time(0)), time(12), True),
    ],
)
def test_hours_may_go_over_midnight(hours, now, allowed):
    assert Policy(hours=hours).allows(Conditions(clock=now)).allowed == allowed


def test_reasons_are_words_for_people():
    found = Conditions(False, 0.1, 5.0, True, time(12), 91.0, 1 << 20)
    strict = Policy(hours=(time(22), time(6)))
    assert strict.allows(found).reasons == (
        "it is not charging",
        "the battery has 10% of 30%",
        "it was used 5 s ago, not 60 s",
        "the network costs by the byte",
        "it is 12:00, not 22:00 to 06:00",
        "91 °C is too hot",
        "1 MiB are free, not 1024",
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"battery": 30}, "battery"),
        ({"idle": -1}, "idle"),
        ({"memory": -1}, "memory"),
        ({"assumed": frozenset({"chargin"})}, "charging"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(wrong, named):
    with pytest.raises(PolicyError, match=named):
        Policy(**wrong)


def test_the_default_probes_answer_in_range_or_say_that_they_cannot_know():
    found = Probes().look()
    assert found.memory is None or found.memory > 0
    assert found.battery is None or 0 <= found.battery <= 1
    assert found.clock is not None
    assert found.metered is None, "psutil does not know what a network costs"


def test_an_apps_own_probe_takes_the_place_of_a_default():
    assert Probes(metered=lambda: True, charging=lambda: None).look().metered is True
