"""From one base to another, without losing what a person's adapter has learnt.

An adapter is a change of one base's weights and says nothing about any other's. What it was learnt from is still in the
device's store, so it is learnt again: on the new base, on top of the new version's adapter, while the old base and the
old personal adapter answer. When the new one is there, one file is replaced, and both change at once:

    waiting ──► personalize on the new base ──► state.json ──► new base, new personal adapter
                 │ no consent, too little text, policy, kill -9: the old ones answer on
"""

from __future__ import annotations

from collections.abc import Callable

from fedpeft.device.edge.client import EdgeClient
from fedpeft.device.edge.policy import Policy
from fedpeft.device.edge.training import Learned, Trainer
from fedpeft.device.versions.installed import Installed, Pair
from fedpeft.device.versions.version import Version
from fedpeft.errors import ShelfError


def open_pair(pair: Pair) -> EdgeClient:
    """Open a device over a version that is installed on it."""
    return EdgeClient(pair.home.folder, pair.base, pair.adapter, trusted=pair.trusted)


def migrate(
    installed: Installed,
    trainer: Trainer,
    policy: Policy | None = None,
    opened: Callable[[Pair], EdgeClient] = open_pair,
) -> Learned:
    """Learn the person's adapter on the base of the version that waits, and let both answer.

    Parameters
    ----------
    installed : Installed
    trainer : Trainer
    policy : Policy, optional
        Instead of the client's own.
    opened : callable
        Opens the device over a version, for an app with an owner, a store or a policy of its own.

    Returns
    -------
    Learned

    Raises
    ------
    ShelfError
        When no version waits, or the one that did was replaced by one for yet another base.
    FedpeftError
        As of :meth:`fedpeft.device.EdgeClient.personalize`; what answered before still does.
    """
    pair = _waiting(installed)
    learned = opened(pair).personalize(trainer, policy)
    with installed.locked():
        now = installed.current()
        if now is None or now.version.base != pair.version.base:  # a fetch that came between may have done it
            later = _waiting(installed)
            if later.version.base != pair.version.base:
                found = f"the base {later.version.base[:12]}…"
                raise ShelfError("version waiting", found, f"{pair.version.base[:12]}…, as before", "migrate again")
            installed.switch(later.version.id)
        installed.home.personal.clear(besides={pair.version.base})
    return learned


def abandon(installed: Installed) -> Version:
    """Let the version that waits answer without a personal adapter; the texts stay, to personalize from.

    Raises
    ------
    ShelfError
        When no version waits.
    """
    with installed.locked():
        pair = _waiting(installed)
        # In this order: killed in between, the old base answers, and the next fetch puts the new one in force.
        installed.home.personal.clear()
        installed.switch(pair.version.id)
    return pair.version


def _waiting(installed: Installed) -> Pair:
    pair = installed.waiting()
    if pair is None:
        raise ShelfError("version waiting", "none", "one for another base", "`fedpeft client fetch` says when")
    return pair
