"""The places of a graph that an adapter can fill: their names, their shapes, and what fills them with nothing.

With x the layer's input as rows, W its weight and every other letter an input of the graph::

    y = out_scale * (W (in_scale * x) + bias + (in_scale * x) A B) + bias_delta      a linear layer
    y = rms(x) + bias_delta                                                          a norm
    y = y + f(y down + down_bias) up + up_bias                                       serial: behind a block
    y = y + f(x down + down_bias) up + up_bias                                       parallel: x is what it reads
    e = [embedding; soft_prompt][id]                                                 ids from the vocabulary's size on

A base has the kinds of sites that it was exported with; names of other inputs do not exist in its graph.

==================================  ======================  ========  ==============================================
input                               shape                   nothing   filled by
==================================  ======================  ========  ==============================================
``<module>.lora_A.weight``          (in, rank)              rank 0    LoRA and all that changes a weight by A B
``<module>.lora_B.weight``          (rank, out)             rank 0    the same, multiplied by its scaling
``<module>.in_scale``               (in,)                   1         IA3 of a feed-forward layer
``<module>.out_scale``              (out,)                  1         IA3 of keys and values, DoRA's magnitudes
``<module>.bias_delta``             (out,)                  0         BitFit, of linear layers and norms
``<block>.<form>.<f>.down``         (hidden, width)         width 0   bottleneck adapters: form serial or parallel, f
``<block>.<form>.<f>.down_bias``    (width,)                width 0   relu, gelu or silu; the block is the attention or
``<block>.<form>.<f>.up``           (width, hidden)         width 0   the feed-forward
``<block>.<form>.<f>.up_bias``      (hidden,)               0
``soft_prompt``                     (tokens, hidden)        0 tokens  prompt tuning, P-tuning
``head.weight``                     (hidden, classes)       0         a classifier
``head.bias``                       (classes,)              0
==================================  ======================  ========  ==============================================

In the variant ``rows`` every one of them has a batch dimension in front. Prefixes are not inputs of their own: they are
an initial ``past_key_values``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.manifest import Shape
from fedpeft.errors import BundleError

_SCALES = (".in_scale", ".out_scale")
_HALF = re.compile(r"[.](?:lora_[AB][.]weight|down|down_bias|up|weight|bias)$")
"""What sets apart the tensors that share a width: A and B, a bottleneck's four, a head's two."""


def neutral(name: str, shape: Shape) -> NDArray[np.float32]:
    """Return what leaves the base as it is.

    Parameters
    ----------
    name : str
        Of a site.
    shape : tuple of int or None
        ``None`` where the adapter chooses, which here is 0.
    """
    fill = np.ones if name.endswith(_SCALES) else np.zeros
    return fill([size or 0 for size in shape], np.float32)


def require_fit(tensors: Mapping[str, Shape], sites: Mapping[str, Shape], whose: str) -> None:
    """Refuse tensors that a graph has no place for.

    Parameters
    ----------
    tensors : mapping
        Shapes by name, of an adapter.
    sites : mapping
        Of the base's graph.
    whose : str
        The bundle, for the message of an error.

    Raises
    ------
    BundleError
        Naming the first that does not fit, or when there are none: then onnxruntime would answer as the base and nobody
        would notice.
    """
    if not tensors:
        raise BundleError(f"{whose} tensors", "none", "at least one")
    for name, shape in tensors.items():
        place = sites.get(name)
        if place is None or not _fits(shape, place):
            raise BundleError(f"{whose} tensor {name}", shape, f"shape {place}" if place else "an input of the graph")
    _require_whole(tensors, sites, whose)


def _require_whole(tensors: Mapping[str, Shape], sites: Mapping[str, Shape], whose: str) -> None:
    """Refuse a pair like A and B whose halves differ in the width they chose, or of which one is missing."""
    widths: dict[str, int | None] = {}
    for name, shape in tensors.items():
        chosen = [size for size, place in zip(shape, sites[name], strict=True) if place is None]
        if chosen and widths.setdefault(_group(name), chosen[0]) != chosen[0]:
            raise BundleError(
                f"{whose} tensor {name}", shape, f"a width of {widths[_group(name)]}, as its other half has"
            )
    for name, place in sites.items():
        if None in place and name not in tensors and _group(name) in widths:
            raise BundleError(f"{whose} tensors", f"no {name}", "both halves of a pair")


def _group(name: str) -> str:
    return _HALF.sub("", name)


def _fits(shape: Shape, place: Shape) -> bool:
    return len(shape) == len(place) and all(p in (None, s) for s, p in zip(shape, place, strict=True))
