"""Sixty-four people at once, each with an adapter of their own: how long they wait, and who answers them.

The service is a process of its own, reached over loopback as a phone would reach it. What each person must be told is
known beforehand from :class:`fedpeft.device.Runtime`, which runs one text at a time on another graph; answers are
compared letter by letter. The rival is the same service that writes one text at a time.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedpeft.base import load_base
from fedpeft.bench.result import Result
from fedpeft.bench.serve_people import make_run
from fedpeft.device.folders import adapter_folder, base_folder
from fedpeft.device.runtime import Runtime
from fedpeft.errors import ServeError
from fedpeft.serve.tokens import TokenStore, tokens_file
from fedpeft.signing.signature import SigningKey

PEOPLE, SLOTS, THREADS = 64, 16, 1
TOKENS = 24
PROMPTS = ("I am", "so what do you", "the weather", "do you like", "my family and", "yesterday we went")
_ADDRESS = re.compile(r"at http://127\.0\.0\.1:(\d+)/v1")


@dataclass(frozen=True)
class Call:
    """One request and what must come back."""

    person: str
    token: str
    prompt: str
    expected: str


def run(full: bool) -> Result:
    """Measure.

    Parameters
    ----------
    full : bool
        Every prompt from everybody instead of two.

    Returns
    -------
    Result
        ``p50_ms`` and ``p99_ms`` of a request while everybody asks, ``wrong_adapter`` answers that are not the ones
        of that person's adapter, ``tokens_per_s`` of all together.
    """
    with TemporaryDirectory(prefix="fedpeft-serve-") as folder:
        place = Path(folder) / "run"
        names = make_run(place, load_base("keyboard"), PEOPLE, SigningKey.generate())
        started = time.perf_counter()
        calls = _calls(place, names, PROMPTS if full else PROMPTS[:2])
        alone = time.perf_counter() - started
        with _service(place, SLOTS) as port:
            ours = _load(port, calls)
        with _service(place, 1) as port:
            theirs = _load(port, calls)
    ratio = ours["tokens_per_s"] / theirs["tokens_per_s"]
    size = {"people": PEOPLE, "adapters": PEOPLE, "slots": SLOTS, "requests": len(calls), "tokens": TOKENS}
    rival = {"name": "the same service with --slots 1, one text at a time", **theirs}
    rival["runtime_alone_s"] = round(alone, 2)
    return Result({**ours, "speedup": round(ratio, 2), **size}, rival)


def _calls(run: Path, names: Sequence[str], prompts: Sequence[str]) -> list[Call]:
    """Return what everybody asks, and what they must be told."""
    runtime, store = Runtime(base_folder(run)), TokenStore(tokens_file(run))
    calls, told = [], {tuple(runtime.complete(prompt, tokens=TOKENS) for prompt in prompts)}
    for name in names:
        adapter = runtime.load(adapter_folder(run, name))
        _, token = store.add(name, frozenset([name]))
        answers = [runtime.complete(prompt, adapter, tokens=TOKENS) for prompt in prompts]
        calls += [Call(name, token, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        told.add(tuple(answers))
    if len(told) != len(names) + 1:
        raise RuntimeError("two adapters, or one and the base, say the same: a mistake could not be seen")
    return calls


@contextmanager
def _service(run: Path, slots: int) -> Iterator[int]:
    """Start the service and yield its port."""
    command = [sys.executable, "-m", "fedpeft", "serve", "--run", str(run), "--port", "0", "--slots", str(slots)]
    command += ["--threads", str(THREADS), "--queue", str(2 * PEOPLE)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield _port(process)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _port(process: subprocess.Popen[str]) -> int:
    said = ""
    for line in process.stderr or ():
        said += line.strip() + " "
        if found := _ADDRESS.search(said):
            return int(found[1])
    raise ServeError("fedpeft serve", said, "a service that starts")


def _load(port: int, calls: Sequence[Call]) -> dict[str, float]:
    """Let everybody ask at once, each one request after the other."""
    by_person: dict[str, list[Call]] = {}
    for call in calls:
        by_person.setdefault(call.person, []).append(call)
    with ThreadPoolExecutor(PEOPLE) as pool:
        list(pool.map(lambda mine: _ask(port, mine[:1]), by_person.values()))  # adapters are read once
        started = time.perf_counter()
        answers = [answer for mine in pool.map(lambda own: _ask(port, own), by_person.values()) for answer in mine]
        seconds = time.perf_counter() - started
    waits = [1e3 * wait for wait, _, _ in answers]
    return {
        "p50_ms": round(float(np.percentile(waits, 50)), 1),
        "p99_ms": round(float(np.percentile(waits, 99)), 1),
        "wrong_adapter": sum(not right for _, right, _ in answers),
        "tokens_per_s": round(sum(tokens for _, _, tokens in answers) / seconds, 1),
    }


def _ask(port: int, calls: Sequence[Call]) -> list[tuple[float, bool, int]]:
    """Return for each request: seconds, whether the answer is the person's own, tokens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    found = []
    for call in calls:
        body = {"model": call.person, "prompt": call.prompt, "temperature": 0, "max_tokens": TOKENS}
        headers = {"Authorization": f"Bearer {call.token}", "Content-Type": "application/json"}
        started = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - started
        if response.status != 200:
            raise ServeError("answer", f"{response.status} {content[:200]!r}", "200")
        answer = json.loads(content)
        right = answer["choices"][0]["text"] == call.expected
        found.append((seconds, right, answer["usage"]["completion_tokens"]))
    connection.close()
    return found
