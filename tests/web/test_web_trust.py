"""What the browser refuses, and that it says why: the same bundles that Python's runtime refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from playwright.sync_api import Browser, Page, expect

from fedpeft.device.archive import pack
from fedpeft.device.bundle import hash_files, seal
from fedpeft.device.folders import adapter_folder
from fedpeft.device.manifest import Manifest
from fedpeft.export.run import signing_key
from fedpeft.signing.signature import SigningKey, public_bytes
from fedpeft.web import Server
from tests.web.conftest import chosen, opened, random_adapter, typed


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def taken(folder: Path) -> Manifest:
    """Take a bundle's manifest away, for another."""
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes(), "")
    for name in ("manifest.json", "manifest.sig"):
        (folder / name).unlink()
    return manifest


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def flipped(folder: Path, run: Path) -> str:
    flip(folder / "adapter.onnx_adapter")
    return "sha256"


def truncated(folder: Path, run: Path) -> str:
    path = folder / "adapter.onnx_adapter"
    path.write_bytes(path.read_bytes()[:-1])
    return "bytes"


def edited(folder: Path, run: Path) -> str:
    edit(folder / "manifest.json", '"name":"ada"', '"name":"bab"')
    return "its signer's signature"


def stranger(folder: Path, run: Path) -> str:
    content = (folder / "manifest.json").read_bytes()
    key = SigningKey.generate()
    seal(folder, Manifest.from_json(content, "").model_copy(update={"signer": public_bytes(key).hex()}), key)
    return "one that is trusted"


def another_base(folder: Path, run: Path) -> str:
    content = (folder / "manifest.json").read_bytes()
    other = Manifest.from_json(content, "").model_copy(update={"base_fingerprint": "0" * 64})
    seal(folder, other, signing_key(run))
    return "the base"


def other_tensors(folder: Path, run: Path) -> str:
    manifest = taken(folder)
    shapes = {**manifest.tensors, "model.layers.0.self_attn.q_proj.lora_A.weight": (256, 5)}
    seal(folder, manifest.model_copy(update={"tensors": shapes, "files": hash_files(folder)}), signing_key(run))
    return "the shape listed"


def not_finite(folder: Path, run: Path) -> str:
    path, manifest = folder / "adapter.onnx_adapter", taken(folder)
    base = Manifest.from_json((run / "device/base/manifest.json").read_bytes(), "")
    number, content = random_adapter(base, seed=0).vector[:1].tobytes(), path.read_bytes()
    assert content.count(number) == 1
    path.write_bytes(content.replace(number, b"\x00\x00\xc0\x7f"))
    seal(folder, manifest.model_copy(update={"files": hash_files(folder)}), signing_key(run))
    return "finite numbers"


@pytest.mark.parametrize("damage", [flipped, truncated, edited, stranger, another_base, other_tensors, not_finite])
def test_an_adapter_that_is_not_what_it_should_be_is_refused(
    damage: Callable[[Path, Path], str], page: Page, run: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(adapter_folder(run, "ada"), tmp_path / "ada")
    chosen(page, "eve")
    words, before = typed(page, "I think "), page.locator("#refused li").count()
    reason = damage(folder, run)
    page.locator("#open").set_input_files(sorted(folder.iterdir()))
    expect(page.locator("#refused li")).to_have_count(before + 1)
    expect(page.locator("#refused li").last).to_contain_text(reason)
    expect(page.locator("#who-eve")).to_be_checked()
    assert typed(page, "I think  ")[0] != []
    assert typed(page, "I think ") == words


def bomb(path: Path, whole: Path) -> str:
    with ZipFile(path, "w", ZIP_DEFLATED) as zipped:
        zipped.writestr("manifest.json", bytes(64 << 20))
    return "more than it should hold"


def climbing(path: Path, whole: Path) -> str:
    with ZipFile(path, "w") as zipped:
        zipped.writestr("../manifest.json", b"{}")
    return "a plain name"


def crowded(path: Path, whole: Path) -> str:
    with ZipFile(path, "w") as zipped:
        for i in range(17):
            zipped.writestr(f"file{i}", b"")
    return "at most 16"


def cut_off(path: Path, whole: Path) -> str:
    path.write_bytes(whole.read_bytes()[:-30])
    return "a zip file"


def garbled(path: Path, whole: Path) -> str:
    content = bytearray(whole.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    return "expected"


@pytest.mark.parametrize("damage", [bomb, climbing, crowded, cut_off, garbled])
def test_a_hostile_archive_is_refused(
    damage: Callable[[Path, Path], str], page: Page, run: Path, tmp_path: Path
) -> None:
    pack(adapter_folder(run, "ada"), tmp_path / "whole.zip")
    before = page.locator("#refused li").count()
    reason = damage(tmp_path / "damaged.zip", tmp_path / "whole.zip")
    page.locator("#open").set_input_files(tmp_path / "damaged.zip")
    expect(page.locator("#refused li")).to_have_count(before + 1)
    expect(page.locator("#refused li").last).to_contain_text(reason)
    assert len(typed(page, "I think ")) == 3


def test_what_a_site_offers_and_is_refused_does_not_keep_the_others_from_working(
    browser: Browser, other_server: Server, site_copy: Path, run: Path
) -> None:
    people = site_copy / "bundles" / "adapters"
    flipped(people / "bob", run)
    (people / "dan" / "manifest.sig").unlink()
    shutil.copytree(people / "ada", people / "eve", dirs_exist_ok=True)
    index = site_copy / "bundles" / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "people": ["bob", "dan", "eve", "ada"]}))
    context = browser.new_context(service_workers="block")
    page = opened(context.new_page(), other_server)
    for who, reason in (("bob", "sha256"), ("dan", "status 404"), ("eve", "found ada's, expected eve's")):
        expect(page.locator("#refused li", has_text=who).first).to_contain_text(reason)
        expect(page.locator(f"#who-{who}")).to_have_count(0)
    expect(page.locator("#who-ada")).to_be_checked()
    assert len(typed(page, "I think ")) == 3
    context.close()


def altered_graph(site: Path, run: Path) -> str:
    flip(site / "bundles/base/model.onnx")
    return "sha256"


def unknown_signer(site: Path, run: Path) -> str:
    index = site / "bundles" / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "trusted": ["0" * 64]}))
    return "one that is trusted"


def wrong_variant(site: Path, run: Path) -> str:
    folder = site / "bundles/base"
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes(), "")
    seal(folder, manifest.model_copy(update={"variant": "optional"}), signing_key(run))
    return "fedpeft web build"


@pytest.mark.parametrize("damage", [altered_graph, unknown_signer, wrong_variant])
def test_a_base_that_is_not_what_it_should_be_leaves_a_page_that_says_why(
    damage: Callable[[Path, Path], str], browser: Browser, other_server: Server, site_copy: Path, run: Path
) -> None:
    reason = damage(site_copy, run)
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    page.goto(other_server.address)
    page.wait_for_selector("body[data-failed]", timeout=60_000)
    expect(page.locator("#refused")).to_contain_text(reason)
    expect(page.get_by_role("button", name="Finish the message")).to_be_disabled()
    context.close()
