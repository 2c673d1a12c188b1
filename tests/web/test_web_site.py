"""The folder that is built, the graph in it, and the server that shows it."""

from __future__ import annotations

import http.client
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from fedpeft.cli import main
from fedpeft.device import Manifest, Runtime
from fedpeft.device.bundle import Bundle
from fedpeft.device.folders import adapter_folder, base_folder
from fedpeft.errors import BundleError, RunError, WebError
from fedpeft.web import Server, build_site, built_page
from fedpeft.web.server import POLICY
from fedpeft.web.site import _NAME
from tests.web.conftest import Reference

IDS = [1, 3, 305, 290, 411, 1200, 17]


def test_the_base_travels_as_int8_in_a_quarter_of_the_bytes_and_verifies(site: Path, run: Path) -> None:
    bundle = Bundle.open(site / "bundles" / "base", "base")
    bundle.verify()
    assert (bundle.manifest.variant, bundle.manifest.precision) == ("required", "int8")
    plain = sum(file.bytes for file in Bundle.open(base_folder(run), "base").manifest.files.values())
    assert sum(file.bytes for file in bundle.manifest.files.values()) < 0.3 * plain
    session = ort.InferenceSession(site / "bundles" / "base" / "model.onnx")
    assert session.get_overridable_initializers() == []
    assert {i.name for i in session.get_inputs()} >= bundle.manifest.tensors.keys()


def test_rounding_the_bases_weights_changes_little_and_far_less_than_an_adapter_does(
    run: Path, reference: Reference
) -> None:
    plain = Runtime(base_folder(run))
    exact, rounded = plain.logits(IDS), reference.runtime.logits(IDS)
    personal = reference.runtime.logits(IDS, reference.loaded["ada"])
    scale = float(np.abs(exact).max())
    assert float(np.abs(exact - rounded).max()) < 0.03 * scale
    assert float(np.abs(personal - rounded).max()) > 0.2 * scale
    ada = plain.load(adapter_folder(run, "ada"))
    lost, gained = np.abs(plain.logits(IDS, ada) - personal).mean(), np.abs(personal - rounded).mean()
    assert lost < 0.2 * gained


@pytest.mark.parametrize("weights", ["dynamic-int8", "float32"])
def test_other_kinds_of_weights_can_be_asked_for(run: Path, tmp_path: Path, weights: str) -> None:
    site = build_site(run, tmp_path / "site", ["ada"], built_page(), weights)
    assert site.base.precision == weights
    Bundle.open(tmp_path / "site" / "bundles" / "base", "base").verify()


def test_only_what_the_browser_reads_is_copied_and_only_of_those_named(run: Path, site: Path, tmp_path: Path) -> None:
    copied = sorted(path.name for path in (site / "bundles" / "adapters" / "ada").iterdir())
    assert copied == ["adapter.onnx_adapter", "manifest.json", "manifest.sig"]
    out = build_site(run, tmp_path / "site", ["bob"], built_page()).folder
    assert [path.name for path in (out / "bundles" / "adapters").iterdir()] == ["bob"]
    assert json.loads((out / "bundles" / "index.json").read_text())["people"] == ["bob"]


def test_somebody_unknown_a_strange_folder_and_strange_weights_are_refused_and_nothing_is_written(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "site"
    with pytest.raises(RunError, match="did you mean 'ada'"):
        build_site(run, out, ["adda"], built_page())
    with pytest.raises(WebError, match="weights: found 'int7'"):
        build_site(run, out, ["ada"], built_page(), "int7")
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match="other files"):
        build_site(run, out, ["ada"], built_page())
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_an_adapter_that_another_key_signed_is_not_published(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "trust" / "bundles.pem").unlink()
    with pytest.raises(BundleError, match="one that is trusted"):
        build_site(copy, tmp_path / "site", ["ada"], built_page())
    assert not (tmp_path / "site").exists()


def test_an_adapter_in_somebody_elses_folder_is_not_published_as_theirs(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    adapter_folder(copy, "ada").rename(adapter_folder(copy, "zoe"))
    with pytest.raises(BundleError, match="adapter zoe owner: found 'ada'"):
        build_site(copy, tmp_path / "site", ["zoe"], built_page())
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("name", ["ada@home", "a+b", "Zoë", "a b"])
def test_a_name_that_the_page_would_refuse_is_refused_before_a_site_is_built(
    run: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "run"
    adapter_folder(copy, name).mkdir(parents=True)
    with pytest.raises(WebError, match="the page takes no other names"):
        build_site(copy, tmp_path / "site", [name], tmp_path)
    assert not (tmp_path / "site").exists()


def test_the_names_that_are_built_are_those_that_the_page_takes(repository: Path) -> None:
    written = (repository / "client" / "web" / "src" / "engine" / "site.ts").read_text()
    assert f"const NAME = /^{_NAME.pattern}$/;" in written


def test_without_npm_or_sources_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WebError, match="--page"):
        built_page(tmp_path)
    (tmp_path / "package.json").write_text("{}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WebError, match="npm: found 'none', expected node 20"):
        built_page(tmp_path)


def test_a_page_that_is_built_already_needs_no_npm(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert built_page(site) == site


def test_the_command_builds_a_site_and_complains_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["web", "build", str(run), str(tmp_path / "site"), "--json", "--user"]
    with pytest.raises(SystemExit) as done:
        main([*command, "ada"])
    assert done.value.code == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["people"] == ["ada"]
    assert answer["bytes"].keys() == {"page", "base", "ada"}
    with pytest.raises(SystemExit) as wrong:
        main([*command, "nobody"])
    assert wrong.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(said) == 1
    assert "somebody with an adapter" in said[0]


def ask(server: Server, path: str, host: str | None = None, verb: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(verb, path, headers={"Host": host} if host else {})
    return connection.getresponse()


def test_the_server_gives_files_with_types_and_a_policy_that_names_no_other_site(server: Server) -> None:
    for path, kind in (("/", "text/html"), ("/sw.js", "text/javascript"), ("/bundles/index.json", "application/json")):
        answer = ask(server, path)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "http" not in POLICY


@pytest.mark.parametrize("path", ["/bundles/", "/../conftest.py", "/%2e%2e/%2e%2e/etc/passwd", "/nothing.js"])
def test_the_server_lists_no_folder_and_leaves_none(server: Server, path: str) -> None:
    assert ask(server, path).status == 404


def test_a_name_pointed_at_this_machine_reads_nothing(server: Server) -> None:
    assert ask(server, "/bundles/adapters/ada/adapter.onnx_adapter", host="evil.example").status == 403


def test_a_question_for_the_head_alone_is_answered_to_whom_the_file_would_be_and_as_it_would(server: Server) -> None:
    path = "/bundles/adapters/ada/adapter.onnx_adapter"
    assert ask(server, path, host="evil.example", verb="HEAD").status == 403
    assert ask(server, "/bundles/", verb="HEAD").status == 404
    head, whole = ask(server, path, verb="HEAD"), ask(server, path)
    assert (head.status, head.read()) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"] == str(len(whole.read()))


def test_serving_something_else_is_refused(tmp_path: Path, server: Server, site: Path) -> None:
    with pytest.raises(WebError, match="fedpeft web build"):
        Server(tmp_path)
    with pytest.raises(WebError, match="port"):
        Server(site, server.server_port)


def test_the_manifest_says_what_the_browser_needs(site: Path) -> None:
    content = (site / "bundles" / "base" / "manifest.json").read_bytes()
    assert Manifest.from_json(content, "base").decoder is not None
