"""A base's graph in onnxruntime."""

from __future__ import annotations

import onnxruntime as ort

from fedpeft.device.bundle import FINGERPRINT, GRAPH, Bundle
from fedpeft.errors import BundleError

_QUIET = 3
"""onnxruntime's severity "error": it would warn once per optional input, and those are by design."""


def open_graph(bundle: Bundle, threads: int) -> ort.InferenceSession:
    """Load a verified base bundle's graph.

    Parameters
    ----------
    bundle : Bundle
    threads : int
        For the arithmetic of one run.

    Raises
    ------
    BundleError
        When onnxruntime cannot load it, or it is of another base than the manifest says.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _QUIET
    try:
        session = ort.InferenceSession(str(bundle.folder / GRAPH), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes of Exception
        raise BundleError(f"{bundle.folder}/{GRAPH}", str(error), "a graph onnxruntime can load") from error
    bundle.require_base(session.get_modelmeta().custom_metadata_map.get(FINGERPRINT, ""))
    return session
