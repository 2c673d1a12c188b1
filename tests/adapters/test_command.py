"""``fedpeft adapters``: on folders, on a store and on a run; bad input ends in one line and exit code 2."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat
from fedpeft.adapters.factors import change_error
from fedpeft.adapters.store import AdapterStore
from fedpeft.cli import main

from .lora import BASE, random_lora
from .models import saved, tiny


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Return a working directory with a run of two people and a folder of each kind."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/smoke-1")
    random_lora(3, 0).save(run / "adapters" / "global")
    for seed, person in enumerate(("anna", "berta"), start=1):
        (run / "clients" / person).mkdir(parents=True)
        random_lora(2, seed, 0.5).save(run / "clients" / person / "personal")
    (run / "run.json").write_text(json.dumps({"started": "2026-01-01T00:00:00+00:00"}))
    random_lora(4, 9).save(Path("own"))
    return tmp_path


@pytest.fixture
def run(capsys):
    """Return a function that runs the command and returns exit code, output and the error's line."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["adapters", *arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def ask(run):
    """Return a function that runs the command with ``--json`` and returns what it printed."""

    def call(*arguments: str):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


def test_a_runs_adapters_are_listed_with_everybodys_first(place, ask):
    entries = ask("list", "--run", "latest")
    assert [e["name"] for e in entries] == ["global", "anna", "berta"]
    assert entries[1]["tags"] == {"user": "anna", "run": "smoke-1"}
    assert entries[1]["bytes"] == random_lora(2, 1, 0.5).file_bytes
    assert {e["base"] for e in entries} == {BASE}


def test_folders_are_looked_through(place, ask):
    names = [e["name"] for e in ask("list", ".")]
    assert sorted(names) == sorted(
        ["own", *(f"runs/smoke-1/{n}" for n in ("adapters/global", "clients/anna/personal", "clients/berta/personal"))]
    )


def test_tables_are_for_people(place, run):
    code, out, _ = run("list", "--run", "smoke-1")
    assert code == 0
    assert "3 adapters" in out
    assert "anna" in out
    code, out, _ = run("show", "anna", "--run", "latest")
    assert code == 0
    assert "user=anna, run=smoke-1" in out
    assert "layers.0.q_proj" in out


def test_an_adapter_is_taken_apart(place, ask):
    facts = ask("show", "own")
    assert (facts["peft_type"], facts["rank"], facts["tensors"]) == ("LORA", 4, 4)
    assert sum(m["share"] for m in facts["modules"]) == pytest.approx(1.0)
    assert facts["modules"][0]["norm"] >= facts["modules"][1]["norm"]


def test_what_is_no_lora_is_shown_too_and_its_base_may_be_unknown(place, ask, run):
    saved(PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), Path("prefix"))
    facts = ask("show", "prefix")
    assert (facts["peft_type"], facts["base"]) == ("PREFIX_TUNING", "unknown")
    assert facts["modules"].startswith("not taken apart: adapter type")
    code, _, err = run("quantize", "prefix", "--out", "small")
    assert code == 2
    assert "name the base with --base" in err


def test_a_composition_is_the_weighted_sum_and_says_what_it_cost(place, ask):
    facts = ask("compose", "anna", "global", "own", "--weights", "0.7,-0.3,1", "--run", "latest", "--out", "made")
    run = Path("runs/smoke-1")
    parts = [Adapter.load(f) for f in (run / "clients/anna/personal", run / "adapters/global", Path("own"))]
    assert np.array_equal(Adapter.load(Path("made")).vector, cat(parts, [0.7, -0.3, 1.0]).vector)
    assert facts["compose_error"] == change_error(Adapter.load(Path("made")), parts, [0.7, -0.3, 1.0]) < 1e-7
    assert (facts["rank"], facts["written"]) == (9, "made")
    assert facts["bytes"] == sum(p.stat().st_size for p in Path("made").iterdir())


def test_a_composition_can_be_brought_down_to_a_rank(place, ask):
    facts = ask("compose", "own", "own", "--rank", "4", "--out", "made")
    assert (facts["rank"], facts["kept_energy"]) == (4, pytest.approx(1.0))
    assert facts["compress_error"] < 1e-6


@pytest.mark.parametrize("by", ["rank", "magnitude", "change"])
def test_pruning_reports_what_it_keeps_and_loses(place, ask, by):
    facts = ask("prune", "own", "--by", by, "--density", "0.5", "--out", "small")
    small = Adapter.load(Path("small"))
    assert facts["kept"] == (small.schema.size if by == "rank" else np.count_nonzero(small.vector)) <= 0.5 * facts["of"]
    assert facts["bytes"] < facts["bytes_before"]
    assert facts["change_error"] == pytest.approx(change_error(small, [random_lora(4, 9)], [1.0]))


def test_a_quantized_adapter_is_opened_by_every_command_and_comes_back(place, ask):
    small = ask("quantize", "own", "--bits", "4", "--out", "small")
    assert 0.02 < small["change_error"] < 0.25
    assert small["bytes"] < 0.5 * small["bytes_before"]
    assert ask("show", "small")["form"] == "int4"
    ask("compose", "small", "own", "--out", "made")
    back = ask("quantize", "small", "--bits", "32", "--out", "back")
    assert back["bytes_before"] == small["bytes"]
    assert ask("show", "back")["form"] == "float32"
    assert np.array_equal(Adapter.load(Path("back")).vector, Adapter.load(Path("small")).vector)


def test_a_store_takes_a_run_in_and_works_like_folders(place, ask, run):
    added = ask("add", "--run", "latest", "--store", "kept")
    assert added["added"] == ["global", "anna", "berta"]
    assert ask("add", "own", "--store", "kept", "--as", "mine")["added"] == ["mine"]
    entries = ask("list", "--store", "kept")
    assert [e["name"] for e in entries] == ["anna", "berta", "global", "mine"]
    assert entries[0]["tags"] == {"user": "anna", "run": "smoke-1"}
    assert ask("compose", "anna", "mine", "--store", "kept", "--as", "both")["rank"] == 6
    assert ask("quantize", "both", "--store", "kept", "--as", "both-8")["written"] == "both-8"
    assert ask("show", "both-8", "--store", "kept")["form"] == "int8"
    assert ask("verify", "--store", "kept") == {"checked": 6, "wrong": {}}
    assert ask("remove", "both", "--store", "kept")["removed"] == "both"
    code, _, err = run("show", "both", "--store", "kept")
    assert (code, "did you mean 'both-8'" in err) == (2, True)
    assert len(AdapterStore(Path("kept"))) == 5


def test_damage_is_found_named_and_exits_with_1(place, run, ask):
    ask("add", "--run", "latest", "--store", "kept")
    store = AdapterStore(Path("kept"))
    file = store.folder("anna") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    code, out, _ = run("verify", "--store", "kept", "--json")
    assert code == 1
    assert json.loads(out)["wrong"].keys() == {"anna"}
    assert run("verify", "berta", "--store", "kept")[0] == 0
    code, out, _ = run("verify", "--store", "kept", "--rebuild")
    assert (code, "not in the index" in out) == (1, True)
    assert [e.name for e in store.list()] == ["berta", "global"]
    Path("runs/smoke-1/clients/anna/personal/adapter_config.json").unlink()
    assert run("verify", "--run", "latest")[0] == 1


def test_a_merged_base_is_opened_by_transformers_and_computes_like_peft(place, ask):
    base = AutoModelForCausalLM.from_pretrained(_keyboard(), dtype=torch.float32)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    from peft import get_peft_model

    model = get_peft_model(base, config).eval()
    model.save_pretrained("pefts")
    facts = ask("merge", "pefts", "--base", "keyboard", "--out", "model")
    assert (facts["weights"], facts["dtype"], facts["lost_to_rounding"]) == (4, "float32", 0.0)
    assert facts["bytes"] == sum(p.stat().st_size for p in Path("model").iterdir())
    merged = AutoModelForCausalLM.from_pretrained("model")
    tokens = AutoTokenizer.from_pretrained("model")("what do you", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, model(tokens).logits, atol=1e-4, rtol=0)
    rounded = ask("merge", "pefts", "--base", "keyboard", "--out", "half", "--dtype", "bfloat16")
    assert 0.0 < rounded["lost_to_rounding"] < 1.0
    assert rounded["bytes"] < 0.6 * facts["bytes"]


def _keyboard() -> Path:
    import fedpeft.base

    return Path(fedpeft.base.__file__).parent / "builtin" / "keyboard"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "adapters: found 'nothing', expected folders, --run or --store"),
        (["list", "nowhere"], "adapters: found 'nowhere', expected a folder"),
        (["list", "--run", "other"], "run: found 'other'"),
        (["list", "--store", "own"], "--store: found 'own', expected a store"),
        (["show", "nobody", "--run", "latest"], "adapter: found 'nobody'"),
        (["show", "anne", "--run", "latest"], "did you mean 'anna'?"),
        (["show", "."], "it holds no adapter_config.json"),
        (["compose", "own", "own", "--weights", "1", "--out", "x"], "--weights: found '1', expected 2 numbers"),
        (["compose", "own", "own", "--weights", "1,b", "--out", "x"], "--weights: found '1,b'"),
        (["compose", "own"], "output: found 'nothing', expected --out DIR, or --store DIR --as NAME"),
        (["prune", "own", "--density", "2", "--out", "x"], "density: found 2.0"),
        (["quantize", "own", "--bits", "3", "--out", "x"], "bits and block: found (3, 32)"),
        (["quantize", "own", "--out", "runs"], "--out: found 'runs', expected a folder that is not there yet"),
        (["merge", "own", "--base", "keyboard", "--out", "x"], "adapter base: found"),
        (["merge", "own", "--base", "nothing", "--out", "x"], "base.name: found 'nothing'"),
        (["add", "--store", "x"], "adapters: found [], expected at least one"),
        (["verify"], "adapters: found 'nothing', expected names, --run or --store"),
        (["verify", "own", "--rebuild"], "--rebuild: found 'no store'"),
        (["remove", "own", "--store", "nowhere"], "--store: found 'nowhere'"),
    ],
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(place, run, arguments, message):
    before = sorted(place.iterdir())
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert sorted(place.iterdir()) == before


def test_every_verb_shows_an_example(run):
    from fedpeft.cli.adapters import adapters

    for command in adapters.registered_commands:
        name = command.name or command.callback.__name__
        code, out, _ = run(name, "--help")
        assert code == 0
        assert f"Example: fedpeft adapters {name}" in out


def test_a_tiny_base_in_a_folder_will_do_for_peft(place, ask):
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapter, _ = saved(config, Path("pefts"))
    adapter.save(Path("ours"))
    facts = ask("prune", "ours", "--density", "0.5", "--out", "pruned")
    assert facts["kept_energy"] > 0.5
    PeftModel.from_pretrained(tiny(), "pruned")
