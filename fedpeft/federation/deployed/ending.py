"""How a ServerApp tells its supervisor why it ended: in the run's folder, because Flower passes nothing on.

An ending belongs to one submission, by the number that Flower gave it; one of an earlier submission says nothing about
this one. A ServerApp that was killed leaves none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from fedpeft.errors import FedpeftError
from fedpeft.federation.deployed.drain import Drained
from fedpeft.federation.folder import RunFolder

_FILE = "ending.json"


@dataclass(frozen=True)
class Ending:
    """How an attempt at a run ended.

    Parameters
    ----------
    submission : int
        Flower's number of it.
    reason : str
        One line; empty when nothing was wrong.
    permanent : bool
        Whether another attempt must end the same way.
    """

    submission: int
    reason: str = ""
    permanent: bool = False

    @classmethod
    def read(cls, run: RunFolder) -> Ending | None:
        """Return the last ending of a run, if there is one."""
        try:
            found = run.read(_FILE)
            return cls(int(found["submission"]), str(found["reason"]), found["permanent"] is True)
        except (ValueError, KeyError, TypeError):
            return None


@contextmanager
def told(run: RunFolder, submission: int) -> Iterator[None]:
    """Write down how what happens inside ends; a drain is a good end."""
    ending = Ending(submission, "the ServerApp was stopped")
    try:
        yield
        ending = Ending(submission)
    except Drained:
        ending = Ending(submission)
    except FedpeftError as error:
        ending = Ending(submission, str(error), error.permanent)
        raise
    except Exception as error:
        ending = Ending(submission, f"{type(error).__name__}: {error}"[:400].replace("\n", " "))
        raise
    finally:
        with suppress(OSError):  # on a full disk the supervisor knows it by itself
            run.write(_FILE, asdict(ending))
