"""The command line: one file per verb, imported only when it is called."""

from fedpeft.cli.app import main

__all__ = ["main"]
