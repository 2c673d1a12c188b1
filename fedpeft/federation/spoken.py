"""Which protocol server and clients speak, so that two that do not understand each other say so at the roll call.

The number goes up whenever a message changes its meaning or form. Versions of fedpeft with the same number work
together; their own numbers are in the facts for people to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fedpeft
from fedpeft.errors import ProtocolError

PROTOCOL = 1
_NUMBER, _VERSION = "protocol", "fedpeft"


def spoken() -> dict[str, int | str]:
    """Return what goes into the facts of both sides of a roll call."""
    return {_NUMBER: PROTOCOL, _VERSION: fedpeft.__version__}


def require_spoken(values: Mapping[str, Any], whose: str, here: str) -> None:
    """Refuse another protocol than this one.

    Parameters
    ----------
    values : mapping
        The other side's facts.
    whose : str
        The other side, such as ``client ada``.
    here : str
        This side, such as ``this server``.

    Raises
    ------
    ProtocolError
        It names both versions and which side is to be upgraded.
    """
    number = values.get(_NUMBER)
    if number == PROTOCOL:
        return
    newer = isinstance(number, int) and number > PROTOCOL
    theirs = f"{number if isinstance(number, int) else 'none'} (fedpeft {str(values.get(_VERSION, 'unknown'))[:20]})"
    mine = f"{PROTOCOL} (fedpeft {fedpeft.__version__}), as {here} speaks"
    remedy = f"upgrade fedpeft on {here if newer else whose}; until then {whose} and {here} cannot work together"
    raise ProtocolError(f"protocol of {whose}", theirs, mine, remedy)
