"""A run of many people, and the service on a real port, with uvicorn in a thread of this process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Thread

import httpx
import pytest

from fedpeft.base import load_base
from fedpeft.bench.serve_people import make_run
from fedpeft.device import Runtime
from fedpeft.device.folders import adapter_folder, base_folder
from fedpeft.serve.app import Api
from fedpeft.serve.https import Server, listen
from fedpeft.serve.limits import Limits
from fedpeft.serve.server import configuration
from fedpeft.serve.service import Service
from fedpeft.serve.tokens import TokenStore, tokens_file
from fedpeft.signing.signature import SigningKey

PEOPLE = 64


@dataclass
class People:
    """A run, its people's tokens, and what a runtime that serves one text at a time says for them."""

    run: Path
    tokens: dict[str, str]
    runtime: Runtime

    @cached_property
    def endless(self) -> str:
        """Somebody whose text does not end by itself."""
        ids = self.runtime.text.begin("I am", room=99)
        for name in self.tokens:
            adapter = self.runtime.load(adapter_folder(self.run, name))
            if len(list(self.runtime.generate(ids, adapter, tokens=490))) == 490:
                return name
        raise AssertionError("everybody ends")

    def complete(self, name: str, prompt: str, **settings) -> str:
        adapter = None if name == "base" else self.runtime.load(adapter_folder(self.run, name))
        return self.runtime.complete(prompt, adapter, **settings)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    run = tmp_path_factory.mktemp("serve") / "run"
    names = make_run(run, load_base("keyboard"), PEOPLE, SigningKey.from_private_bytes(bytes(32)))
    store = TokenStore(tokens_file(run))
    tokens = {name: store.add(name, frozenset({name}))[1] for name in names}
    tokens["both"] = store.add("both", frozenset({"person00", "base", "nobody"}))[1]
    tokens["operator"] = store.add("operator", frozenset(), operator=True)[1]
    return People(run, tokens, Runtime(base_folder(run)))


@dataclass
class Running:
    """A service that answers."""

    service: Service
    server: Server
    url: str
    tokens: dict[str, str]

    def client(self, user: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def post(self, as_user: str, path: str, /, **body) -> httpx.Response:
        with self.client(as_user) as client:
            return client.post(path, json=body)


@contextmanager
def running(people: People, limits: Limits) -> Iterator[Running]:
    sock = listen("127.0.0.1", 0)
    service = Service(people.run, limits)
    api = Api(service)
    server = Server(configuration(api), api.drain)
    thread = Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Running(service, server, f"http://127.0.0.1:{sock.getsockname()[1]}", people.tokens)
    finally:
        server.should_exit = True
        thread.join()
        assert not service.scheduler.alive


@pytest.fixture(scope="session")
def served(people: People) -> Iterator[Running]:
    """The service as it is by default, with room for all."""
    with running(people, Limits(slots=16, queue=256)) as found:
        yield found


@pytest.fixture
def serve_with(people: People) -> Iterator[Callable[[Limits], Running]]:
    """Return a way to start a service with limits of one's own."""
    stack = []

    def start(limits: Limits) -> Running:
        context = running(people, limits)
        stack.append(context)
        return context.__enter__()

    yield start
    for context in stack:
        context.__exit__(None, None, None)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


@pytest.fixture
def wait() -> Callable[..., bool]:
    return eventually
