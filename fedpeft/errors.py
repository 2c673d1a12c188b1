"""One hierarchy of errors. Every message names the field, the value found, what was expected and a remedy.

A user meets these on one line at the command line (exit code 2) and as ordinary exceptions in Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FedpeftError(Exception):
    """The root of everything fedpeft raises on purpose.

    Parameters
    ----------
    field : str
        What is wrong: a scenario field, a file, a message field.
    value : object
        What was found there.
    expected : str
        What would have been accepted.
    remedy : str, optional
        What to do about it.
    """

    permanent = True
    """Whether it is pointless to try again before somebody has mended something."""

    def __init__(self, field: str, value: object, expected: str, remedy: str = "") -> None:
        self.field, self.value, self.expected, self.remedy = field, value, expected, remedy
        line = f"{field}: found {value!r}, expected {expected}"
        super().__init__(f"{line}; {remedy}" if remedy else line)

    def __reduce__(self) -> tuple[type[FedpeftError], tuple[str, str, str, str]]:
        return type(self), (self.field, str(self.value), self.expected, self.remedy)


class ScenarioError(FedpeftError):
    """A scenario that cannot be read or whose parts do not fit together."""


class DataError(FedpeftError):
    """Client data that is missing, malformed or empty."""


class BaseError(FedpeftError):
    """A base model that cannot be found, read or used."""


class AdapterError(FedpeftError):
    """An adapter that does not fit: wrong base, wrong schema, damaged file."""


class BundleError(FedpeftError):
    """A device bundle that is incomplete, altered, or meant for another base."""


class ProtocolError(FedpeftError):
    """A message of the federation that must not be used."""


class TokenError(FedpeftError):
    """A token that is none, or that the gate refuses."""


class GateError(FedpeftError):
    """A gate that did not answer, or not with what was asked; worth another attempt later."""


class RoundBurnt(FedpeftError):  # noqa: N818
    """A round of secure aggregation that too few clients finished: nothing of it is opened or used."""

    permanent = False


class RunError(FedpeftError):
    """A run that cannot go on now: its folder is in use, too few clients are there, its server is away."""

    permanent = False


class FolderError(RunError):
    """A run's or a server's folder that does not hold what it must; waiting mends nothing."""

    permanent = True


class ShelfError(FedpeftError):
    """A version that must not be used, or a shelf of versions that cannot be read or written."""


class ShelfGone(ShelfError):  # noqa: N818
    """A head, version or file that a shelf does not have, or not any more."""


class FetchError(FedpeftError):
    """Something that could not be fetched now; what is installed stays, and another attempt is worth it."""


class LinkError(FedpeftError):
    """A SuperLink that did not answer, or did not answer with what was asked; worth another attempt later."""

    permanent = False


class VersionError(LinkError):
    """A Flower whose private names are not the ones that are used here."""

    permanent = True


class MessageGone(LinkError):  # noqa: N818
    """A message whose run or parts are no longer there: nobody waits for its answer."""


class NotYet(LinkError):  # noqa: N818
    """Something that is on its way to the SuperLink: a moment later it will be there."""


class ServeError(FedpeftError):
    """A service that cannot start: its limits, tokens, certificate or port."""


class WebError(FedpeftError):
    """A browser client that cannot be built or served."""


class StoreError(FedpeftError):
    """A device's local store that cannot be read or written: key, file, room, or what was to be kept."""


class ConsentError(FedpeftError):
    """Something that a person has not agreed to: nothing of theirs is kept or learnt from without."""


class PolicyError(FedpeftError):
    """Training that a device's policy does not allow now."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant.

    Parameters
    ----------
    name : str
        The name that is not known.
    known : iterable of str
        The names that are.

    Returns
    -------
    str
        ``"did you mean 'x'?"``, or the list of known names when none is close.
    """
    choices = list(known)
    close = get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(sorted(choices))}"
