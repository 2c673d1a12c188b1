"""What an operator's shelf holds, and what no publisher, thief or bad disk can make of it."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.source import FolderSource, head_data, history, parse_head
from fedpeft.device.versions.version import Head, Version
from fedpeft.errors import ShelfError
from fedpeft.registry.collect import collect
from fedpeft.registry.publisher import Publisher
from fedpeft.registry.shelf import Shelf
from tests.registry.bundles import FEDERATION, KEY, OTHER_KEY, TRUST, adapter_bundle, base_bundle, publisher, put


@pytest.fixture
def shelf(tmp_path: Path) -> Publisher:
    return publisher(tmp_path / "shelf")


def test_a_version_says_where_it_comes_from_and_its_head_names_it(shelf, tmp_path):
    first, one = put(shelf, tmp_path, 1)
    second, two = put(shelf, tmp_path, 2)
    assert (one.number, two.number, two.version) == (1, 2, second.id)
    assert (first.parent, second.parent) == (None, first.id)
    assert (second.run, second.round, second.metrics, second.privacy) == (
        "run",
        2,
        {"top3": 0.25},
        {"mechanism": "none"},
    )
    assert first.bundles.base["model.onnx.data"] == second.bundles.base["model.onnx.data"]
    assert [v.id for v in history(FolderSource(shelf.folder), TRUST, "stable")] == [second.id, first.id]
    assert Shelf(shelf.folder).verify() == {}


def test_publishing_the_same_again_changes_nothing(shelf, tmp_path):
    first, head = put(shelf, tmp_path / "a", 1)
    again, same = put(shelf, tmp_path / "b", 1)
    assert (again, same) == (first, head)
    assert len(shelf.versions()) == len(shelf.heads()) == 1


def test_rolling_back_goes_forward_to_an_earlier_version(shelf, tmp_path):
    first, _ = put(shelf, tmp_path, 1)
    second, _ = put(shelf, tmp_path, 2)
    head = shelf.rollback()
    assert (head.number, head.version) == (3, first.id)
    with pytest.raises(ShelfError, match="followed another"):
        shelf.rollback()
    assert shelf.rollback(to=second.id).number == 4
    third, _ = put(shelf, tmp_path, 3)
    assert third.parent == second.id
    assert (shelf.rollback().version, shelf.rollback().version) == (second.id, first.id)
    with pytest.raises(ShelfError, match="channel"):
        shelf.rollback("beta")


def test_a_version_that_one_channel_has_tried_becomes_anothers(shelf, tmp_path):
    put(shelf, tmp_path, 1)
    tried, _ = put(shelf, tmp_path, 2, channel="beta")
    taken, head = put(shelf, tmp_path / "again", 2)
    assert (taken, head.number, head.version) == (tried, 2, tried.id)
    assert len(shelf.versions()) == 2


def test_channels_have_numbers_of_their_own(shelf, tmp_path):
    put(shelf, tmp_path, 1)
    _, head = put(shelf, tmp_path, 2, channel="beta")
    assert head.number == 1
    assert shelf.channels() == ["beta", "stable"]
    with pytest.raises(ShelfError, match="channel"):
        put(shelf, tmp_path, 3, channel="../up")


def test_another_key_or_federation_publishes_nothing_here(shelf, tmp_path):
    with pytest.raises(ShelfError, match="signer"):
        publisher(shelf.folder, OTHER_KEY)
    with pytest.raises(ShelfError, match="federation"):
        publisher(shelf.folder, federation="other")
    with pytest.raises(ShelfError, match="--key"):
        Publisher(shelf.folder, FEDERATION)
    assert not (shelf.folder / "trust").exists()
    own = Publisher(tmp_path / "own", FEDERATION)
    assert (tmp_path / "own" / "trust" / "operator.pem").stat().st_mode & 0o777 == 0o600
    assert Publisher(tmp_path / "own", FEDERATION).trust == own.trust == Trust.read(tmp_path / "own" / "pinned.json")


def test_a_bundle_that_somebody_else_signed_or_that_changed_is_not_published(shelf, tmp_path):
    put(shelf, tmp_path, 1)
    facts = shelf.versions()[0]
    bases = {"theirs": base_bundle(tmp_path / "theirs", key=OTHER_KEY), "altered": base_bundle(tmp_path / "altered")}
    (bases["altered"] / "model.onnx").write_bytes(b"x")
    for base in bases.values():
        with pytest.raises(Exception, match=r"signer|bytes"):
            shelf.publish(facts, {"base": base, "adapter": adapter_bundle(tmp_path / f"{base.name}-adapter", 5)})
    assert len(shelf.versions()) == 1


def _publish(folder: Path, drafts: Path, number: int) -> None:
    put(publisher(folder), drafts / str(number), number)


def test_two_publishers_at_once_get_different_numbers_and_one_history(tmp_path):
    publisher(tmp_path / "shelf")
    work = [
        multiprocessing.get_context("fork").Process(target=_publish, args=(tmp_path / "shelf", tmp_path, number))
        for number in range(6)
    ]
    for process in work:
        process.start()
    for process in work:
        process.join()
    assert [process.exitcode for process in work] == [0] * 6
    shelf = Shelf(tmp_path / "shelf")
    assert [head.number for head in shelf.heads()] == [6, 5, 4, 3, 2, 1]
    assert len(list(history(FolderSource(shelf.folder), TRUST, "stable"))) == 6
    assert shelf.verify() == {}


def test_a_damaged_or_missing_file_is_named_and_publishing_it_again_heals_it(shelf, tmp_path):
    version, _ = put(shelf, tmp_path / "a", 1)
    data, tokens = (version.bundles.base[name].sha256 for name in ("model.onnx.data", "tokenizer.json"))
    content = bytearray(shelf.blob(data).read_bytes())
    content[1000] ^= 1
    shelf.blob(data).write_bytes(content)
    shelf.blob(tokens).unlink()
    (shelf.folder / "versions" / "head" / "stable").write_text("no head")
    wrong = shelf.verify()
    assert "model.onnx.data" in wrong[f"blobs/{data}"]
    assert "damaged" in wrong[f"blobs/{data}"]
    assert "missing" in wrong[f"blobs/{tokens}"]
    assert set(wrong) == {f"blobs/{data}", f"blobs/{tokens}", "versions/head/stable"}
    with pytest.raises(ShelfError, match="damaged"):
        shelf.rollback(to=version.id)
    put(publisher(shelf.folder), tmp_path / "b", 1)
    assert shelf.verify() == {}


def test_what_nobody_needs_is_removed_and_nothing_else(shelf, tmp_path):
    versions = [put(shelf, tmp_path, number, base=number)[0] for number in range(1, 5)]
    put(shelf, tmp_path, 5, channel="beta")
    (shelf.folder / "blobs" / ".draft").write_bytes(b"of a publisher who was killed")
    gone, freed = collect(shelf, keep=2)
    assert (gone, freed > 300_000) == (2, True)
    assert [v.id for v in shelf.versions()][:2] == [v.id for v in versions[2:]]
    assert shelf.verify() == {}
    assert not (shelf.folder / "blobs" / ".draft").exists()
    assert collect(shelf, keep=2) == (0, 0)
    with pytest.raises(ShelfError, match="keep"):
        collect(shelf, keep=0)


def test_a_publisher_killed_before_the_heads_file_is_written_is_made_good_by_the_next(shelf, tmp_path, monkeypatch):
    put(shelf, tmp_path, 1)
    monkeypatch.setattr(Publisher, "show_heads", lambda self: None)
    second, _ = put(shelf, tmp_path, 2)
    monkeypatch.undo()
    file = shelf.folder / "versions" / "head" / "stable"
    assert Head.read(file.read_bytes(), TRUST, "").number == 1
    publisher(shelf.folder)
    assert Head.read(file.read_bytes(), TRUST, "").version == second.id


def test_a_lost_index_is_read_again_and_a_damaged_one_says_so(shelf, tmp_path):
    put(shelf, tmp_path, 1)
    put(shelf, tmp_path, 2)
    (shelf.folder / "index.sqlite").unlink()
    again = publisher(shelf.folder)
    assert {v.id for v in again.versions()} == {v.id for v in history(FolderSource(shelf.folder), TRUST, "stable")}
    assert put(again, tmp_path, 3)[1].number == 3
    (shelf.folder / "index.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ShelfError, match="index"):
        Shelf(shelf.folder)
    (shelf.folder / "index.sqlite").unlink()
    sqlite3.connect(shelf.folder / "index.sqlite").execute("PRAGMA user_version = 9").connection.close()
    with pytest.raises(ShelfError, match="format"):
        Shelf(shelf.folder)


def test_no_shelf_is_no_shelf(tmp_path):
    with pytest.raises(ShelfError, match="registry publish"):
        Shelf(tmp_path)
    with pytest.raises(ShelfError, match="registry publish"):
        FolderSource(tmp_path)


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("signed")
    shelf = publisher(folder / "shelf")
    version, _ = put(shelf, folder, 1)
    source = FolderSource(shelf.folder)
    return {"head": head_data(source, "stable"), "version": source.document(f"versions/{version.id}", 1 << 20)}


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["head", "version"]), data=st.data())
def test_no_document_with_any_byte_changed_is_believed(signed, kind, data):
    document = bytearray(signed[kind])
    at = data.draw(st.integers(0, len(document) - 2))
    document[at] ^= data.draw(st.integers(1, 255))
    reader = Head if kind == "head" else Version
    try:
        read = reader.read(bytes(document), TRUST, "here")
    except ShelfError:
        return
    # The signature's digits may be written in capitals; nothing that was signed is another.
    assert read == reader.read(signed[kind], TRUST, "here")


def test_a_document_of_another_kind_federation_signer_or_spelling_is_refused(signed):
    for data, trust, match in (
        (signed["version"], TRUST, "signature"),
        (signed["head"], Trust("other", TRUST.signers), "federation"),
        (signed["head"], Trust(FEDERATION, frozenset()), "signer"),
        (b"", TRUST, "a document and its signature"),
        (b"[]\n00", TRUST, "a document and its signature"),
        (b'{"signer": 3}\n', TRUST, "a document and its signature"),
    ):
        with pytest.raises(ShelfError, match=match):
            Head.read(data, trust, "here")
    head = parse_head(signed["head"], TRUST, "stable", "here")
    with pytest.raises(ShelfError, match="channel"):
        parse_head(signed["head"], TRUST, "beta", "here")
    with pytest.raises(ShelfError, match="the key that signs"):
        head.signed(OTHER_KEY)
    content = json.dumps(json.loads(signed["head"].split(b"\n")[0])).encode()  # with spaces
    from fedpeft.signing.signature import sign

    with pytest.raises(ShelfError, match="canonical"):
        Head.read(content + b"\n" + sign(KEY, "head", content).hex().encode(), TRUST, "here")
