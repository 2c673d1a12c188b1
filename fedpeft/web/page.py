"""The page itself: ``client/web`` of a checkout, built by npm once and again whenever its sources are newer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from fedpeft.errors import WebError

SOURCES = Path(__file__).resolve().parents[2] / "client" / "web"
_INPUTS = ("index.html", "package-lock.json", "tsconfig.json", "vite.config.ts", "src", "public")
_LAST_LINES = 5


def built_page(sources: Path = SOURCES) -> Path:
    """Return the folder of the built page, building it where that is due.

    Parameters
    ----------
    sources : Path
        With ``package.json``, or a page that is built already (``index.html`` and ``sw.js``).

    Raises
    ------
    WebError
        When there are no sources, npm is absent, or the build fails.
    """
    if (sources / "sw.js").is_file():
        return sources
    if not (sources / "package.json").is_file():
        raise WebError("page", str(sources), "client/web of a checkout of fedpeft", "say where it is with --page")
    built = sources / "dist"
    if _is_current(sources, built):
        return built
    npm = shutil.which("npm")
    if npm is None:
        raise WebError(
            "npm",
            "none",
            "node 20 or newer with npm, to build the page",
            "install it, or give a built page with --page",
        )
    if not (sources / "node_modules" / ".package-lock.json").is_file():
        _run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], sources)
    _run([npm, "run", "build"], sources)
    return built


def _is_current(sources: Path, built: Path) -> bool:
    page = built / "index.html"
    if not page.is_file():
        return False
    listed = [path for name in _INPUTS for path in (sources / name, *(sources / name).rglob("*"))]
    return page.stat().st_mtime >= max(path.stat().st_mtime for path in listed if path.is_file())


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:])
        name = " ".join(["npm", *command[1:]])
        raise WebError(f"{name} in {folder}", said, "a build that succeeds", "npm's own output says more")
