"""A site built once with two people's adapters, a real Chromium on it, and what Python's runtime makes of the same graph."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from fedpeft.adapters import Adapter, Schema
from fedpeft.base import load_base
from fedpeft.device import LoadedAdapter, Manifest, Runtime
from fedpeft.device.bundle import GRAPH, TOKENIZER, hash_files, seal
from fedpeft.device.folders import adapter_folder, base_folder
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.adapter import write_onnx_adapter
from fedpeft.export.graph import add_defaults
from fedpeft.export.run import signing_key
from fedpeft.scenario import load_scenario
from fedpeft.signing.signature import SigningKey
from fedpeft.web import Server, build_site, built_page
from fedpeft.web.browser import launch

PEOPLE = ("ada", "bob", "cleo", "dan", "eve")
"""Two LoRAs, one of them in float16; a prefix; a soft prompt; and the first again with another seed."""
DEVIATION = 0.12
"""Of the numbers in A and B: enough that no two people get the same words."""


Floats = dict[str, NDArray[np.float32]]


def random_adapter(base: Manifest, seed: int, deviation: float = DEVIATION) -> Adapter:
    """Make a LoRA of rank 4 on every linear layer."""
    shapes = {
        f"base_model.model.{name}": tuple(4 if n is None else n for n in reversed(shape))
        for name, shape in base.tensors.items()
        if ".lora_" in name
    }
    schema = Schema.of(shapes)
    vector = np.random.default_rng(seed).normal(0, deviation, schema.size).astype(np.float32)
    return Adapter(schema, vector, {"peft_type": "LORA", "r": 4, "lora_alpha": 16}, base.base_fingerprint)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A finished and exported run of two people."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    folder.mkdir()
    scenario = load_scenario(repository / "simulations" / "keyboard.toml")
    (folder / "scenario.json").write_text(json.dumps(scenario.model_dump(mode="json")))
    key = signing_key(folder)
    options = ExportOptions(sites=frozenset({"lora", "prompt"}))
    base = export_base(load_base("keyboard"), base_folder(folder), key=key, options=options)
    numbers: dict[str, Literal["float32", "float16"]] = {"ada": "float32", "bob": "float16", "eve": "float32"}
    for seed, (owner, kind) in enumerate(numbers.items()):
        adapter, out = random_adapter(base, seed), adapter_folder(folder, owner)
        export_adapter(adapter, out, owner=owner, base=base, key=key, numbers=kind)
    assert base.decoder
    random = np.random.default_rng(0)
    past = (1, base.decoder.kv_heads, 5, base.decoder.head_dim)
    parts = [f"past_key_values.{i}.{part}" for i in range(base.decoder.layers) for part in ("key", "value")]
    prefix = {name: random.normal(0, 1, past).astype(np.float32) for name in parts}
    handmade(adapter_folder(folder, "cleo"), base, key, prefix={**prefix}, values={})
    prompt = random.normal(0, 0.5, (4, 256)).astype(np.float32)
    handmade(adapter_folder(folder, "dan"), base, key, prefix={}, values={"soft_prompt": prompt})
    return folder


def handmade(out: Path, base: Manifest, key: SigningKey, prefix: Floats, values: Floats) -> None:
    """Write an adapter bundle of a method that only acts before the text."""
    out.mkdir(parents=True)
    for name, arrays in (("prefix.onnx_adapter", prefix), ("adapter.onnx_adapter", values)):
        if arrays:
            write_onnx_adapter(arrays, out / name)
    manifest = Manifest(
        kind="adapter",
        base_fingerprint=base.base_fingerprint,
        signer=base.signer,
        name=out.name,
        method="by hand",
        files=hash_files(out),
        tensors={name: array.shape for name, array in values.items()},
    )
    seal(out, manifest, key)


@pytest.fixture(scope="session")
def site(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(run, tmp_path_factory.mktemp("site") / "site", PEOPLE, built_page()).folder


@pytest.fixture
def site_copy(site: Path, tmp_path: Path) -> Path:
    return shutil.copytree(site, tmp_path / "site")


@dataclass(frozen=True)
class Reference:
    """Python's runtime on the very graph that the browser runs, its sites made optional."""

    runtime: Runtime
    loaded: dict[str, LoadedAdapter | None]

    def suggest(self, typed: str, who: str) -> list[tuple[str, float]]:
        return [(s.word, s.probability) for s in self.runtime.suggest(typed, self.loaded[who])]

    def complete(self, typed: str, who: str) -> str:
        return self.runtime.complete(typed, self.loaded[who], tokens=32)


@pytest.fixture(scope="session")
def reference(run: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    key, source, out = signing_key(run), site / "bundles" / "base", tmp_path_factory.mktemp("optional")
    manifest = Manifest.from_json((source / "manifest.json").read_bytes(), "base")
    model = ir.load(source / GRAPH)
    add_defaults(model, manifest.tensors)
    ir.save(model, out / GRAPH)
    shutil.copyfile(source / TOKENIZER, out / TOKENIZER)
    seal(out, manifest.model_copy(update={"variant": "optional", "files": hash_files(out)}), key)
    runtime = Runtime(out)
    loaded = {owner: runtime.load(adapter_folder(run, owner)) for owner in PEOPLE}
    return Reference(runtime, {"base": None, **loaded})


def serve(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[Server]:
    yield from serve(site)


@pytest.fixture
def other_server(site_copy: Path) -> Iterator[Server]:
    """Serve a copy of the site, which a test may damage."""
    yield from serve(site_copy)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = launch(playwright)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def loaded_page(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context()
    yield opened(context.new_page(), server)
    context.close()


@pytest.fixture
def page(loaded_page: Page) -> Page:
    """The page, loaded with everybody, with nothing written."""
    loaded_page.set_viewport_size({"width": 1280, "height": 740})
    typed(loaded_page, "")
    chosen(loaded_page, "ada")
    return loaded_page


def opened(page: Page, server: Server) -> Page:
    page.goto(server.address)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    return page


def shown(page: Page) -> list[tuple[str, float]]:
    """Return the suggested words and their probabilities."""
    return [
        (button.locator(".word").inner_text(), float(button.get_attribute("data-probability") or "nan"))
        for button in page.locator("#words button").all()
    ]


def settled(page: Page) -> None:
    """Wait until the words on the screen belong to the text on the screen."""
    page.wait_for_selector("#words[data-state=current]", state="attached", timeout=20_000)


def typed(page: Page, text: str) -> list[tuple[str, float]]:
    """Put a text into the message and return what is suggested for it."""
    page.locator("#message").fill(text)
    settled(page)
    return shown(page)


def chosen(page: Page, who: str) -> None:
    page.locator(f"label:has(#who-{who})").click()
    settled(page)
