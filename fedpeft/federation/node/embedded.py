"""An embedded SuperNode: the locally installed ClientApp, in this process, against a stock SuperLink.

It differs from Flower's own in what happens when things go wrong:

- The app stays: base, tokenizer and text are loaded once, not for every message.
- Every error of the network or of the SuperLink is waited out (full jitter), for as long as it takes.
- A node that was killed comes back at once: it first takes back the id under which it is still thought to be there.
- A message that was being worked on is worked on again, a reply that was being sent is sent again (``journal``).
- No code of the server's is fetched, let alone run; run configuration and scenario are the device's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedpeft.backoff import Backoff, Pace
from fedpeft.errors import LinkError, MessageGone, NotYet
from fedpeft.federation.flower_fleet import LONGEST, SHORTEST, FleetLine
from fedpeft.federation.flower_internals import CLIENT_RAISED, content_id, dated_as, identify, require_flower
from fedpeft.federation.node.heart import Heart
from fedpeft.federation.node.journal import Journal
from fedpeft.signing.nodekey import NodeKey

Hear = Callable[[str], None]


@dataclass(frozen=True)
class Rhythm:
    """How often a node asks; idle, two requests in a minute and a half.

    Parameters
    ----------
    soon, most : float
        Seconds between questions after a message, and when there has long been none.
    busy, idle : float
        Heartbeat intervals with and without work. A SuperLink gives a node up after two of them in silence: longer
        than it is away when it is started again, or it would give up everybody.
    patience : float
        Longest wait after an error; well below what makes a node given up.
    """

    soon: float = 0.3
    most: float = 90.0
    busy: float = 60.0
    idle: float = 300.0
    patience: float = 20.0

    def __post_init__(self) -> None:
        good = (
            0 < self.soon <= self.most
            and SHORTEST <= self.busy <= self.idle <= LONGEST
            and 0 < self.patience <= self.busy
        )
        if not good:
            raise LinkError(
                "node rhythm",
                vars(self),
                f"0 < soon <= most, patience <= busy, {SHORTEST} <= busy <= idle <= {LONGEST}",
            )


class EmbeddedNode:
    """Answers one SuperLink for one client until it is stopped.

    Parameters
    ----------
    app : ClientApp
    server : str
        ``host:port``.
    root : Path
        The authority that signed the server's certificate.
    key : NodeKey
        Registered at the SuperLink.
    folder : Path
        The node's own, for what must survive it.
    node_config, run_config : mapping
        The app's context; nothing in it comes from the server.
    hear : callable, optional
        Told, in one line each, what happens.
    rhythm : Rhythm
    """

    def __init__(
        self,
        app: ClientApp,
        server: str,
        root: Path,
        key: NodeKey,
        folder: Path,
        node_config: Mapping[str, Any],
        run_config: Mapping[str, Any],
        hear: Hear = lambda line: None,
        rhythm: Rhythm | None = None,
    ) -> None:
        require_flower()
        self._app, self._hear, self._rhythm = app, hear, rhythm or Rhythm()
        self._node_config, self._run_config = dict(node_config), dict(run_config)
        self._journal = Journal(folder)
        self._line = FleetLine(server, root, key)
        self._server = server
        self._stopping = threading.Event()
        self._id: int | None = None
        self.answered = 0

    def stop(self) -> None:
        """End after the message in hand; may be called from a signal handler or another thread."""
        self._stopping.set()

    def run(self) -> None:
        """Answer messages until :meth:`stop`.

        Raises
        ------
        RunError
            When another process runs a node on the same folder.
        """
        rhythm = self._rhythm
        backoff, pace = Backoff(1.0, rhythm.patience), Pace(rhythm.soon, rhythm.most)
        heart = Heart(self._beat, rhythm.busy, rhythm.idle, rhythm.patience)
        with self._journal.lock():
            try:
                while not self._stopping.is_set():
                    try:
                        wait = self._step(heart, pace)
                        if backoff.failures:
                            self._hear(f"{self._server} answers again")
                        backoff.reset()
                    except LinkError as error:
                        wait = backoff.next()
                        self._hear(f"{error}; again in {wait:.1f} s")
                    self._stopping.wait(wait)
            finally:
                heart.stop()
                self._leave()

    def _step(self, heart: Heart, pace: Pace) -> float:
        """Do the next thing and return for how long there is nothing to do."""
        if self._id is None or heart.unknown.is_set():
            self._id = self._enter()
            if not heart.unknown.is_set():
                heart.start()
            heart.unknown.clear()
        try:
            worked = self._finish(self._id) or self._accept(self._id)
        except NotYet:
            return self._rhythm.soon
        if not worked:
            return pace.next()
        heart.worked()
        pace.reset()
        return 0.0

    def _enter(self) -> int:
        """Become active; where the SuperLink still thinks that this node is, take its place."""
        known = self._journal.node()
        try:
            node = self._line.activate(self._rhythm.busy)
        except LinkError:
            if known is None:
                raise
            self._line.deactivate(known)
            node = self._line.activate(self._rhythm.busy)
        self._journal.keep_node(node)
        self._hear(f"{self._server} knows this node as {node}")
        return node

    def _leave(self) -> None:
        if self._id is not None:
            try:
                self._line.deactivate(self._id)
            except LinkError as error:
                self._hear(str(error))  # it will be given up by itself
        self._line.close()

    def _beat(self, interval: float) -> bool:
        return self._id is None or self._line.beat(self._id, interval)

    def _accept(self, node: int) -> bool:
        """Take the next message, if there is one: from here on it is this node's to answer."""
        delivery = self._journal.delivery()
        if delivery is None:
            delivery = self._line.pull(node)
            if delivery is None:
                return False
            self._journal.keep_delivery(delivery)
        try:
            message = self._line.fetch(node, delivery)
        except MessageGone as error:
            self._hear(f"{delivery.kind} is over: {error}")
            self._journal.forget_delivery()
            return True
        self._journal.keep_request(message)
        self._journal.forget_delivery()
        try:
            self._line.confirm(node, delivery)
        except LinkError as error:
            self._hear(str(error))  # the SuperLink forgets it in its own time
        return True

    def _finish(self, node: int) -> bool:
        """Answer the message in hand, if there is one."""
        reply = self._journal.reply()
        again = reply is not None
        if reply is None:
            request = self._journal.request()
            if request is None:
                return False
            reply = dated_as(self._answer(node, request), request)
            self._journal.keep_reply(reply)
        try:
            self._line.push(node, reply, again)
        except MessageGone as error:
            self._hear(f"nobody waits for the answer to {reply.metadata.message_type}: {error}")
        self._journal.done()
        self.answered += 1
        return True

    def _answer(self, node: int, request: Message) -> Message:
        run, kind, start = request.metadata.run_id, request.metadata.message_type, time.monotonic()
        identify(run, node)
        asked = content_id(request)
        before = self._journal.answered(asked)
        if before is not None:
            self._hear(f"{kind} was asked again")
            return Message(before, reply_to=request)
        context = Context(
            run_id=run,
            node_id=node,
            node_config=dict(self._node_config),
            state=self._journal.state(run),
            run_config=dict(self._run_config),
        )
        try:
            reply = self._app(request, context)
        except Exception as error:  # the app may fail in any way; the server must hear of it
            self._hear(f"{kind} failed: {type(error).__name__}: {error}")
            return Message(Error(CLIENT_RAISED, f"{type(error).__name__}: {error}"), reply_to=request)
        if reply.has_content():
            self._journal.keep_answered(asked, reply.content)
        self._journal.keep_state(run, context.state)
        self._hear(f"{kind} answered in {time.monotonic() - start:.2f} s")
        return reply
