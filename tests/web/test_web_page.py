"""The page in a real Chromium: the words Python suggests, another person's at once, all of it without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from fedpeft.device.archive import pack
from fedpeft.device.folders import adapter_folder
from fedpeft.web import Server
from tests.web.conftest import PEOPLE, Reference, chosen, opened, serve, settled, shown, typed

PREFIXES = (
    "",
    "I think ",
    "what do you ",
    "I'm goi",
    "(so",
    "that sounds like fun! I",
    "café is ni",
    "it's 5 o'cl",
    "</s> is the ma",
    "I was thinking that we could maybe go to the ",
)


@pytest.mark.parametrize("who", ["base", *PEOPLE])
def test_the_browser_suggests_what_python_suggests(page: Page, reference: Reference, who: str) -> None:
    chosen(page, who)
    for prefix in PREFIXES:
        expected = reference.suggest(prefix, who)
        found = typed(page, prefix)
        assert [word for word, _ in found] == [word for word, _ in expected], prefix
        assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-4), prefix


def test_a_text_that_grows_and_shrinks_is_read_as_if_it_were_new(page: Page, reference: Reference) -> None:
    chosen(page, "ada")
    for text in ("I think that we", "I think that we should ", "I think this ", "I think that we should ", "we"):
        expected = reference.suggest(text, "ada")
        found = typed(page, text)
        assert [word for word, _ in found] == [word for word, _ in expected], text
        assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-4), text


def test_a_text_longer_than_the_context_loses_the_same_beginning(page: Page, reference: Reference) -> None:
    chosen(page, "ada")
    long = "We could maybe go to the beach, or not. " * 60
    assert len(reference.runtime.text.encode(long)) > reference.runtime.context
    for text in (long, long + "I think ", long + "I think that we sh"):
        expected = reference.suggest(text, "ada")
        found = typed(page, text)
        assert [word for word, _ in found] == [word for word, _ in expected]
        assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-4)


def test_people_differ_from_each_other_and_from_the_base_and_switching_back_gives_the_same(page: Page) -> None:
    words = {}
    typed(page, "I think ")
    for who in ("base", *PEOPLE, "base", *PEOPLE):
        chosen(page, who)
        assert words.setdefault(who, shown(page)) == shown(page)
    assert len({tuple(w) for w in words.values()}) == 1 + len(PEOPLE)


@pytest.mark.parametrize("who", ["base", "bob", "cleo", "dan"])
def test_a_message_is_finished_as_python_finishes_it(page: Page, reference: Reference, who: str) -> None:
    chosen(page, who)
    typed(page, "I think that")
    page.get_by_role("button", name="Finish the message").click()
    expect(page.locator("#message")).to_have_value("I think that" + reference.complete("I think that", who))


def test_clicking_a_word_puts_it_into_the_message_and_a_full_stop_takes_back_its_space(page: Page) -> None:
    chosen(page, "base")
    (_, _), (word, _), *_ = typed(page, "what do yo")
    page.locator("#words button").nth(1).click()
    expect(page.locator("#message")).to_have_value(f"what do {word} ")
    page.keyboard.press(".")
    expect(page.locator("#message")).to_have_value(f"what do {word}. ")


def test_everything_can_be_done_with_the_keyboard_and_tab_traps_nobody(page: Page) -> None:
    settled(page)
    page.locator("#who-ada").focus()
    page.keyboard.press("ArrowRight")
    settled(page)
    expect(page.locator("#who-bob")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("I thi")
    settled(page)
    (first, _), *_ = shown(page)
    page.keyboard.press("Tab")
    settled(page)
    _, (second, _), *_ = shown(page)
    page.keyboard.press("Alt+2")
    expect(page.locator("#message")).to_have_value(f"I {first} {second} ")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.locator("#message")).not_to_be_focused()


def test_without_a_network_the_page_loads_and_suggests_the_same(
    browser: Browser, site: Path, reference: Reference
) -> None:
    serving = serve(site)
    server = next(serving)
    context = browser.new_context()
    opened(context.new_page(), server).close()
    next(serving, None)
    server.server_close()
    page = opened(context.new_page(), server)
    chosen(page, "bob")
    expected = reference.suggest("I think ", "bob")
    assert [word for word, _ in typed(page, "I think ")] == [word for word, _ in expected]
    context.close()


def test_nothing_is_asked_of_any_server_once_the_page_is_loaded(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    before = len(server.requests)
    for who in PEOPLE:
        chosen(page, who)
        typed(page, f"my secret is {who} ")
    page.get_by_role("button", name="Finish the message").click()
    page.wait_for_timeout(500)
    assert asked == []
    assert server.requests[before:] == []
    expect(page.locator("#facts")).to_contain_text("none; what you write stays here")


def test_the_page_cannot_speak_to_another_site(page: Page, server: Server) -> None:
    assert {url for url in server.requests if "//" in url.removeprefix("/")} == set()
    script = "fetch('http://127.0.0.1:9/').then(() => 'sent', (e) => e.message)"
    assert "sent" not in page.evaluate(script)
    header = page.evaluate("fetch('./').then((r) => r.headers.get('content-security-policy'))")
    assert "connect-src 'self'" in header
    assert "//" not in header


def test_it_can_be_installed(page: Page) -> None:
    manifest = page.evaluate("fetch('./app.webmanifest').then((r) => r.json())")
    assert manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        found = page.evaluate("(src) => fetch(src).then((r) => r.headers.get('content-type'))", icon["src"])
        assert found == icon["type"]
    assert page.evaluate("navigator.serviceWorker.controller !== null")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_can_be_read(page: Page, scheme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.wait_for_timeout(300)  # colours fade
    typed(page, "I think ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 40
    assert page.evaluate((Path(__file__).parent / "contrast.js").read_text()) == []


def test_an_adapter_on_the_persons_own_disk_can_be_opened(
    browser: Browser, run: Path, site_copy: Path, reference: Reference
) -> None:
    index = json.loads((site_copy / "bundles" / "index.json").read_text())
    (site_copy / "bundles" / "index.json").write_text(json.dumps({**index, "people": ["ada"]}))
    serving = serve(site_copy)
    context = browser.new_context()
    page = opened(context.new_page(), next(serving))
    expect(page.locator("#who-bob")).to_have_count(0)
    folder = adapter_folder(run, "bob")
    page.locator("#open").set_input_files([folder / name for name in ("manifest.json", "manifest.sig")])
    expect(page.locator("#refused")).to_contain_text("adapter.onnx_adapter too")
    page.locator("#open").set_input_files(sorted(folder.iterdir()))
    expect(page.locator("#who-bob")).to_be_checked()
    pack(adapter_folder(run, "dan"), site_copy / "dan.fedpeft")
    page.locator("#open").set_input_files(site_copy / "dan.fedpeft")
    expect(page.locator("#who-dan")).to_be_checked()
    chosen(page, "bob")
    assert [w for w, _ in typed(page, "I think ")] == [w for w, _ in reference.suggest("I think ", "bob")]
    context.close()
    next(serving, None)
