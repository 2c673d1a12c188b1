"""A run folder as the federation layer writes it, from numbers that the tests know."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpeft.report.record import BaseCard, Person, Run, Score

CONTROLS = ("base", "global", "personal", "local", "wrong_user")
METRICS = ("loss", "top1", "top3", "keystrokes_saved")
BASE_BYTES = 8_649_216
RUN = Run("r", "finished", "inprocess", BaseCard("b", "f" * 64, 10, 40), 4, 3)

SCENARIO = {
    "name": "keyboard",
    "seed": 0,
    "base": {"name": "keyboard", "quantize": "none"},
    "method": {"name": "lora", "rank": 8, "alpha": 16.0, "targets": ["q_proj", "v_proj"]},
    "rounds": {"count": 12, "cohort": 16, "minimum": 8},
    "channel": {"name": "pairwise", "bits": 20},
}
ENVIRONMENT = {"python": "3.11.9", "torch": "2.9.1+cpu", "machine": {"cpu": "x86_64", "cores": 2}}
DATA = {
    "federation": "keyboard",
    "clients": 64,
    "split": {"validation": 0.15, "test": 0.15, "by": "time"},
    "tokens": {"train": 512_345, "validation": 101_202, "test": 99_871},
    "messages": 61_204,
}
PROMPTS = ["on my way, see you", "do you want to", "that is so"]
COMPLETIONS = {
    "base": ["there lol", "go to the", "cool and i"],
    "global": ["in a bit :)", "come over later?", "true haha"],
    "user-07": ["at the gym in 10", "grab ramen tonight", "wholesome omg"],
    "user-21": ["soon, love.", "ring me later", "lovely, thank you"],
}


@dataclass(frozen=True)
class Truth:
    """The numbers in a synthetic run: by control and metric, one value per person."""

    clients: list[str]
    scores: dict[str, dict[str, np.ndarray]]
    gates: np.ndarray
    bytes_up: list[int]
    bytes_down: list[int]

    def mean(self, control: str, metric: str) -> float:
        return float(np.mean(self.scores[control][metric]))


def draw(people: int, rounds: int = 12, seed: int = 0) -> Truth:
    """Draw people whose personal adapters mostly help; a few gates stay shut and a few people are harmed."""
    rng = np.random.default_rng(seed)
    base = rng.normal(4.15, 0.25, people)
    globally = base - rng.normal(0.22, 0.06, people)
    gates = np.where(rng.random(people) < 0.12, 0.0, np.round(rng.uniform(0.25, 1.0, people), 2))
    gain = np.where(gates == 0.0, 0.0, rng.gamma(1.6, 0.04, people) - 0.018)
    losses = {
        "base": base,
        "global": globally,
        "personal": globally - gain,
        "local": base - 0.7 * gain - rng.normal(0.07, 0.03, people),
        "wrong_user": globally + rng.normal(0.04, 0.02, people),
    }
    scores = {}
    for control, loss in losses.items():
        top3 = np.clip(1.07 - 0.175 * loss + rng.normal(0, 0.006, people), 0.02, 0.98)
        scores[control] = {
            "loss": loss, "top1": top3 * 0.58, "top3": top3, "keystrokes_saved": top3 * 0.62,
        }  # fmt: skip
    up = [120_412 + int(n) for n in rng.integers(0, 900, rounds)]
    down = [60_200] + [120_412] * (rounds - 1)
    return Truth([f"user-{i:02d}" for i in range(people)], scores, gates, up[:rounds], down[:rounds])


def people_of(truth: Truth) -> tuple[Person, ...]:
    """The people as values, without any file."""
    return tuple(
        Person(
            client=client,
            gate=float(truth.gates[i]),
            steps=60,
            messages=300,
            test={c: Score(*(float(truth.scores[c][m][i]) for m in METRICS), 9) for c in CONTROLS},
        )
        for i, client in enumerate(truth.clients)
    )


def person_lines(truth: Truth) -> list[dict]:
    lines = []
    for i, client in enumerate(truth.clients):
        test = {}
        for control in CONTROLS:
            score = {metric: float(truth.scores[control][metric][i]) for metric in METRICS}
            test[control] = {**score, "perplexity": float(np.exp(score["loss"])), "tokens": 1200 + 7 * i}
        other = truth.clients[(i + 1) % len(truth.clients)]
        lines.append({
            "client": client, "gate": float(truth.gates[i]), "wrong_user": other, "steps": 60,
            "messages": 300 + 11 * i, "test": test,
        })  # fmt: skip
    return lines


def round_lines(truth: Truth, burnt: int | None = None) -> list[dict]:
    rng = np.random.default_rng(sum(truth.bytes_up))
    lines = [{"round": 0, "validation": _validation(4.16 + rng.normal(0, 0.01))}]
    for i, (up, down) in enumerate(zip(truth.bytes_up, truth.bytes_down, strict=True), start=1):
        line = {
            "round": i, "cohort": truth.clients[:16], "contributors": 15, "failures": 1,
            "train_loss": 4.2 - 0.02 * i, "update_norm": 0.8 / i, "quantization_error": 0.0004 + 1e-5 * i,
            "clipped": 0.06, "bytes_up": up, "bytes_down": down, "seconds": 14.5,
            "validation": _validation(3.93 + 0.23 * float(np.exp(-i / 3.5)) + rng.normal(0, 0.006)),
        }  # fmt: skip
        if i == burnt:
            line = {**line, "burnt": True, "contributors": 5, "failures": 11, "quantization_error": None}
        lines.append(line)
    return lines


def _validation(loss: float) -> dict:
    top3 = 1.07 - 0.175 * loss
    return {
        "loss": loss, "perplexity": float(np.exp(loss)), "top1": top3 * 0.58, "top3": top3,
        "keystrokes_saved": top3 * 0.62, "tokens": 20_480,
    }  # fmt: skip


def write_run(folder: Path, truth: Truth, status: str = "finished", burnt: int | None = None) -> Path:
    """Write the whole folder, file by file."""
    folder.mkdir(parents=True, exist_ok=True)
    run = {
        "name": folder.name, "started": "2026-03-02T10:15:00+00:00", "seconds": 192.4, "status": status,
        "engine": "inprocess", "adapter_parameters": 116_736, "schema_digest": "5d41402abc4b2a76" * 4,
        "clients": len(truth.clients) + 1,
        "base": {
            "name": "keyboard", "fingerprint": "9f86d081884c7d65" * 4, "parameters": BASE_BYTES // 4,
            "float32_bytes": BASE_BYTES, "dtype": "float32",
        },
    }  # fmt: skip
    completions = [
        {
            "who": who,
            "texts": texts,
            "suggestions": [["a", "the", "it"], ["me", "you", "to"], ["so", "!", "haha"]],
        }
        for who, texts in COMPLETIONS.items()
    ]
    write_json(folder / "run.json", run)
    write_json(folder / "scenario.json", SCENARIO)
    (folder / "scenario.toml").write_text('name = "keyboard"\nseed = 0\n\n[method]\nname = "lora"\nrank = 8\n')
    write_json(folder / "environment.json", ENVIRONMENT)
    write_json(folder / "data.json", DATA)
    write_lines(folder / "metrics.jsonl", round_lines(truth, burnt))
    write_lines(folder / "people.jsonl", person_lines(truth))
    write_json(folder / "skipped.json", [{"client": "user-99", "reason": "no test text"}])
    write_json(folder / "samples.json", {"prompts": PROMPTS, "completions": completions})
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def edit_json(path: Path, **changes: object) -> None:
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})
