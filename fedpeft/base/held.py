"""Names of the ways to hold a base: what it computes in, and what its linear layers are quantized to.

``float32``, ``bfloat16`` and ``float16`` are weights in full; ``int8`` and ``nf4`` are quantized ones that compute in
the dtype that is usual where the name stands, ``nf4:float32`` in another; ``full`` is that dtype, not quantized.
"""

from __future__ import annotations

from fedpeft.base.load import DTYPES
from fedpeft.base.quantize import PRECISIONS
from fedpeft.errors import BaseError, nearest


def held_as(name: str, usual: str) -> tuple[str, str]:
    """Read the name of a way.

    Parameters
    ----------
    name : str
    usual : str
        The dtype that a name without one means.

    Returns
    -------
    dtype, precision : str
        As of :func:`fedpeft.base.load_base`.

    Raises
    ------
    BaseError
        When it is none.
    """
    if name in DTYPES:
        return name, "full"
    precision, colon, dtype = name.partition(":")
    if precision not in PRECISIONS or (colon and dtype not in DTYPES):
        raise BaseError("precision", name, "a known one", nearest(name, [*DTYPES, *PRECISIONS]))
    return dtype or usual, precision


def name_of(dtype: str, precision: str, usual: str) -> str:
    """Return the one name of a way."""
    if precision == "full":
        return dtype
    return precision if dtype == usual else f"{precision}:{dtype}"
