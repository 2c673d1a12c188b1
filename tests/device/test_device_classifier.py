"""Classifying on a device: one encoder, everybody's adapter and head, no torch."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import typer
from typer.testing import CliRunner

from fedpeft.adapters import Adapter
from fedpeft.base import load_base
from fedpeft.cli.classify import classify
from fedpeft.data import load_labelled
from fedpeft.device import LoadedAdapter, Runtime
from fedpeft.device.bundle import TOKENIZER, hash_files, seal
from fedpeft.device.classifier import Classifier
from fedpeft.device.encoder import BATCH
from fedpeft.device.folders import adapter_folder, base_folder, users
from fedpeft.device.manifest import Manifest
from fedpeft.errors import AdapterError, BundleError, DataError, RunError
from fedpeft.export import ExportOptions, export_adapter, export_base, export_run
from fedpeft.export.fill import Ground
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.signing.signature import SigningKey
from tests.tasks.encoder import ABOUT, publish_encoder, write_people

KEY = SigningKey.from_private_bytes(bytes(32))
LABELS = tuple(sorted(ABOUT))
TEXTS = ["please show me the rain", "i want my money", "new song", "what about a card today now", "the"]


@dataclass(frozen=True)
class Classified:
    """A run of a tiny encoder, exported, as `fedpeft simulate` leaves it."""

    run: Path
    attached: Attached
    people: dict[str, np.ndarray]
    classifier: Classifier

    def load(self, person: str) -> LoadedAdapter:
        return self.classifier.load(adapter_folder(self.run, person))

    def probabilities(self, text: str, person: str) -> np.ndarray:
        """What torch says, one text at a time."""
        self.attached.write(SHARED, self.people[person])
        ids = torch.tensor([self.attached.base.tokenizer(text, split_special_tokens=True)["input_ids"]])
        with torch.no_grad():
            hidden = self.attached.model.bert(input_ids=ids).last_hidden_state.mean(1)
            return self.attached.model.classifier(hidden).softmax(-1)[0].numpy()


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("classified")
    write_people(folder / "people")
    publish_encoder(folder / "encoder")
    run = folder / "runs" / "demo"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"started": "2025-11-22T10:00:00+00:00"}))
    scenario = {
        "task": {"kind": "classification", "pooling": "mean"},
        "data": {"federation": str(folder / "people")},
        "base": {"name": str(folder / "encoder"), "dtype": "float32"},
    }
    (run / "scenario.json").write_text(json.dumps(scenario))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(folder / "home"))
        base = load_base(str(folder / "encoder"), "float32", labels=len(LABELS))
        attached = Attached(base, Lora(rank=4), None, seed=0)
        start, people = attached.initial[SHARED], {}
        for seed, owner in enumerate(("global", "person-0", "person-1")):
            moved = np.random.default_rng(seed).normal(0, 0.3, start.size)
            people[owner] = (start + moved).astype(np.float32)
            kept = run / "adapters" / "global" if owner == "global" else run / "clients" / owner / "personal"
            attached.adapter(SHARED, people[owner]).save(kept)
        export_run(run)
        yield Classified(run, attached, people, Classifier(base_folder(run)))


def test_a_run_exports_a_classifier_whose_labels_are_its_datas_in_the_heads_order(classified):
    assert users(classified.run) == ["global", "person-0", "person-1"]
    for person in classified.people:
        manifest = classified.load(person).manifest
        assert manifest.labels == LABELS
        assert manifest.tensors["head.weight"] == (32, 4)


@pytest.mark.parametrize("person", ["global", "person-0", "person-1"])
def test_probabilities_are_torchs_and_each_persons_differ(classified, person):
    adapter = classified.load(person)
    for text in TEXTS:
        scored = classified.classifier.classify(text, adapter)
        theirs = dict(zip(LABELS, classified.probabilities(text, person), strict=True))
        assert [s.label for s in scored] == sorted(theirs, key=lambda label: -theirs[label])
        assert all(abs(s.probability - theirs[s.label]) <= 1e-4 for s in scored)
    others = [classified.classifier.logits(TEXTS, classified.load(p)) for p in classified.people if p != person]
    mine = classified.classifier.logits(TEXTS, adapter)
    assert all(np.abs(mine - other).max() > 1e-2 for other in others)
    assert np.abs(classified.classifier.embed(TEXTS, adapter) - classified.classifier.embed(TEXTS)).max() > 1e-3


def test_many_texts_give_what_each_gives_alone_in_their_own_order(classified):
    words = [word for several in ABOUT.values() for word in several]
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(words, int(random.integers(1, 30)))) for _ in range(2 * BATCH + 3)]
    adapter = classified.load("person-0")
    together = classified.classifier.logits(texts, adapter)
    alone = np.concatenate([classified.classifier.logits([text], adapter) for text in texts])
    assert np.abs(together - alone).max() <= 1e-5
    assert [s[0].label for s in classified.classifier.classify_all(texts, adapter)] == [
        LABELS[i] for i in alone.argmax(-1)
    ]


def test_only_some_classes_can_be_asked_for(classified):
    adapter = classified.load("person-1")
    some = classified.classifier.classify(TEXTS[0], adapter, among=["card", "music"])
    everything = {s.label: s.probability for s in classified.classifier.classify(TEXTS[0], adapter)}
    assert {s.label for s in some} == {"card", "music"}
    whole = everything["card"] + everything["music"]
    assert all(abs(s.probability - everything[s.label] / whole) < 1e-6 for s in some)
    with pytest.raises(BundleError, match="card"):
        classified.classifier.classify(TEXTS[0], adapter, among=["cards"])


def test_threads_get_the_classes_of_the_adapter_they_asked_for(classified):
    adapters = {person: classified.load(person) for person in classified.people}
    alone = {person: classified.classifier.logits(TEXTS, adapter) for person, adapter in adapters.items()}
    asked = list(adapters) * 20
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda person: classified.classifier.logits(TEXTS, adapters[person]), asked))
    assert all(np.array_equal(answer, alone[person]) for person, answer in zip(asked, answers, strict=True))


def test_a_typed_mark_is_its_characters_and_a_long_text_is_cut(classified):
    adapter = classified.load("person-0")
    assert (
        abs(
            classified.classifier.classify("the [SEP] rain", adapter)[0].probability
            - classified.probabilities("the [SEP] rain", "person-0").max()
        )
        <= 1e-4
    )
    longest = classified.classifier.manifest.encoder.context
    long, longer = "rain " * longest, "rain " * (longest + 90)
    assert np.array_equal(*(classified.classifier.logits([text], adapter) for text in (long, longer)))


def test_a_person_of_one_task_has_the_classes_of_that_task_alone(classified, tmp_path):
    base = classified.attached.base
    manifest = Manifest.from_json((base_folder(classified.run) / "manifest.json").read_bytes(), "base")
    adapter = classified.attached.adapter(SHARED, classified.people["person-0"])
    export_adapter(
        adapter, tmp_path / "a", owner="a", base=manifest, key=own_key(classified.run), ground=Ground(base),
        labels=LABELS[1:3], classes=slice(1, 3),
    )  # fmt: skip
    mine, whole = classified.classifier.load(tmp_path / "a"), classified.load("person-0")
    assert mine.manifest.labels == LABELS[1:3]
    assert np.array_equal(classified.classifier.logits(TEXTS, mine), classified.classifier.logits(TEXTS, whole)[:, 1:3])


def own_key(run: Path) -> SigningKey:
    from fedpeft.export.run import signing_key

    return signing_key(run)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda m: m.model_copy(update={"labels": m.labels[:3]}), "4 classes"),
        (lambda m: m.model_copy(update={"labels": ()}), "4 classes"),
        (lambda m: m.model_copy(update={"base_fingerprint": "0" * 64}), "base"),
    ],
)
def test_a_head_that_does_not_fit_its_labels_or_its_base_is_refused(classified, tmp_path, damage, complaint):
    copy = shutil.copytree(adapter_folder(classified.run, "person-0"), tmp_path / "copy")
    manifest = Manifest.from_json((copy / "manifest.json").read_bytes(), "copy")
    seal(copy, damage(manifest), own_key(classified.run))
    with pytest.raises(BundleError, match=complaint):
        classified.classifier.load(copy)


def test_an_adapter_without_a_head_is_refused(classified, tmp_path):
    copy = shutil.copytree(adapter_folder(classified.run, "person-0"), tmp_path / "copy")
    held = ort.AdapterFormat.read_adapter(str(copy / "adapter.onnx_adapter")).get_parameters()
    rest = {name: value for name, value in held.items() if not name.startswith("head.")}
    content = ort.AdapterFormat()
    content.set_adapter_version(1)
    content.set_model_version(1)
    content.set_parameters(rest)
    content.export_adapter(str(copy / "adapter.onnx_adapter"))
    manifest = Manifest.from_json((copy / "manifest.json").read_bytes(), "copy")
    for name in ("manifest.json", "manifest.sig"):
        (copy / name).unlink()
    tensors = {name: shape for name, shape in manifest.tensors.items() if name in rest}
    changed = manifest.model_copy(update={"tensors": tensors, "files": hash_files(copy)})
    seal(copy, changed, own_key(classified.run))
    with pytest.raises(BundleError, match=r"head\.weight: found '0 classes'"):
        classified.classifier.load(copy)


def test_a_classifiers_bundle_is_not_opened_as_a_writers_nor_a_damaged_one_at_all(classified, tmp_path):
    with pytest.raises(BundleError, match="decoder"):
        Runtime(base_folder(classified.run))
    copy = shutil.copytree(base_folder(classified.run), tmp_path / "copy")
    (copy / TOKENIZER).write_bytes((copy / TOKENIZER).read_bytes()[:-1] + b" ")
    with pytest.raises(BundleError, match="sha256"):
        Classifier(copy)


def test_dynamic_int8_agrees_on_nearly_every_text(classified, tmp_path):
    options = ExportOptions(precision="dynamic-int8")
    export_base(classified.attached.base, tmp_path / "base", key=own_key(classified.run), options=options)
    small = Classifier(tmp_path / "base")
    adapter = small.load(adapter_folder(classified.run, "person-0"))
    exact = classified.classifier.logits(TEXTS, classified.load("person-0"))
    error = np.abs(small.logits(TEXTS, adapter) - exact).max()
    assert 0 < error < 0.1 * np.abs(exact).max()
    assert np.abs(small.embed(TEXTS, adapter) - small.embed(TEXTS)).max() > 1e-3


def test_the_command_classifies_without_torch(classified):
    code = (
        "import sys\nfrom fedpeft.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
    )
    arguments = [
        "classify",
        "--run",
        str(classified.run),
        "--user",
        "person-1",
        "--text",
        TEXTS[0],
        "--text",
        "[b]x",
        "--json",
    ]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])["answers"]
    assert [a["text"] for a in answers] == [TEXTS[0], "[b]x"]
    best = classified.classifier.classify(TEXTS[0], classified.load("person-1"))[0]
    assert answers[0]["classes"][0]["label"] == best.label
    assert abs(answers[0]["classes"][0]["probability"] - best.probability) < 1e-6


def test_the_command_prints_a_table_and_names_who_has_an_adapter(classified):
    app = typer.Typer()
    app.command()(classify)
    given = ["--run", str(classified.run), "--text", "[b]rain[/b]"]
    result = CliRunner().invoke(app, [*given, "--user", "global", "--top", "2"])
    assert result.exit_code == 0, result.output
    assert "[b]rain[/b]" in result.output
    assert len(re.findall(r"\d\.\d%", result.output)) == 2
    assert isinstance(CliRunner().invoke(app, [*given, "--user", "person-9"]).exception, RunError)
    refused = CliRunner().invoke(app, [*given, "--user", "base"]).exception
    assert "in the adapters" in str(refused)
    some = CliRunner().invoke(app, [*given, "--user", "global", "--among", "car", "--json"])
    (answer,) = json.loads(some.output)["answers"]
    assert answer["classes"] == [{"label": "card", "probability": 1.0}]
    unknown = CliRunner().invoke(app, [*given, "--user", "global", "--among", "banking/"]).exception
    assert "banking/" in str(unknown)


def test_the_command_refuses_an_adapter_in_somebody_elses_folder(classified, tmp_path):
    swapped = shutil.copytree(classified.run, tmp_path / "swapped")
    adapter_folder(swapped, "person-1").rename(adapter_folder(swapped, "somebody"))
    app = typer.Typer()
    app.command()(classify)
    refused = CliRunner().invoke(app, ["--run", str(swapped), "--text", "rain", "--user", "somebody"]).exception
    assert isinstance(refused, BundleError)
    assert "adapter somebody owner: found 'person-1'" in str(refused)


def test_the_pages_example_runs_beside_a_run(classified, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "classify.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "runs").symlink_to(classified.run.parent)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\w+: \d+\.\d%$", done.stdout, flags=re.MULTILINE)) == 3


def test_a_client_that_the_data_no_longer_has_is_refused(classified, tmp_path):
    run = shutil.copytree(classified.run, tmp_path / "run")
    adapter = Adapter.load(run / "clients" / "person-0" / "personal", classified.attached.base.fingerprint)
    adapter.save(run / "clients" / "stranger" / "personal")
    with pytest.raises(RunError, match="stranger"):
        export_run(run, classified.attached.base)


def test_a_run_whose_data_is_gone_says_that_the_names_of_its_classes_are_there(classified, tmp_path):
    run = shutil.copytree(classified.run, tmp_path / "run")
    scenario = json.loads((run / "scenario.json").read_text())
    scenario["data"]["federation"] = str(tmp_path / "gone")
    (run / "scenario.json").write_text(json.dumps(scenario))
    with pytest.raises(DataError, match="gone"):
        export_run(run, classified.attached.base)


def test_a_run_whose_data_has_another_number_of_labels_is_refused(classified, tmp_path):
    run = shutil.copytree(classified.run, tmp_path / "run")
    people = shutil.copytree(classified.run.parents[1] / "people", tmp_path / "people")
    with (people / "person-0.jsonl").open("a") as file:
        file.write(json.dumps({"text": "a new thing", "label": "news"}) + "\n")
    scenario = json.loads((run / "scenario.json").read_text())
    scenario["data"]["federation"] = str(people)
    (run / "scenario.json").write_text(json.dumps(scenario))
    with pytest.raises(AdapterError, match="4 classes"):
        export_run(run)


def test_labels_of_two_tasks_are_in_the_heads_order():
    from fedpeft.export.encoder_run import Classes

    name = "intents:clients=2+banking:clients=2"
    classes = Classes.of({"task": {"kind": "classification"}, "data": {"federation": name}})
    federation = load_labelled(name)
    assert classes is not None
    assert list(classes.labels) == federation.labels()
    first, last = classes.range_of("banking-01")
    assert all(label.startswith("banking/") for label in classes.labels[first:last])
    assert (first, last) == federation.groups()["banking"]
    assert classes.range_of("global") == (0, len(classes.labels))


def test_a_writers_bundle_is_not_opened_as_a_classifiers(run):
    with pytest.raises(BundleError, match="open it with Runtime"):
        Classifier(base_folder(run))
