"""The benchmark's figures, and that it would see a wrong adapter."""

from dataclasses import replace

from fedpeft.bench import serve as bench


def test_a_small_benchmark_has_its_figures_and_no_wrong_adapter(monkeypatch):
    monkeypatch.setattr(bench, "PEOPLE", 5)
    monkeypatch.setattr(bench, "SLOTS", 3)
    result = bench.run(full=False)
    assert result.figures["wrong_adapter"] == result.rival["wrong_adapter"] == 0
    assert 0 < result.figures["p50_ms"] <= result.figures["p99_ms"]
    assert result.figures["requests"] == 10
    assert result.figures["tokens_per_s"] > 0


def test_an_answer_of_somebody_elses_adapter_is_counted(served, people):
    port = int(served.url.rsplit(":", 1)[1])
    names = ["person01", "person02"]
    told = {name: people.complete(name, "I am", tokens=bench.TOKENS) for name in names}
    assert told["person01"] != told["person02"]
    calls = [bench.Call(name, people.tokens[name], "I am", told[name]) for name in names]
    assert bench._load(port, calls)["wrong_adapter"] == 0
    mixed = [replace(calls[0], expected=told["person02"]), calls[1]]
    assert bench._load(port, mixed)["wrong_adapter"] == 1
