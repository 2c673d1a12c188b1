"""``pairwise``: masks that cancel in the sum (Bonawitz et al. 2017; Bell et al. 2020), as pure state machines."""

from fedpeft.secagg.pairwise.client import PairwiseClient
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.pairwise.log import FileLog, MemoryLog, RoundLog
from fedpeft.secagg.pairwise.parameters import parameters
from fedpeft.secagg.pairwise.round import PairwiseRound
from fedpeft.secagg.pairwise.server import PairwiseServer
from fedpeft.secagg.pairwise.wire import STAGES, contribution_length, handshake_length

__all__ = [
    "STAGES",
    "FileLog",
    "MemoryLog",
    "PairwiseClient",
    "PairwiseRound",
    "PairwiseServer",
    "RoundContext",
    "RoundLog",
    "contribution_length",
    "handshake_length",
    "parameters",
]
