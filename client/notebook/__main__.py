"""``python -m client.notebook --home me``: begins where it ended, over the base and the adapter of a run."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from contextlib import closing
from pathlib import Path

from client.notebook.keyboard import lines
from client.notebook.notebook import Notebook
from client.notebook.together import together
from fedpeft.cli.edge import torch_trainer
from fedpeft.device import EdgeClient, find_run
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.membership import Membership
from fedpeft.device.edge.policy import Policy
from fedpeft.device.folders import EVERYBODY, LATEST, adapter_folder, base_folder
from fedpeft.errors import FedpeftError
from fedpeft.gate import enrol


def main() -> int:
    """Run until the input ends; return the exit code."""
    options = _options()
    # Libraries announce missing optional kernels; that is no concern of who writes.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    try:
        if options.token:
            enrol(options.home, options.token)
        client = _client(options)
        if Membership.find(Home(options.home).federation) is None:
            _converse(Notebook(client, torch_trainer, options.every))
        else:
            with together(client, _say):
                _converse(Notebook(client, torch_trainer, options.every))
    except FedpeftError as error:
        print(f"error {error}", file=sys.stderr)
        return 2
    return 0


def _client(options: argparse.Namespace) -> EdgeClient:
    """Open the device over what its federation left in the home, else over a run."""
    # Who types is there, so the device is never idle: everything else of the default policy holds.
    policy = Policy(idle=None)
    if Home(options.home).base.current() is not None:
        return EdgeClient(options.home, policy=policy)
    run = find_run(options.run, options.runs)
    return EdgeClient(options.home, base_folder(run), adapter_folder(run, options.user), policy=policy)


def _converse(notebook: Notebook) -> None:
    _say(notebook.greeting())
    with closing(lines(notebook.hint)) as typed:
        for line in typed:
            if line.strip() == ":quit":
                break
            _say(notebook.take(line), *notebook.news())
    notebook.close()
    _say(*notebook.news())


def _say(*sayings: str) -> None:
    for saying in sayings:
        if saying:
            print(saying, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m client.notebook", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the notebook's private folder; made when missing")
    parser.add_argument("--run", default=LATEST, help="a run's name or folder")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--user", default=EVERYBODY, help="whose adapter of the run to start from")
    parser.add_argument("--token", help="enrol with this one-time token, and learn together with others from then on")
    parser.add_argument("--every", type=int, default=20, help="new lines after which it learns by itself")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
