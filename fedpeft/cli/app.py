"""The ``fedpeft`` command. Bad input ends with one clear line and exit code 2, Ctrl-C with 130."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from importlib import import_module
from typing import Any

import click
import typer
from typer.core import TyperGroup

from fedpeft.cli.options import complain
from fedpeft.errors import FedpeftError

VERBS = {
    "simulate": "Run a scenario on this machine, start to finish.",
    "compare": "Train many methods on one scenario and lay them side by side.",
    "advise": "Say which method, rank and rule fit a device and a link, and why.",
    "report": "Print a run's figures and rebuild its report.html.",
    "evaluate": "Score a run's adapters over the base at other precisions than they were trained on.",
    "generate": "Complete a text with a person's adapter, and suggest the next three words.",
    "suggest": "Suggest the words a person would type next.",
    "classify": "Name the class of a text with a person's adapter and head.",
    "rank": "Rank replies as a person would give them.",
    "serve": "Serve everybody's adapter over one base, by HTTP; make their tokens.",
    "export": "Write a run's base graph and adapters for devices again.",
    "web": "Build the browser client with a run's base and adapters, and try it.",
    "adapters": "List, inspect, compose, prune, quantize and merge adapters.",
    "base": "List bases, get them ready, shrink them, and say what they cost.",
    "distill": "Ask a large base about public text, for small ones to learn from.",
    "registry": "Publish versions of adapters and bases, go back, serve them to devices.",
    "server": "Run a federation: its keys, its clients, its rounds.",
    "client": "What a device keeps of a person's text and learns from it; its key and certificate.",
    "pretrain": "Make the builtin base `keyboard` from public text.",
    "bench": "Measure one published figure against a named rival.",
    "doctor": "Show versions and devices, what works here and what does not.",
}


class _Lazy(TyperGroup):
    """Imports a verb's module when it is called, so that ``fedpeft generate`` never loads torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found = getattr(import_module(f"fedpeft.cli.{cmd_name}"), cmd_name)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        single.command(cmd_name)(found)
        return typer.main.get_command(single)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    # A traceback with its variables would print tokens, keys and what people wrote.
    pretty_exceptions_show_locals=False,
    help="Federated and on-device personalization: adapters travel, text and base models do not.",
)


@app.callback()
def _root() -> None:
    # Libraries announce their own deprecations and missing optional kernels; neither is the user's concern.
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : list of str, optional
        Instead of ``sys.argv``.
    """
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        result: Any = app(args=arguments, prog_name="fedpeft", standalone_mode=False)
    except FedpeftError as error:
        return _complain(str(error), 2)
    except click.exceptions.Abort:
        return _complain("stopped", 130)
    except KeyboardInterrupt:
        return _complain("stopped", 130)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            name = error.filename or "a file"
            return _complain(f"disk: found no room to write {name}, expected some; free space, then resume the run", 2)
        raise
    return result if isinstance(result, int) else 0


def _complain(line: str, code: int) -> int:
    complain(line)
    return code
