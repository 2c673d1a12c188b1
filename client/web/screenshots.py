"""Take the pictures of docs/web.md: python client/web/screenshots.py SITE docs/images."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from fedpeft.web import Server
from fedpeft.web.browser import launch

SIZES = {"desktop": (1180, 800), "phone": (390, 844)}
TEXT = "haha yeah I "
SETTLED_MS = 1500


def take(site: Path, out: Path) -> None:
    """Write web-desktop-light.png and its three siblings."""
    out.mkdir(parents=True, exist_ok=True)
    with Server(site) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = launch(playwright)
        for size, (width, height) in SIZES.items():
            context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=1)
            page = context.new_page()
            page.goto(server.address)
            page.wait_for_selector("body[data-ready]", timeout=60_000)
            page.locator("#message").press_sequentially(TEXT, delay=120)
            page.wait_for_timeout(SETTLED_MS)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.wait_for_timeout(SETTLED_MS)
                page.screenshot(path=out / f"web-{size}-{scheme}.png", full_page=size == "phone")
            context.close()
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
