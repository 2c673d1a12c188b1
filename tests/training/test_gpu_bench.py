"""The benchmark for GPUs: its way is walked by the processor, and with a pretended device; figures need a real one."""

import json

import pytest
import torch
from typer.testing import CliRunner

from fedpeft.bench import gpu
from fedpeft.cli.app import app
from fedpeft.errors import FedpeftError

from .pretend import pretended


def test_the_processor_walks_the_same_way_with_a_tiny_model():
    done = CliRunner().invoke(app, ["bench", "gpu", "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["figures"]["device"] == "cpu"
    assert told["figures"]["tokens_per_s_tiny_nf4"] > 0
    ratio = told["figures"]["tokens_per_s_tiny_bf16"] / told["rival"]["tokens_per_s"]
    assert told["figures"]["tokens_per_s_ratio_tiny_bf16"] == pytest.approx(ratio)


def test_a_device_gets_both_shapes_and_its_memory_is_read(monkeypatch):
    monkeypatch.setattr(gpu, "SHAPES", {"135m": gpu._TINY["tiny"], "1b": gpu._TINY["tiny"]})
    waited = []
    for name, answer in {
        "synchronize": waited.append,
        "reset_peak_memory_stats": lambda _: None,
        "max_memory_allocated": lambda _: 2_500_000_000,
        "get_device_name": lambda _: "pretended",
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    with pretended(monkeypatch):
        figures = gpu.run().figures
    assert figures["device"] == "pretended"
    assert figures["peak_gb_1b_nf4"] == 2.5
    assert figures["peak_gb_ratio_135m_bf16"] == 1.0
    assert not any("ratio_1b" in name for name in figures)
    assert len(waited) == 2 * (1 + 2 * 2)


def test_without_a_device_there_is_one_line_that_says_so():
    with pytest.raises(FedpeftError, match="bench gpu: found 'device cuda', expected a CUDA device that torch sees"):
        gpu.run()


def test_a_device_is_for_this_benchmark_alone():
    done = CliRunner().invoke(app, ["bench", "ring", "--device", "cpu"])
    assert isinstance(done.exception, FedpeftError)
    assert "only the benchmark gpu takes a device" in str(done.exception)


def test_the_large_shape_has_a_billion_parameters_and_the_small_one_smollm2s():
    with torch.device("meta"):
        models = {name: gpu._model(shape, torch.bfloat16) for name, shape in gpu.SHAPES.items()}
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert sizes["135m"] == 134_515_008
    assert 1.0e9 < sizes["1b"] < 1.2e9
