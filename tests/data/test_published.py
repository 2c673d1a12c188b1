"""The data sets that ship with fedpeft: whole, divided over artificial clients, alone or joined."""

import os
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.data import load_federation, load_labelled
from fedpeft.data.dirichlet import LEAST, dirichlet_partition
from fedpeft.data.labelled import split_of
from fedpeft.data.published import BUILTIN
from fedpeft.errors import DataError


def everything(federation) -> Counter:
    return Counter((e.text, e.label) for c in federation.client_ids() for e in federation.examples(c))


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 8), min_size=200, max_size=400),
    clients=st.integers(2, 12),
    alpha=st.floats(0.3, 100),
    seed=st.integers(0, 2**31),
)
def test_a_dirichlet_division_gives_every_example_to_exactly_one_client(labels, clients, alpha, seed):
    parts = dirichlet_partition(np.array(labels), clients, alpha, seed)
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert min(map(len, parts)) >= LEAST
    again = dirichlet_partition(np.array(labels), clients, alpha, seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


def test_shares_of_a_label_have_the_moments_of_the_dirichlet_distribution():
    """Of K shares each has mean 1/K and variance (1/K)(1 - 1/K)/(αK + 1)."""
    labels, clients, alpha = np.repeat(np.arange(2000), 100), 5, 0.7
    parts = dirichlet_partition(labels, clients, alpha, seed=1)
    shares = np.stack([np.bincount(labels[part], minlength=2000) for part in parts]) / 100
    assert shares.mean(axis=1) == pytest.approx(np.full(clients, 1 / clients), abs=0.02)
    assert shares.var() == pytest.approx((1 / clients) * (1 - 1 / clients) / (alpha * clients + 1), rel=0.03)


def test_a_small_alpha_gives_clients_fewer_labels_than_a_large_one():
    def entropy(alpha):
        found = load_labelled(f"intents:clients=20,alpha={alpha}")
        counts = [np.bincount([e.label for e in found.examples(c)], minlength=150) for c in found.client_ids()]
        shares = [c[c > 0] / c.sum() for c in counts]
        return np.mean([-(p * np.log(p)).sum() for p in shares])

    assert entropy(0.05) < 0.8 * entropy(0.5) < 0.8 * entropy(1000)
    assert entropy(1000) == pytest.approx(np.log(150), rel=0.01)


def test_a_division_that_leaves_somebody_nothing_is_refused_with_what_to_change():
    with pytest.raises(DataError) as refused:
        dirichlet_partition(np.zeros(40, np.int64), 12, 0.1, 0)
    assert str(refused.value) == (
        "data.federation: alpha: found 0.1, expected a division that leaves each of 12 clients at least 5 of 40 "
        "examples; raise alpha or lower clients"
    )


@pytest.mark.parametrize(("name", "labels", "texts"), [("intents", 150, 22_500), ("banking", 77, 13_083)])
def test_the_data_sets_are_whole(name, labels, texts):
    federation = load_labelled(name)
    assert (federation.name, len(federation.client_ids())) == (name, 40)
    assert len(federation.labels()) == len(set(federation.labels())) == labels
    assert federation.labels() == sorted(federation.labels())
    assert federation.groups() == {name: (0, labels)}
    found = everything(federation)
    assert sum(found.values()) == texts
    assert {label for _, label in found} == set(range(labels))
    assert all(text == text.strip() != "" for text, _ in found)


def test_a_text_has_the_label_it_was_published_with():
    for name, text, label in (
        ("intents", "what expression would i use to say i love you if i were an italian", "translate"),
        ("banking", "I am still waiting on my card?", "card_arrival"),
        ("banking", "Where can I use my card?", "card_acceptance"),
    ):
        federation = load_labelled(name)
        assert {federation.labels()[number] for found, number in everything(federation) if found == text} == {label}


def test_no_division_changes_what_there_is():
    assert everything(load_labelled("banking:clients=7,alpha=0.2,seed=3")) == everything(load_labelled("banking"))


def test_options_decide_the_division_and_the_same_ones_give_the_same():
    names = ["banking", "banking:seed=1", "banking:alpha=5", "banking:clients=39"]
    first = [load_labelled(name).examples("banking-00") for name in names]
    again = [load_labelled(name).examples("banking-00") for name in names]
    assert first == again
    assert len({tuple(examples) for examples in first}) == len(names)
    assert load_labelled("banking:clients=120").client_ids()[-1] == "banking-119"
    assert load_labelled("banking:clients=3").client_ids() == ["banking-00", "banking-01", "banking-02"]


def test_another_process_divides_and_splits_alike():
    script = (
        "from fedpeft.data.labelled import load_labelled, split_of\n"
        "print(split_of(load_labelled('intents+banking'), 'banking-07'))\n"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert done[0] == done[1] != b""


def test_every_client_of_the_defaults_can_train_validate_and_test():
    federation = load_labelled("intents+banking")
    for client in federation.client_ids():
        split = split_of(federation, client)
        assert min(len(split.train), len(split.validation), len(split.test)) >= 20


def test_a_union_holds_the_clients_of_both_and_each_learns_its_own_labels():
    both, intents, banking = map(load_labelled, ("intents+banking", "intents", "banking"))
    assert both.groups() == {"intents": (0, 150), "banking": (150, 227)}
    assert both.labels() == [f"intents/{x}" for x in intents.labels()] + [f"banking/{x}" for x in banking.labels()]
    assert len(set(both.labels())) == 227
    assert sorted(both.client_ids()) == sorted([*intents.client_ids(), *banking.client_ids()])
    for client in both.client_ids():
        first, last = both.groups()[both.group_of(client)]
        alone = intents if both.group_of(client) == "intents" else banking
        examples = both.examples(client)
        assert all(first <= e.label < last for e in examples)
        assert [(e.text, e.label - first) for e in examples] == [(e.text, e.label) for e in alone.examples(client)]


def test_the_first_clients_of_a_union_are_of_all_its_tasks():
    even = load_labelled("intents+banking")
    assert list(islice(even.client_ids(), 4)) == ["intents-00", "banking-00", "intents-01", "banking-01"]
    uneven = load_labelled("banking:clients=3+intents:clients=9,alpha=2")
    assert Counter(map(uneven.group_of, uneven.client_ids()[:4])) == {"banking": 1, "intents": 3}
    assert uneven.groups() == {"banking": (0, 77), "intents": (77, 227)}
    assert uneven.name == "banking:clients=3+intents:clients=9,alpha=2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "intents:client=3",
            "data.federation: option: found 'client=3', expected clients=…, alpha=… or seed=…; did you mean 'clients'?",
        ),
        ("intents:clients=1", "clients: found '1', expected a whole number from 2 to 1000; as in intents:clients=20"),
        ("intents:clients=2.5", "clients: found '2.5', expected a whole number"),
        ("intents:clients=", "clients: found '', expected a whole number"),
        ("intents:alpha=0", "alpha: found '0', expected a number from 0.001"),
        ("intents:alpha=nan", "alpha: found 'nan', expected a number from 0.001"),
        ("intents:alpha=much", "alpha: found 'much', expected a number from 0.001"),
        ("intents:seed=-1", "seed: found '-1', expected a whole number from 0"),
        ("intents:seed=1,seed=2", "expected each option once"),
        ("intents:clients=3,alpha", "option: found 'alpha', expected clients=…"),
        ("intents+banknig", "data.federation: found 'banknig', expected a known data set; did you mean 'banking'?"),
        ("intents+intents", "data.federation: found 'intents+intents', expected intents once"),
        ("intents+", "data.federation: found '', expected a known data set"),
        ("intens", "'banking', 'intents' or a folder of JSONL files with labels; did you mean 'intents'?"),
        ("some/where", "no folder "),
        ("keyboard", "it is people's messages, without labels; labelled are banking, intents"),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_what_was_probably_meant(name, message):
    with pytest.raises(DataError) as refused:
        load_labelled(name)
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["intents", "banking:clients=3", "intents+banking"])
def test_labelled_data_is_no_federation_of_messages(name):
    with pytest.raises(DataError) as refused:
        load_federation(name)
    assert str(refused.value) == (
        f"data.federation: found {name!r}, expected people's messages; these are labelled texts; "
        "they need a classification task"
    )


def test_a_module_may_have_the_name_of_a_data_set(tmp_path, monkeypatch):
    (tmp_path / "intents.py").write_text("def clients():\n    return {'ada': ['hello']}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(load_federation("intents:clients").client_ids()) == ["ada"]


def test_the_data_comes_with_its_licences_and_is_small():
    folder = files("fedpeft.data") / "builtin"
    assert sum(len((folder / name).read_bytes()) for name in ("intents.jsonl.gz", "banking.jsonl.gz")) < 400_000
    assert "Attribution 3.0 Unported" in (BUILTIN / "intents.LICENSE").read_text()
    assert "Attribution 4.0 International" in (BUILTIN / "banking.LICENSE").read_text()
    credit = (BUILTIN / "README.md").read_text()
    assert all(name in credit for name in ("Larson", "Casanueva", "CC BY 3.0", "CC BY 4.0", "left out"))
