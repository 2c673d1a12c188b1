"""Many people's texts in one run of the graph, each row with its own adapter, its own length and its own past.

A base of the variant ``rows`` takes an adapter per row of the batch (:mod:`fedpeft.device.rows_stack`). A row joins
with its text read, one token per row is read in a step, and a row leaves whenever it likes::

    read    (1, chunk)   the new row alone, into the reading desk's past
    seat                 its past is copied into the first free place
    step    (n, 1)       the n rows that are seated
    leave                the last seated row takes the place that came free

Rows in use are thus always the first n places of every buffer, and a run works on those alone: a free place costs
nothing and disturbs nobody. Past and present are one buffer (places, kv_heads, context, head_dim); a row's own length
is in the attention mask, filled from the left. The other side would be silently wrong: the graph counts positions
from the row's first place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.bundle import Bundle
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.manifest import DecoderFacts
from fedpeft.device.rows_stack import Stack, Tensors, one_row
from fedpeft.device.session import Device, open_graph
from fedpeft.device.sites import require_fit
from fedpeft.errors import BundleError

Logits = NDArray[np.float32]

CHUNK = 64
"""Tokens of a new row read at a time; the seated rows step in between, so that a long prompt holds up nobody."""

_DEVICE = ("cpu", 0)


@dataclass(eq=False)
class Row:
    """A text in the batch.

    Parameters
    ----------
    tensors : mapping
        What its adapter fills.
    length : int
        Positions of its past that are filled: its adapter's prefix, and the tokens read.
    place : int or None
        Where it sits; None while it is at the reading desk, and after it left.
    """

    tensors: Tensors
    length: int = 0
    place: int | None = None


class RowDecoder:
    """A base's graph of the variant ``rows``. It belongs to one thread.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``base``, verified.
    places : int
        Most rows at a time.
    threads : int
        For the arithmetic of one step.
    context : int, optional
        Most tokens of a row, what its adapter puts before them included; the base's own when not given.

    Raises
    ------
    BundleError
        When the base is of another variant or rows would not be apart in it, onnxruntime cannot load it, or it is not
        the base its manifest says.
    """

    def __init__(self, bundle: Bundle, places: int, threads: int = 1, context: int | None = None) -> None:
        manifest = bundle.manifest
        if manifest.variant != "rows" or manifest.decoder is None:
            raise BundleError(f"{bundle.folder} variant", manifest.variant, "a decoder of the variant 'rows'")
        if manifest.precision == "dynamic-int8":
            # It rounds all rows by one scale: what somebody writes would change what others are told.
            remedy = "export it with float32, int8 or int4"
            raise BundleError(f"{bundle.folder} precision", manifest.precision, "one that rounds rows apart", remedy)
        self.facts: DecoderFacts = manifest.decoder
        self.sites = manifest.tensors
        self._fingerprint = manifest.base_fingerprint
        self._session = open_graph(bundle, Device(threads))
        d = self.facts
        parts = [f"{i}.{part}" for i in range(d.layers) for part in ("key", "value")]
        self._names = [(f"past_key_values.{part}", f"present.{part}") for part in parts]
        self.context = min(context or d.context, d.context)
        shape = (d.kv_heads, self.context, d.head_dim)
        self._desk = [np.zeros((1, *shape), np.float32) for _ in parts]
        self._past = [np.zeros((places, *shape), np.float32) for _ in parts]
        self._stack = Stack(self.sites, places)
        self._reading: Row | None = None
        self.seated: list[Row] = []
        self.places = places
        self._tokens = np.zeros((places, 1), np.int64)
        self._mask = np.zeros((places, self.context), np.int64)
        self._logits = np.empty((places, 1, d.vocabulary), np.float32)
        self._read_logits = np.empty((1, CHUNK, d.vocabulary), np.float32)
        self._binding: Any = None

    def open(self, adapter: LoadedAdapter | None) -> Row:
        """Begin a row at the reading desk, where there is room for one.

        Parameters
        ----------
        adapter : LoadedAdapter, optional
            Not needed any more afterwards: its numbers are copied.

        Raises
        ------
        BundleError
            When another row is being read, no place will be free for it, or the adapter does not fit the graph.
        """
        if self._reading is not None or len(self.seated) == self.places:
            raise BundleError("rows", f"{len(self.seated)} of {self.places} seated", "a free place and reading desk")
        if adapter is None:
            self._reading = Row({})
            return self._reading
        whose = f"adapter of {adapter.owner}"
        if adapter.manifest.base_fingerprint != self._fingerprint:
            raise BundleError(whose, "another base's", f"one of the base {self._fingerprint[:12]}…")
        # onnxruntime's values are views of memory that goes when they do.
        tensors = {name: np.array(value.numpy(), np.float32) for name, value in adapter.tensors().items()}
        if tensors or not adapter.prefix:
            require_fit({name: array.shape for name, array in tensors.items()}, self.sites, whose)
        if adapter.past + adapter.prompt >= self.context:
            raise BundleError(whose, f"{adapter.past + adapter.prompt} positions", f"fewer than {self.context}")
        if adapter.prefix:
            for (name, _), desk in zip(self._names, self._desk, strict=True):
                desk[0, :, : adapter.past] = adapter.prefix[name].numpy()[0]
        self._reading = Row(tensors, adapter.past)
        return self._reading

    def read(self, row: Row, ids: Sequence[int]) -> Logits:
        """Read the next tokens of the row at the desk.

        Parameters
        ----------
        row : Row
        ids : sequence of int
            At most :data:`CHUNK`.

        Returns
        -------
        ndarray of float32, shape (vocabulary,)
            The scores of what follows them.

        Raises
        ------
        BundleError
            When there are no tokens or too many, or the row is not at the desk.
        """
        length = row.length + len(ids)
        if row is not self._reading:
            raise BundleError("row", "not at the reading desk", "the row that was opened last")
        if not 0 < len(ids) <= CHUNK or length > self.context:
            raise BundleError("tokens", f"{len(ids)} after {row.length}", f"1 to {CHUNK}, {self.context} in all")
        inputs = one_row(self.sites, row.tensors)
        inputs |= {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, length), np.int64)}
        logits = self._read_logits[:, : len(ids)]
        self._session.run_with_iobinding(self._bind(inputs, self._desk, logits))
        row.length = length
        last: Logits = logits[0, -1].copy()
        return last

    def seat(self, row: Row) -> None:
        """Take the row from the desk to the first free place."""
        if row is not self._reading:
            raise BundleError("row", "not at the reading desk", "the row that was opened last")
        place = len(self.seated)
        for past, desk in zip(self._past, self._desk, strict=True):
            past[place, :, : row.length] = desk[0, :, : row.length]
        try:
            self._stack.put(place, row.tensors)
        except MemoryError:
            self._stack.drop(place)
            raise
        self._mask[place] = 0
        self._mask[place, : row.length] = 1
        # Last: a row that could not be seated must not leave in another's stead.
        row.place = place
        self.seated.append(row)
        self._reading = self._binding = None

    def step(self, tokens: Sequence[int]) -> Logits:
        """Read one token in every seated row.

        Parameters
        ----------
        tokens : sequence of int
            In the order of :attr:`seated`.

        Returns
        -------
        ndarray of float32, shape (rows, vocabulary)
            The scores of what follows in each; overwritten by the next step.

        Raises
        ------
        BundleError
            When there is not one token for each row, or a row has no room for another; nothing was read.
        """
        rows = len(self.seated)
        full = [row for row in self.seated if row.length == self.context]
        if not rows or len(tokens) != rows or full:
            raise BundleError("tokens", f"{len(tokens)}, {len(full)} rows full", f"one for each of {rows} rows")
        self._tokens[:rows, 0] = tokens
        for place, row in enumerate(self.seated):
            self._mask[place, row.length] = 1
        if self._binding is None:
            inputs: dict[str, NDArray[Any]] = {name: array[:rows] for name, array in self._stack.arrays.items()}
            inputs |= {"input_ids": self._tokens[:rows], "attention_mask": self._mask[:rows]}
            self._binding = self._bind(inputs, [past[:rows] for past in self._past], self._logits[:rows])
        self._session.run_with_iobinding(self._binding)
        for row in self.seated:
            row.length += 1
        scores: Logits = self._logits[:rows, 0]
        return scores

    def leave(self, row: Row) -> None:
        """Forget a row, wherever it is; one that left already is no concern."""
        if row is self._reading:
            self._reading = None
        if row.place is None:
            return
        place, last = row.place, self.seated.pop()
        row.place = None
        self._binding = None
        if last is row:
            self._stack.drop(place)
            return
        for past in self._past:
            past[place, :, : last.length] = past[last.place, :, : last.length]
        self._mask[place] = self._mask[last.place]
        self._stack.move(last.place or 0, place)
        last.place = place
        self.seated[place] = last

    def _bind(self, inputs: dict[str, NDArray[Any]], past: list[NDArray[np.float32]], logits: Logits) -> Any:
        """Point a run at arrays; whoever calls keeps them until it has run."""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, *_DEVICE, array.dtype.type, array.shape, array.ctypes.data)
        for (before, after), array in zip(self._names, past, strict=True):
            binding.bind_input(before, *_DEVICE, np.float32, array.shape, array.ctypes.data)
            binding.bind_output(after, *_DEVICE, np.float32, array.shape, array.ctypes.data)
        binding.bind_output("logits", *_DEVICE, np.float32, logits.shape, logits.ctypes.data)
        return binding
