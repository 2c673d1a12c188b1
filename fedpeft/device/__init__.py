"""The edge SDK: a base graph, personal adapters and onnxruntime; nothing here trains or imports torch.

>>> from fedpeft.device import Runtime
>>> runtime = Runtime(Path("runs/demo/device/base"))
>>> mine = runtime.load(Path("runs/demo/device/adapters/ada"))
>>> runtime.complete("I am", adapter=mine)
>>> runtime.suggest("I am ", adapter=mine)
"""

from fedpeft.device.archive import pack, unpack
from fedpeft.device.bundle import Bundle
from fedpeft.device.chat import Message
from fedpeft.device.classifier import Classifier, Scored
from fedpeft.device.conversation import Conversation
from fedpeft.device.edge.aio import AsyncEdgeClient
from fedpeft.device.edge.client import EdgeClient
from fedpeft.device.folders import find_run
from fedpeft.device.generation import Generation
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.manifest import Manifest
from fedpeft.device.ranker import Ranked, Ranker
from fedpeft.device.runtime import Runtime
from fedpeft.device.suggest import Suggester, Suggestion

__all__ = [
    "AsyncEdgeClient",
    "Bundle",
    "Classifier",
    "Conversation",
    "EdgeClient",
    "Generation",
    "LoadedAdapter",
    "Manifest",
    "Message",
    "Ranked",
    "Ranker",
    "Runtime",
    "Scored",
    "Suggester",
    "Suggestion",
    "find_run",
    "pack",
    "unpack",
]
