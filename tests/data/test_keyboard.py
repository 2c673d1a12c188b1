"""The builtin federation: 64 real people whom the base has never seen."""

import subprocess
import sys
from collections import Counter
from hashlib import sha256

import pytest

from fedpeft.data import keyboard, load_federation
from fedpeft.data.keyboard import public_conversations
from fedpeft.errors import DataError

FEDERATION = load_federation("keyboard")
CLIENTS = [f"user-{i:02d}" for i in range(64)]

_DIGEST = """
from hashlib import sha256
from fedpeft.data import load_federation
from fedpeft.data.keyboard import public_conversations
federation = load_federation("keyboard")
clients = [list(federation.conversations(c)) for c in federation.client_ids()]
print(sha256(repr((clients, public_conversations())).encode()).hexdigest())
"""


def test_there_are_64_clients_with_fixed_names():
    assert FEDERATION.name == "keyboard"
    assert list(FEDERATION.client_ids()) == CLIENTS


@pytest.mark.parametrize("client", CLIENTS[::7])
def test_a_client_wrote_enough_in_enough_conversations(client):
    conversations = list(FEDERATION.conversations(client))
    own = [m for conversation in conversations for m in conversation if m.mine]
    assert 300 <= len(own) <= 4000
    assert len(conversations) >= 8
    assert all(any(m.mine for m in conversation) for conversation in conversations)
    assert all(m.text == m.text.strip() != "" for conversation in conversations for m in conversation)


def test_every_conversation_is_in_order_of_time():
    for client in CLIENTS:
        for conversation in FEDERATION.conversations(client):
            times = [m.time for m in conversation]
            assert times == sorted(times)


def test_no_client_sent_anything_that_is_public():
    public = public_conversations()
    senders = {who for turns in public for who, _, _ in turns}
    held_out = set(keyboard._client_senders())
    assert len(held_out) == 64
    assert len(public) > 4000
    assert senders.isdisjoint(held_out)


def test_no_conversation_is_both_public_and_a_clients():
    shared = Counter(tuple((text, time) for _, text, time in turns) for turns in public_conversations() if turns)
    for client in CLIENTS:
        for conversation in FEDERATION.conversations(client):
            assert tuple((m.text, m.time) for m in conversation) not in shared


def test_the_split_is_the_same_in_another_process_with_another_hash_seed():
    other = subprocess.run(
        [sys.executable, "-c", _DIGEST],
        env={"PYTHONHASHSEED": "4242", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    clients = [list(FEDERATION.conversations(c)) for c in CLIENTS]
    mine = sha256(repr((clients, public_conversations())).encode()).hexdigest()
    assert other.stdout.strip() == mine


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("keybord", "did you mean 'keyboard'?"),
        ("nothing like it", "known: enrolled, keyboard"),
        ("some/folder", "no folder .*some/folder exists"),
    ],
)
def test_an_unknown_federation_is_refused_with_what_was_probably_meant(name, remedy):
    with pytest.raises(
        DataError, match=r"data\.federation: found .*'keyboard', 'shakespeare', a folder of JSONL files, or"
    ) as refused:
        load_federation(name)
    assert refused.value.value == name
    assert refused.match(remedy.replace("?", r"\?"))
