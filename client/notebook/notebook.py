"""What the notebook does with a line, whoever typed it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Thread

from fedpeft.device import EdgeClient
from fedpeft.device.edge.policy import ANYTIME, Policy
from fedpeft.device.edge.training import Job, Learned, Trainer
from fedpeft.errors import FedpeftError

ASK = "May this notebook keep what you write, on this device alone, and learn from it?  :yes  or  :no"
HELP = """A line is kept, and learnt from in time.
  ?TEXT     suggest how TEXT goes on          :learn    learn now, whatever the battery says
  :yes :no  agree that lines are kept, or not :status   what is kept, and when it may learn
  :forget   delete every line and what was learnt  :quit  (or end of input)"""


class Notebook:
    """A conversation with one person.

    Parameters
    ----------
    client : EdgeClient
    trainer : callable
        Returns what trains; called when something is to be learnt, because it imports torch.
    every : int
        New lines after which it learns by itself, in the background, when the policy allows.
    """

    def __init__(self, client: EdgeClient, trainer: Callable[[], Trainer], every: int = 20) -> None:
        self._client, self._trainer, self._every = client, trainer, every
        self._news: SimpleQueue[str] = SimpleQueue()
        self._learning: Thread | None = None
        self._unlearnt = 0 if client.personal else client.contents().messages
        self._today = f"notebook {datetime.now(UTC):%Y-%m-%d}"
        self._commands = {
            ":yes": self._agree,
            ":no": self._withdraw,
            ":learn": self._learn_now,
            ":status": self._status,
            ":forget": self._forget,
            ":help": lambda: HELP,
        }

    def greeting(self) -> str:
        """Return what to say first."""
        return HELP if self._client.consent else f"{HELP}\n{ASK}"

    def hint(self, typed: str) -> list[str]:
        """Return the words that may come next."""
        return [suggestion.word for suggestion in self._client.suggest(typed)]

    def take(self, line: str) -> str:
        """Do what a line asks, or keep it.

        Returns
        -------
        str
            What to say; empty for nothing.
        """
        try:
            return self._answer(line)
        except FedpeftError as error:
            return f"! {error}"

    def news(self) -> list[str]:
        """Return what has happened in the background since it was last asked for."""
        found = []
        while True:
            try:
                found.append(self._news.get_nowait())
            except Empty:
                return found

    def close(self) -> None:
        """Wait until what is being learnt is learnt."""
        if self._learning is not None:
            self._learning.join()

    def _answer(self, line: str) -> str:
        command = line.strip()
        if not command:
            return ""
        if command in self._commands:
            return self._commands[command]()
        if command.startswith(":"):
            return f"! {command} is no command\n{HELP}"
        if command.startswith("?"):
            return "  ".join(self.hint(command[1:].lstrip() + (" " if line.endswith(" ") else "")))
        if not self._client.consent:
            return f"not kept. {ASK}"
        self._client.add(command, conversation=self._today)
        self._unlearnt += 1
        return self._learn_by_itself()

    def _learn_by_itself(self) -> str:
        busy = self._learning is not None and self._learning.is_alive()
        if busy or self._unlearnt < self._every:
            return ""
        # Asked anew only after as many more lines: nobody wants to hear of an empty battery at every line.
        self._unlearnt = 0
        verdict = self._client.verdict()
        if not verdict.allowed:
            return f"not learning now: {'; '.join(verdict.reasons)}"
        self._learning = Thread(target=self._learn_behind, daemon=True)
        self._learning.start()
        return "learning in the background"

    def _learn_behind(self) -> None:
        try:
            self._news.put(_told(self._client.personalize(self._train)))
        except FedpeftError as error:
            self._news.put(f"! {error}")

    def _learn_now(self, policy: Policy = ANYTIME) -> str:
        self.close()
        learned = self._client.personalize(self._train, policy)
        self._unlearnt = 0
        return _told(learned)

    def _train(self, job: Job) -> Learned:
        # Only now, when consent and policy have been asked: what trains takes seconds to import.
        return self._trainer()(job)

    def _agree(self) -> str:
        self._client.agree()
        return "agreed: lines are kept here, sealed, and learnt from here"

    def _withdraw(self) -> str:
        self._client.withdraw()
        return "no line is kept any more; :forget deletes those that were"

    def _forget(self) -> str:
        gone, self._unlearnt = self._client.forget(), 0
        return f"forgotten: {gone} lines and what was learnt from them"

    def _status(self) -> str:
        found, verdict = self._client.contents(), self._client.verdict()
        may = "it may learn now" if verdict.allowed else f"it may not learn now: {'; '.join(verdict.reasons)}"
        voice = "it has learnt from you" if self._client.personal else "it has not learnt from you yet"
        return f"lines kept: {found.messages}; consent {'given' if found.consent else 'not given'}; {voice}; {may}"


def _told(learned: Learned) -> str:
    return (
        f"learnt from {learned.messages} lines in {learned.seconds:.0f} s: "
        f"your latest surprise it less, {learned.before:.2f} → {learned.after:.2f} nats a token"
        if learned.after < learned.before
        else f"read {learned.messages} lines; they say nothing new yet"
    )
