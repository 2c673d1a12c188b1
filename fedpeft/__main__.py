"""``python -m fedpeft`` is ``fedpeft``."""

from fedpeft.cli import main

main()
