"""Flower's own SecAgg+ functions, for benchmarks to measure against; nothing else of fedpeft uses them."""

from __future__ import annotations

from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

__all__ = [
    "bytes_to_private_key",
    "bytes_to_public_key",
    "combine_shares",
    "create_shares",
    "generate_key_pairs",
    "generate_shared_key",
    "parameters_addition",
    "parameters_mod",
    "parameters_subtraction",
    "private_key_to_bytes",
    "pseudo_rand_gen",
    "public_key_to_bytes",
]
