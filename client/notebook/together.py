"""A notebook that learns together with others: it takes part in rounds while it is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from fedpeft.device import EdgeClient
from fedpeft.errors import FedpeftError


@contextmanager
def together(client: EdgeClient, say: Callable[[str], None]) -> Iterator[None]:
    """Take part in the federation's rounds for the time of a block, in the background.

    Parameters
    ----------
    client : EdgeClient
        Of a home that is enrolled.
    say : callable
        Told why, when it cannot take part.
    """
    thread = Thread(target=_join, args=(client, say), daemon=True)
    thread.start()
    try:
        yield
    finally:
        client.stop()
        thread.join()


def _join(client: EdgeClient, say: Callable[[str], None]) -> None:
    try:
        # Only now: what trains takes seconds to import, and nobody has to wait for it before they write.
        from fedpeft.federation.on_device import Rounds

        client.join(Rounds())
    except ImportError as error:
        say(f"! not learning with others: no {error.name}; pip install 'fedpeft[federate]'")
    except FedpeftError as error:
        say(f"! not learning with others: {error}")
