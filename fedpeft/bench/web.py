"""The browser client in headless Chromium: milliseconds from a key to the words, seconds and bytes of a first load.

The base ``keyboard`` with one LoRA of rank 8 on every linear layer. Keys come as a quick typist's do, one every
120 ms; a word's time is that of its keystroke, from the event to the words on the screen, the worker's turn included.
The rival is the same page with the base that multiplies in int8 (dynamic quantization), and with the float32 one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from fedpeft.adapters import Adapter, Schema
from fedpeft.base import load_base
from fedpeft.bench.result import Result
from fedpeft.export import export_adapter, export_base
from fedpeft.signing.signature import SigningKey
from fedpeft.web import Server, built_page
from fedpeft.web.browser import launch
from fedpeft.web.site import Ground, write_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TEXT = "I was thinking about you and what we could do next week, maybe go to the beach or "
QUICK = TEXT[:45]
PAUSE_MS = 120
RANK, ALPHA, DEVIATION = 8, 16.0, 0.05
Figures = dict[str, float]


def run(full: bool) -> Result:
    """Measure.

    Parameters
    ----------
    full : bool
        Type a longer text four times, and the float32 base too.

    Returns
    -------
    Result
        ``suggest_ms`` is the median over keystrokes, ``suggest_p95_ms`` their 95th percentile, ``switch_ms`` from
        choosing another person to their words. ``load_ms`` is from an empty cache to ready, on loopback, compressed;
        ``again_ms`` from the service worker's. ``transfer_bytes`` is what the server sent for it. ``memory_mb`` is the
        page's and its worker's, as the browser itself measures them.
    """
    from playwright.sync_api import sync_playwright

    texts = [TEXT] * 4 if full else [QUICK]
    with TemporaryDirectory(prefix="fedpeft-bench-") as name, sync_playwright() as playwright:
        sites = _sites(Path(name), ("int8", "dynamic-int8", *(("float32",) if full else ())))
        browser = launch(playwright)
        found = {weights: _measure(browser, folder, texts) for weights, folder in sites.items()}
        browser.close()
    ours, rival = found["int8"], found["dynamic-int8"]
    plain = {f"float32_{key}": value for key, value in found.get("float32", {}).items()}
    return Result({**ours}, {"name": "dynamic int8 base", **rival, **plain})


def _sites(folder: Path, kinds: tuple[str, ...]) -> dict[str, Path]:
    """Write one folder per kind of weights, with one person in each."""
    base, key = load_base("keyboard"), SigningKey.generate()
    manifest = export_base(base, folder / "base", key=key)
    shapes = {
        f"base_model.model.{name}": tuple(RANK if n is None else n for n in reversed(shape))
        for name, shape in manifest.tensors.items()
    }
    schema = Schema.of(shapes)
    vector = np.random.default_rng(0).normal(0, DEVIATION, schema.size).astype(np.float32)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}
    adapter = Adapter(schema, vector, config, base.fingerprint)
    export_adapter(adapter, folder / "ada", owner="ada", base=manifest, key=key)
    page, sites = built_page(), {kind: folder / kind for kind in kinds}
    for kind, out in sites.items():
        out.mkdir()
        write_site(out, page, Ground(base, key), {"ada": folder / "ada"}, kind)
    return sites


def _measure(browser: Browser, site: Path, texts: list[str]) -> Figures:
    with _serving(site) as server:
        context = browser.new_context()
        page = context.new_page()
        figures = {"load_ms": _load(page, server), "transfer_bytes": float(server.sent)}
        _type(page, TEXT[:10])  # browsers compile twice, the second time for speed
        keys = [ms for text in texts for ms in _type(page, text)]
        figures |= {"suggest_ms": median(keys), "suggest_p95_ms": quantiles(keys, n=20)[-1]}
        figures["switch_ms"] = median(_switch(page) for _ in range(10))
        memory = "performance.measureUserAgentSpecificMemory().then((m) => m.bytes)"
        figures["memory_mb"] = page.evaluate(memory) / 1e6
        page.close()
        figures["again_ms"] = _load(context.new_page(), server)
        context.close()
    return {name: round(value, 2) for name, value in figures.items()}


@contextmanager
def _serving(site: Path) -> Iterator[Server]:
    with Server(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def _load(page: Page, server: Server) -> float:
    page.goto(server.address)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    return float(page.evaluate("document.body.dataset.loadMs"))


def _type(page: Page, text: str) -> list[float]:
    """Type a text into an empty message; milliseconds from each key whose words reached the screen."""
    page.locator("#message").fill("")
    _settle(page)
    page.evaluate("performance.clearMeasures()")
    page.locator("#message").press_sequentially(text, delay=PAUSE_MS)
    _settle(page)
    return _measured(page)


def _switch(page: Page) -> float:
    page.evaluate("performance.clearMeasures()")
    page.locator("#people label:has(input:not(:checked))").first.click()
    _settle(page)
    return _measured(page)[-1]


def _settle(page: Page) -> None:
    page.wait_for_selector("#words[data-state=current]", state="attached", timeout=20_000)


def _measured(page: Page) -> list[float]:
    found: list[float] = page.evaluate("performance.getEntriesByName('suggest').map((e) => e.duration)")
    return found
