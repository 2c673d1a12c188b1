"""Every method that has a place in the graph answers there as it does in torch, on every way to run it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from fedpeft.base import Base, load_base
from fedpeft.device.bundle import ADAPTER, PREFIX
from fedpeft.device.manifest import Manifest
from fedpeft.device.sites import neutral
from fedpeft.errors import AdapterError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.fill import Ground, fill
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
SEED = 3
EVERYTHING = frozenset({"all"})
PROMPT = np.random.default_rng(5).integers(5, 2048, 11).tolist()

METHODS = {
    "lora": {"name": "lora", "rank": 4},
    "rslora with patterns": {
        "name": "lora",
        "rslora": True,
        "rank_pattern": {"v_proj": 6},
        "alpha_pattern": {"q_proj": 3.0},
        "targets": ["q_proj", "v_proj"],
    },
    "dora": {"name": "lora", "rank": 4, "dora": True},
    "ia3": {"name": "ia3"},
    "bitfit": {"name": "bitfit"},
    "houlsby": {"name": "houlsby", "size": 8},
    "houlsby with gelu": {"name": "houlsby", "size": 8, "activation": "gelu"},
    "pfeiffer with silu": {"name": "pfeiffer", "activation": "silu"},
    "parallel_adapter": {"name": "parallel_adapter", "size": 8},
    "compacter": {"name": "compacter"},
    "adalora": {"name": "adalora", "init_rank": 6, "target_rank": 3, "warmup": 1, "until": 3},
    "vera": {"name": "vera", "rank": 16},
    "vera with d frozen": {"name": "vera", "rank": 16, "train_d": False},
    "fed_sb": {"name": "fed_sb", "rank": 8},
    "fed_sb of singular vectors": {"name": "fed_sb", "rank": 8, "init": "svd"},
    "shared_lora": {"name": "shared_lora", "groups": 2},
    "prompt_tuning": {"name": "prompt_tuning", "length": 5},
    "p_tuning": {"name": "p_tuning", "length": 5},
    "p_tuning with an lstm": {"name": "p_tuning", "length": 5, "encoder": "lstm"},
    "prefix_tuning": {"name": "prefix_tuning", "length": 5},
    "prefix_tuning without a network": {"name": "prefix_tuning", "length": 5, "projection": None},
    "p_tuning_v2": {"name": "p_tuning_v2", "length": 5},
    "lora_prompt": {"name": "lora_prompt"},
    "lora_prefix": {"name": "lora_prefix"},
    "adapter_lora": {"name": "adapter_lora"},
    "prompt_adapter": {"name": "prompt_adapter"},
}


class Graph:
    """An exported base in a plain onnxruntime session, so that nothing of the runtime hides a fault of the graph."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = ort.InferenceSession(folder / "model.onnx", options)
        self.manifest, self.facts = manifest, manifest.decoder

    def logits(self, rows: list[list[int]], past=None, inputs=None, run_options=None) -> np.ndarray:
        """Read rows of one length at once, after the same past."""
        ids = np.array(rows, np.int64)
        past = past or self.nothing()
        past = {name: np.repeat(array, len(ids), 0) for name, array in past.items()}
        length = next(iter(past.values())).shape[2] + ids.shape[1]
        feeds = {"input_ids": ids, "attention_mask": np.ones((len(ids), length), np.int64), **past, **(inputs or {})}
        values = {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(a)) for name, a in feeds.items()}
        return self.session.run_with_ort_values(["logits"], values, run_options)[0].numpy()

    def step_by_step(self, rows: list[list[int]], past, inputs) -> np.ndarray:
        """Read rows token by token, each after its own past."""
        found = []
        for column in np.array(rows, np.int64).T:
            length = next(iter(past.values())).shape[2] + 1
            feeds = {"input_ids": column[:, None], "attention_mask": np.ones((len(rows), length), np.int64)}
            names = [name.replace("past_key_values", "present") for name in past]
            logits, *present = self.session.run(["logits", *names], {**feeds, **past, **inputs})
            past = dict(zip(past, present, strict=True))
            found.append(logits)
        return np.concatenate(found, 1)

    def nothing(self) -> dict[str, np.ndarray]:
        shape = (1, self.facts.kv_heads, 0, self.facts.head_dim)
        return {
            f"past_key_values.{i}.{part}": np.zeros(shape, np.float32)
            for i in range(self.facts.layers)
            for part in ("key", "value")
        }


@dataclass(frozen=True)
class Trained:
    """A method in torch with numbers as training leaves them, and its bundle."""

    attached: Attached
    folder: Path
    ids: list[int]
    past: dict[str, np.ndarray] | None
    inputs: dict[str, np.ndarray]

    def torch_logits(self, ids: list[int]) -> np.ndarray:
        with torch.no_grad():
            return self.attached.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


def read(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    content = ort.AdapterFormat.read_adapter(str(path))  # it owns the numbers
    return {name: value.numpy().copy() for name, value in content.get_parameters().items()}


@pytest.fixture(scope="module")
def graphs(base, tmp_path_factory) -> dict[str, Graph]:
    folder = tmp_path_factory.mktemp("graphs")
    found = {}
    for variant in ("optional", "required", "rows"):
        manifest = export_base(base, folder / variant, key=KEY, options=ExportOptions(variant, sites=EVERYTHING))
        found[variant] = Graph(folder / variant, manifest)
    return found


@pytest.fixture(scope="module", params=list(METHODS))
def trained(request, base: Base, graphs, tmp_path_factory) -> Trained:
    torch.manual_seed(0)
    own = load_base("keyboard", "float32")
    attached = Attached(own, parse_method(METHODS[request.param]), None, seed=SEED)
    start = attached.initial[SHARED]
    vector = start + np.random.default_rng(1).normal(0, 0.03, start.size).astype(np.float32)
    attached.write(SHARED, vector)
    attached.activate(SHARED)
    folder = tmp_path_factory.mktemp("adapter") / "ada"
    manifest = graphs["optional"].manifest
    adapter = attached.adapter(SHARED, vector)
    export_adapter(adapter, folder, owner="ada", base=manifest, key=KEY, ground=Ground(base, SEED))
    inputs, past = read(folder / ADAPTER), read(folder / PREFIX)
    prompt = range(manifest.decoder.vocabulary, manifest.decoder.vocabulary + len(inputs.get("soft_prompt", ())))
    return Trained(attached, folder, [*prompt, *PROMPT], past or None, inputs)


def theirs(trained: Trained, graph: Graph) -> np.ndarray:
    return trained.torch_logits(trained.ids[len(trained.ids) - len(PROMPT) :])


def difference(trained: Trained, graph: Graph, ours: np.ndarray) -> float:
    return float(np.abs(ours[0, -len(PROMPT) :] - theirs(trained, graph)).max())


def test_an_adapter_file_gives_torchs_logits_and_not_the_bases(trained, graphs):
    graph, options = graphs["optional"], ort.RunOptions()
    handle = ort.LoraAdapter()
    if trained.inputs:
        handle.Load(str(trained.folder / ADAPTER))
        options.add_active_adapter(handle)
    ours = graph.logits([trained.ids], trained.past, run_options=options)
    assert difference(trained, graph, ours) <= 1e-4
    assert difference(trained, graph, graph.logits([PROMPT])) > 1e-2


def test_an_adapter_gives_torchs_greedy_tokens(trained, graphs):
    graph, ours, tokens = graphs["optional"], list(trained.ids), list(PROMPT)
    for _ in range(8):
        ours.append(int(graph.logits([ours], trained.past, trained.inputs)[0, -1].argmax()))
        tokens.append(int(trained.torch_logits(tokens)[-1].argmax()))
    assert ours[len(trained.ids) :] == tokens[len(PROMPT) :]


def test_an_adapter_can_be_fed_where_inputs_have_no_defaults(trained, graphs):
    graph = graphs["required"]
    nothing = {name: neutral(name, shape) for name, shape in graph.manifest.tensors.items()}
    assert graph.session.get_overridable_initializers() == []
    ours = graph.logits([trained.ids], trained.past, {**nothing, **trained.inputs})
    assert difference(trained, graph, ours) <= 1e-4


def test_an_adapter_in_one_row_of_a_batch_leaves_the_other_rows_alone(trained, graphs):
    graph = graphs["rows"]
    if trained.past:
        # Its own prefix in one row, another in the other; onnxruntime reads such a batch token by token.
        past = {name: np.concatenate([-array, array]) for name, array in trained.past.items()}
        inputs = {name: np.stack([array, array]) for name, array in trained.inputs.items()}
        ours = graph.step_by_step([trained.ids] * 2, past, inputs)
        assert difference(trained, graph, ours[1:]) <= 1e-4
        assert difference(trained, graph, ours[:1]) > 1e-2
        return
    stacked = {
        name: np.stack([neutral(name, tuple(array.shape)), array, neutral(name, tuple(array.shape))])
        for name, array in trained.inputs.items()
    }
    ours = graph.logits([trained.ids] * 3, inputs=stacked)
    assert difference(trained, graph, ours[1:2]) <= 1e-4
    if "soft_prompt" not in trained.inputs:
        alone = graph.logits([trained.ids])
        assert np.abs(ours[[0, 2]] - alone).max() <= 1e-5
        assert difference(trained, graph, ours[:1]) > 1e-2


def test_one_adapter_serves_a_whole_batch_of_rows(trained, graphs):
    graph = graphs["rows"]
    inputs = {name: array[None] for name, array in trained.inputs.items()}
    if trained.past:
        ours = graph.logits([trained.ids], trained.past, inputs)
    else:
        ours = graph.logits([trained.ids] * 2, inputs=inputs)
        assert np.abs(ours[0] - ours[1]).max() <= 1e-5
    assert difference(trained, graph, ours[:1]) <= 1e-4


@pytest.mark.parametrize("variant", ["optional", "rows"])
def test_a_graph_with_every_site_is_the_base_when_nothing_is_filled(bare, graphs, variant):
    ours = graphs[variant].logits([PROMPT] * 3)
    with torch.no_grad():
        expected = bare(input_ids=torch.tensor([PROMPT])).logits.numpy()
    assert np.abs(ours - expected).max() <= 1e-4


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "expert_mixture"}, "router"),
        ({"name": "unipelt"}, "gates"),
        ({"name": "diff_pruning"}, "whole matrix; export it merged"),
    ],
)
def test_a_method_without_a_place_is_refused_with_the_reason(base, settings, reason):
    attached = Attached(load_base("keyboard", "float32"), parse_method(settings), None, seed=0)
    with pytest.raises(AdapterError, match=reason):
        fill(attached.adapter(SHARED, attached.initial[SHARED]), Ground(base))


def test_frozen_factors_of_another_seed_are_noticed(base):
    attached = Attached(load_base("keyboard", "float32"), parse_method({"name": "fed_sb"}), None, seed=4)
    with pytest.raises(AdapterError, match="export it from its run"):
        fill(attached.adapter(SHARED, attached.initial[SHARED]), Ground(base, seed=5))


def test_a_base_without_the_sites_says_which_to_export_it_with(base, exported, tmp_path):
    attached = Attached(load_base("keyboard", "float32"), parse_method({"name": "bitfit"}), None, seed=0)
    adapter = attached.adapter(SHARED, attached.initial[SHARED])
    with pytest.raises(AdapterError, match="--sites lora,bias"):
        export_adapter(adapter, tmp_path / "ada", owner="ada", base=exported.manifest, key=KEY)
    assert list(tmp_path.iterdir()) == []
