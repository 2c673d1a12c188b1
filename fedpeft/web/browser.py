"""A headless Chromium for tests, screenshots and figures, driven by Playwright (of the extra ``dev``)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from fedpeft.errors import WebError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

_FLAGS = (
    "--no-sandbox",  # the machines of CI are root's
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-blink-features=ForceEagerMeasureMemory",  # or it takes its time, up to 20 s
)


def launch(playwright: Playwright) -> Browser:
    """Start the machine's own Chromium; none is ever downloaded.

    Raises
    ------
    WebError
        When there is none.
    """
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise WebError("browser", "none", "Chromium on the PATH", "apt-get update && apt-get install -y chromium")
    return playwright.chromium.launch(executable_path=found, args=list(_FLAGS))
