"""Downloads over TLS from a server or a network that misbehaves: each ends whole, or in one clear line."""

from __future__ import annotations

import shutil
import threading
from http.client import HTTPSConnection
from pathlib import Path
from ssl import create_default_context

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpeft.device.versions.download import Patience, download
from fedpeft.device.versions.fetch import fetch
from fedpeft.device.versions.installed import Installed
from fedpeft.device.versions.source import open_source
from fedpeft.device.versions.web import WebSource
from fedpeft.errors import FetchError, ShelfError
from fedpeft.signing.tls import make_certificates
from tests.device.versions.conftest import QUICK
from tests.device.versions.network import cutting, served
from tests.device.versions.test_versions_fetch import whole
from tests.registry.bundles import TRUST, publisher, put


def bring(server, installed: Installed, **options):
    return fetch(
        open_source(server.url, server.ca), TRUST, installed, patience=options.pop("patience", QUICK), **options
    )


def test_a_version_comes_over_tls_and_the_next_only_in_part(shelf, server, installed, tmp_path):
    first, _ = put(shelf, tmp_path, 1)
    heard = []
    got = bring(server, installed, progress=lambda done, total: heard.append((done, total)))
    assert got.outcome == "installed"
    assert heard[-1] == (got.bytes, got.bytes) == (first.size("base") + first.size("adapter"),) * 2
    assert whole(installed, first.id)
    second, _ = put(shelf, tmp_path, 2)
    before = server.app.sent
    assert bring(server, installed).bytes == second.size("adapter")
    assert server.app.sent - before < second.size("adapter") + 6000  # head and record besides


@pytest.mark.parametrize("at", [0, 1, 65_535, 65_536, 200_000, 299_999])
def test_a_download_that_is_cut_goes_on_where_it_was(shelf, server, installed, tmp_path, at):
    version, _ = put(shelf, tmp_path, 1)
    data = version.bundles.base["model.onnx.data"].sha256
    server.app.spoil = [(data, ("cut", at))]
    got = bring(server, installed)
    assert whole(installed, version.id)
    assert got.bytes == sum(file.bytes for _, _, file in version.files())  # no byte came twice
    ranges = [asked for path, asked in server.app.asked if data in path]
    assert ranges == ["", f"bytes={at}-" if at else ""]


def test_a_device_that_gave_up_goes_on_at_the_next_attempt(shelf, server, installed, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    data = version.bundles.base["model.onnx.data"].sha256
    server.app.spoil = [(data, ("cut", 100_000)), *[(data, 503)] * 3]
    with pytest.raises(FetchError, match="503"):
        bring(server, installed)
    assert (installed.parts / f"{data}.part").stat().st_size == 100_000
    assert installed.current() is None
    assert bring(server, installed).bytes < version.size("base") + version.size("adapter") - 99_999
    assert whole(installed, version.id)


@pytest.mark.parametrize("how", [500, 502, 503, 429, ("cut", 10)])
@pytest.mark.parametrize("path", ["/head/", "/versions/", "/blobs/"])
def test_errors_that_pass_are_waited_out(shelf, server, installed, tmp_path, path, how):
    version, _ = put(shelf, tmp_path, 1)
    server.app.spoil = [(path, how), (path, how)]
    assert bring(server, installed).outcome == "installed"
    assert whole(installed, version.id)


def test_a_server_without_ranges_sends_all_of_it_again(shelf, server, installed, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    data = version.bundles.base["model.onnx.data"].sha256
    server.app.spoil = [(data, ("cut", 100_000)), (data, "norange")]
    got = bring(server, installed)
    assert got.bytes == version.size("base") + version.size("adapter") + 100_000
    assert whole(installed, version.id)


def test_a_part_that_the_disk_spoilt_is_fetched_again(shelf, server, installed, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    data = version.bundles.base["model.onnx.data"].sha256
    for part in (bytes(50_000), bytes(300_000), bytes(300_001)):
        with installed.locked():
            (installed.parts / f"{data}.part").write_bytes(part)
        bring(server, installed)
        assert whole(installed, version.id)
        shutil.rmtree(installed.folder)


@pytest.mark.parametrize(
    ("path", "how", "said"),
    [
        ("/blobs/", "flip", "what was signed|the one that was signed"),
        ("/blobs/", "long", "as signed"),
        ("/blobs/", "page", "as was signed"),
        ("/blobs/", 404, "404"),
        ("/blobs/", 302, "302"),
        ("/head/", "flip", "signature"),
        ("/head/", "page", "a document and its signature"),
        ("/head/", 403, "403"),
        ("/versions/", 404, "404"),
    ],
)
def test_anything_else_than_what_was_signed_is_refused_and_what_answers_stays(
    shelf, server, installed, tmp_path, path, how, said
):
    first, _ = put(shelf, tmp_path, 1)
    bring(server, installed)
    put(shelf, tmp_path, 2, base=2)
    server.app.spoil = [(path, how)]
    with pytest.raises(ShelfError, match=said):
        bring(server, installed)
    assert whole(installed, first.id)
    assert bring(server, installed).outcome == "installed"


def test_another_authority_or_name_and_a_server_that_is_away_are_one_line_each(shelf, server, installed, tmp_path):
    put(shelf, tmp_path, 1)
    make_certificates(tmp_path / "other", "chat", [])
    with pytest.raises(ShelfError, match="certificate"):
        fetch(open_source(server.url, tmp_path / "other" / "ca.pem"), TRUST, installed, patience=QUICK)
    make_certificates(tmp_path / "named", "chat", ["fed.example.org"])
    with pytest.raises(FetchError, match="an answer"):
        fetch(open_source("https://localhost:9", server.ca), TRUST, installed, patience=QUICK)
    for url in ("http://localhost", "https://", "ftp://x", "https://a:b@c", "https://x:99999", "https://x?y"):
        with pytest.raises(ShelfError, match="address"):
            open_source(url)
    with pytest.raises(ShelfError, match="authority"):
        WebSource(server.url, tmp_path / "nothing.pem")


def test_a_server_that_never_ends_is_not_waited_for(shelf, server, installed, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    data = version.bundles.base["model.onnx.data"].sha256
    server.app.spoil = [(data, ("cut", 100_000))] * 9
    with pytest.raises(FetchError):
        bring(server, installed, patience=Patience(attempts=50, first=0.2, most=0.2, seconds=0.1))
    assert installed.current() is None


def test_two_devices_and_two_processes_of_one_fetch_at_once(shelf, server, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    homes = [Installed(tmp_path / name) for name in ("me", "me", "you", "they")]
    work = [threading.Thread(target=lambda home=home: bring(server, home)) for home in homes]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert all(whole(home, version.id) for home in homes)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(limits=st.lists(st.integers(0, 60_000), max_size=8))
def test_whatever_byte_the_line_is_cut_at_the_file_comes_whole(line, tmp_path_factory, limits):
    source, file, front, cuts = line
    cuts[:] = limits
    place = tmp_path_factory.mktemp("device") / "file"
    web = WebSource(f"https://localhost:{front}", source.ca, seconds=5)
    patience = Patience(attempts=20, first=0.001, most=0.001)
    got = download(web, file, place, patience)
    assert got == file.bytes == place.stat().st_size


@pytest.fixture(scope="module")
def line(tmp_path_factory, tls):
    folder: Path = tmp_path_factory.mktemp("line")
    shelf = publisher(folder / "shelf")
    version, _ = put(shelf, folder, 1, size=100_000)
    cuts: list[int] = []
    with served(shelf.folder, tls) as server, cutting(server.port, cuts) as front:
        yield server, version.bundles.base["model.onnx.data"], front, cuts


def test_the_routes_answer_to_plain_names_and_nothing_else(shelf, server, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    data = version.bundles.base["model.onnx.data"]
    (shelf.folder / "blobs" / ("0" * 64)).mkdir()
    connection = HTTPSConnection("localhost", server.port, context=create_default_context(cafile=str(server.ca)))

    def ask(path: str, **headers: str):
        connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    for path in (
        "/pinned.json", "/index.sqlite", "/trust/operator.pem", "/", "/blobs/", "/versions/head",
        "/versions/head/../../pinned.json", "/versions/head/..%2f..%2fpinned.json", "/versions/head/STABLE",
        "/versions/..%2findex.sqlite", "/blobs/..%2fpinned.json", f"/blobs/{'0' * 64}", f"/blobs/{'1' * 64}",
        f"/blobs/{data.sha256.upper()}", f"/versions/{data.sha256}", "/versions/head/" + "a" * 5000,
    ):  # fmt: skip
        assert ask(path)[0] == 404, path
    status, headers, body = ask(f"/blobs/{data.sha256}")
    assert (status, len(body), headers["ETag"]) == (200, data.bytes, f'"{data.sha256}"')
    status, headers, body = ask(f"/blobs/{data.sha256}", Range="bytes=299990-", If_Range=f'"{data.sha256}"')
    assert (status, len(body), headers["Content-Range"]) == (206, 10, "bytes 299990-299999/300000")
    assert ask(f"/blobs/{data.sha256}", Range="bytes=299990-", If_Range='"other"')[0] == 200
    assert ask(f"/blobs/{data.sha256}", Range="bytes=300000-")[0] == 416
    assert ask(f"/blobs/{data.sha256}", Range="bytes=0-1,5-6")[0] == 416
    assert ask(f"/blobs/{data.sha256}", Range="lines=1-")[0] == 400
    status, headers, _ = ask("/versions/head/stable")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert ask("/versions/head/stable", If_None_Match=headers["ETag"])[0] == 304
    connection.request("POST", "/versions/head/stable", body=b"x")
    assert connection.getresponse().status == 405
    connection.close()
