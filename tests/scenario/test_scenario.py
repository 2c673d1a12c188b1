"""A scenario is what decides a run's numbers, written once and read back the same."""

import json
import tomllib
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters.algebra import lora_scaling
from fedpeft.federation.folder import to_toml
from fedpeft.methods.lora import Lora
from fedpeft.scenario import Scenario, load_scenario, parse_scenario
from fedpeft.training import Training

from ..methods.tiny import llama

SIMULATIONS = Path(__file__).resolve().parents[2] / "simulations"
NAME = {"name": "trial"}

# What TOML and JSON can both hold: no half of a surrogate pair.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scenarios = st.builds(
    lambda **fields: {**NAME, **fields},
    description=texts,
    seed=st.integers(0, 2**63 - 1),
    seeds=st.lists(st.integers(0, 99), unique=True, max_size=3),
    data=st.fixed_dictionaries({"federation": texts}, optional={"max_windows": st.integers(1, 999)}),
    training=st.one_of(
        st.fixed_dictionaries({"steps": st.integers(1, 99)}, optional={"learning_rate": st.floats(1e-12, 1e3)}),
        st.fixed_dictionaries({"epochs": st.floats(1e-3, 50), "max_steps": st.integers(1, 9)}),
        st.fixed_dictionaries(
            {"steps": st.integers(1, 99)},
            optional={
                "augmentation": st.fixed_dictionaries({"drop": st.floats(0.01, 0.9)}),
                "adversarial": st.fixed_dictionaries({"kind": st.sampled_from(["fgm", "pgd"])}),
                "distillation": st.fixed_dictionaries({"teacher": texts}),
                "optimizer": st.sampled_from(["adamw", "adamw8bit"]),
            },
        ),
    ),
    channel=st.fixed_dictionaries({"range": st.one_of(st.just("auto"), st.floats(1e-300, 1e300))}),
    method=st.fixed_dictionaries(
        {"name": st.just("lora"), "alpha": st.floats(1e-6, 1e6)},
        optional={"targets": st.lists(texts, min_size=1, max_size=3), "rslora": st.booleans()},
    ),
    samples=st.fixed_dictionaries({"prompts": st.lists(texts, max_size=3)}),
)


@settings(max_examples=150, deadline=None)
@given(scenarios)
def test_the_resolved_file_of_a_run_reads_back_as_the_same_scenario(tables):
    scenario = parse_scenario(tables)
    written = to_toml(scenario.model_dump(mode="json", exclude_none=True))
    again = parse_scenario(tomllib.loads(written))
    assert again == scenario
    assert again.digest == scenario.digest


@pytest.mark.parametrize(
    "text", ['say "hi"', "C:\\new\\table", "two\nlines\r\n\tand a tab", "où 😀 \u2028", "\x00\x1b", "\x7f"]
)
def test_awkward_text_survives_the_resolved_file(text):
    scenario = parse_scenario({**NAME, "description": text, "samples": {"prompts": [text, text]}})
    read = tomllib.loads(to_toml(scenario.model_dump(mode="json", exclude_none=True)))
    assert read["description"] == text
    assert read["samples"]["prompts"] == [text, text]


def test_the_files_of_a_run_both_load(tmp_path):
    scenario = parse_scenario({**NAME, "method": {"name": "lora", "rank": 2}, "training": {"steps": 3}})
    (tmp_path / "scenario.json").write_text(json.dumps(scenario.model_dump(mode="json"), indent=2))
    (tmp_path / "scenario.toml").write_text(to_toml(scenario.model_dump(mode="json", exclude_none=True)))
    assert load_scenario(tmp_path / "scenario.json") == load_scenario(tmp_path / "scenario.toml") == scenario


@pytest.mark.parametrize("path", sorted(SIMULATIONS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_simulation_that_ships_is_valid_and_named_after_its_file(path):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert scenario.description
    assert load_scenario(str(path)) == scenario


def test_there_are_simulations_to_load():
    assert {"keyboard", "smoke"} <= {path.stem for path in SIMULATIONS.glob("*.toml")}


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("federation.rounds=3", lambda s: s.federation.rounds == 3),
        (" federation.rounds = 3 ", lambda s: s.federation.rounds == 3),
        ("training.learning_rate=5e-4", lambda s: s.training.learning_rate == 5e-4),
        ("base.name=some/model", lambda s: s.base.name == "some/model"),
        ('base.name="some model"', lambda s: s.base.name == "some model"),
        ("data.federation=my.module:clients", lambda s: s.data.federation == "my.module:clients"),
        ("seeds=[4, 5]", lambda s: s.seeds == [4, 5]),
        ("personalization.training.steps=9", lambda s: s.personalization.training.steps == 9),
        ("method.rank=2", lambda s: s.shared_method.rank == 2),
        ("samples.prompts=[]", lambda s: s.samples.prompts == []),
        ("description=a=b", lambda s: s.description == "a=b"),
    ],
)
def test_an_override_changes_one_field(override, found):
    tables = deepcopy(FULL)
    changed, before = parse_scenario(tables, [override]), parse_scenario(tables)
    assert found(changed)
    assert not found(before)
    assert tables == FULL  # what was given is left as it was


def length(training: Training) -> tuple[int | None, float | None]:
    return training.steps, training.epochs


@pytest.mark.parametrize("path", [("training",), ("personalization", "training")], ids=".".join)
@pytest.mark.parametrize("written", [None, {"steps": 10}, {"epochs": 2.0}, {"steps": None, "epochs": 2.0}], ids=str)
@pytest.mark.parametrize(("key", "found"), [("steps=5", (5, None)), ("epochs=0.5", (None, 0.5)), ("max_steps=9", None)])
def test_an_overridden_length_takes_the_place_of_the_files_or_the_default_one(path, written, key, found):
    tables = {**NAME, "channel": {"range": 0.1}}
    if written is not None:
        tables |= {path[0]: written if len(path) == 1 else {path[1]: written}}
    before, after = (at(parse_scenario(tables, o), path) for o in ([], [f"{'.'.join(path)}.{key}"]))
    assert length(after) == (found or length(before))


@pytest.mark.parametrize(
    "overrides", [["training.steps=5", "training.steps=6"], ["training.epochs=1", "training={steps=6}"]]
)
def test_of_several_lengths_the_last_override_wins_when_it_replaces_the_others(overrides):
    assert length(parse_scenario(FULL, overrides).training) == (6, None)


@pytest.mark.parametrize(
    "override", ["training.batch=3", "personalization.training.batch=3", "personalization.rank=3", "method.rank=3"]
)
def test_an_override_in_a_table_that_the_file_lacks_changes_only_its_field_of_the_default(override):
    *path, key = override.partition("=")[0].split(".")
    before, after = (at(parse_scenario(NAME, overrides), path) for overrides in ([], [override]))
    assert dict(after) == {**dict(before), key: 3}
    assert dict(before).get(key) != 3


def test_an_overridden_seed_takes_the_place_of_the_files_seeds():
    study = {**FULL, "seeds": [0, 1]}
    assert parse_scenario(study, ["seed=7"]) == parse_scenario(FULL, ["seed=7"])
    assert parse_scenario(study, ["seeds=[7]"]).seeds == [7]


def test_the_last_override_wins():
    assert parse_scenario(NAME, ["federation.rounds=3", "federation.rounds=4"]).federation.rounds == 4


DECISIVE = [
    "seed=1",
    "task.kind=classification",
    "task.pooling=model",
    "data.federation=other",
    "data.clients=20",
    "data.window=32",
    "data.max_windows=5",
    "base.name=other",
    "base.dtype=float32",
    "base.precision=nf4",
    "method.rank=3",
    "method.targets=['q_proj']",
    "training.steps=11",
    "training.batch=3",
    "training.learning_rate=0.5",
    "training.schedule=linear",
    "training.head_factor=3",
    "training.optimizer=adamw8bit",
    "training.checkpointing=true",
    "training.chunk=7",
    "training.augmentation.drop=0.1",
    "training.adversarial.radius=0.1",
    "training.distillation.weight=0.1",
    "federation.rounds=11",
    "federation.cohort=8",
    "federation.minimum=3",
    "federation.partition=ffa",
    "federation.private=['lora_B']",
    "federation.weighting=uniform",
    "federation.weight_cap=100",
    "federation.schedule=linear",
    "federation.panel=4",
    "channel.name=plain",
    "channel.bits=20",
    "channel.rotate=true",
    "channel.corrupt=0.2",
    "channel.dropout=0.1",
    "channel.range=0.5",
    "aggregation.rule=adam",
    "aggregation.learning_rate=0.5",
    "aggregation.beta2=0.5",
    "personalization.people=3",
    "personalization.rank=3",
    "personalization.gate=[0.0, 1.0]",
    "personalization.training.steps=11",
]
LOOKS = [
    "name=other",
    "description=other",
    "seeds=[1, 2]",
    "samples.people=1",
    "samples.prompts=['x']",
    "samples.tokens=3",
]
FULL = {**NAME, "method": {"name": "lora"}, "training": {"steps": 10}, "personalization": {"training": {"steps": 60}}}


def at(scenario: Scenario, path: Iterable[str]) -> Any:
    """Return the table at a path."""
    table: Any = scenario
    for part in path:
        table = getattr(table, part)
    return table


def test_the_digest_changes_with_every_field_that_decides_a_number():
    digests = {override: parse_scenario(FULL, [override]).digest for override in DECISIVE}
    assert len({*digests.values(), parse_scenario(FULL).digest}) == len(DECISIVE) + 1


@pytest.mark.parametrize("override", LOOKS)
def test_the_digest_does_not_change_with_what_only_looks_different(override):
    assert parse_scenario(FULL, [override]).digest == parse_scenario(FULL).digest


def test_defaults_written_out_are_the_same_scenario():
    short = parse_scenario(NAME)
    assert parse_scenario(short.model_dump(mode="json")).digest == short.digest


def test_a_scenario_of_one_seed_is_the_same_run_with_that_seed():
    scenario = parse_scenario({**FULL, "seeds": [7, 8]})
    _ = scenario.digest, scenario.shared_method  # cached before: the copies must not keep it
    seven, eight = scenario.with_seed(7), scenario.with_seed(8)
    assert (seven.seed, seven.seeds, eight.seed) == (7, [], 8)
    assert seven.digest != eight.digest != scenario.digest
    assert seven.digest == parse_scenario({**FULL, "seed": 7}).digest
    assert seven.model_dump(exclude={"seed", "seeds"}) == scenario.model_dump(exclude={"seed", "seeds"})


def test_the_private_method_is_the_shared_one_with_its_own_rank():
    scenario = parse_scenario({**FULL, "method": {"name": "lora", "rank": 16, "targets": ["q_proj"]}})
    assert isinstance(scenario.private_method, Lora)
    assert (scenario.shared_method.rank, scenario.private_method.rank) == (16, 4)
    assert scenario.private_method.targets == ["q_proj"]


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("rank", "private"), [(8, 4), (2, 8), (4, 4)])
def test_the_private_method_has_the_shared_ones_scaling(rslora, rank, private):
    method = {"name": "lora", "rank": rank, "alpha": 12.0, "rslora": rslora}
    scenario: Scenario = parse_scenario({**NAME, "method": method, "personalization": {"rank": private}})
    methods = (scenario.shared_method, scenario.private_method)
    shared, own = (lora_scaling(m.peft_config(llama()).to_dict()) for m in methods)
    assert own == pytest.approx(shared)


CLASSIFIES = {**FULL, "task": {"kind": "classification"}}
HEAD = ("classifier.bias", "classifier.weight")
OF_A, OF_B, OF_HEAD = (
    "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight",
    "base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.weight",
    "base_model.model.classifier.weight",
)


@pytest.mark.parametrize(
    ("overrides", "roles"),
    [
        ([], "shared shared shared"),
        (["task.head=private"], "shared shared private"),
        (["federation.partition=ffa", "task.head=private"], "frozen shared private"),
        (["federation.partition=fedsa"], "shared private private"),
        (["federation.private=['query.lora_A']"], "private shared shared"),
        (["federation.private=[]", "task.head=private"], "shared shared private"),
    ],
)
def test_who_keeps_a_tensor_follows_from_partition_head_and_what_is_named_private(overrides, roles):
    role = parse_scenario(CLASSIFIES, overrides).partition(HEAD)
    assert " ".join(role(name, 0) for name in (OF_A, OF_B, OF_HEAD)) == roles


def test_a_head_is_private_where_the_scenario_says_so_whatever_the_base_calls_it():
    role = parse_scenario(CLASSIFIES, ["task.head=private"]).partition(("score.weight", "bert.pooler.dense.bias"))
    assert role("base_model.model.score.weight", 3) == role("base_model.bert.pooler.dense.bias", 1) == "private"
    assert role(OF_A, 1) == "shared"


@pytest.mark.parametrize(("task", "cap"), [("next_word", 20_000), ("classification", 500), ("caption", 2_000)])
def test_a_client_has_weight_1_from_a_count_on_that_suits_its_task(task, cap):
    assert parse_scenario({**NAME, "task": {"kind": task}}).weight_cap == cap
    assert parse_scenario({**NAME, "task": {"kind": task}}, ["federation.weight_cap=7"]).weight_cap == 7


def test_the_base_is_quantized_to_what_the_scenario_says():
    assert parse_scenario(NAME).precision == "full"
    assert parse_scenario(NAME, ["base.precision=nf4"]).precision == "nf4"
