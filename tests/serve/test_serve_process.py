"""The command: a process that starts, answers over TLS, ends in order; and makes tokens."""

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedpeft.base import load_base
from fedpeft.cli.app import main
from fedpeft.device import Bundle
from fedpeft.device.bundle import seal
from fedpeft.device.folders import base_folder
from fedpeft.device.manifest import EncoderFacts
from fedpeft.export import export_base
from fedpeft.export.options import ExportOptions
from fedpeft.export.rows import export_rows
from fedpeft.export.run import signing_key
from fedpeft.serve.bases import stale
from fedpeft.serve.limits import Limits
from fedpeft.serve.service import Service
from fedpeft.signing.signature import SigningKey

ADDRESS = re.compile(r"at (https?://\S+)/v1")


def run_command(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, " ".join(err.split())


@pytest.fixture
def run(people, tmp_path) -> Path:
    """A run of its own with one person and no tokens."""
    device = tmp_path / "mine" / "device"
    for name in ("base", "base-rows", "adapters/person00"):
        shutil.copytree(people.run / "device" / name, device / name)
    shutil.copy(people.run / "run.json", tmp_path / "mine")
    return tmp_path / "mine"


@contextmanager
def serving(run: Path, *options: str):
    command = [sys.executable, "-m", "fedpeft", "serve", "--run", str(run), "--port", "0", "--threads", "1", *options]
    environment = os.environ | {"COLUMNS": "400"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := ADDRESS.search(line):
                break
        else:
            raise AssertionError("".join(lines))
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def token(capsys, run: Path, *options: str) -> str:
    code, out, _ = run_command(capsys, "token", "add", "--run", str(run), "--user", "person00", *options)
    assert code == 0
    return out.strip()


def test_a_process_answers_and_ends_in_order_when_told_to(run, people, capsys):
    secret = token(capsys, run)
    with serving(run) as (process, url):
        headers = {"Authorization": f"Bearer {secret}"}
        body = {"model": "person00", "prompt": "I am", "temperature": 0, "max_tokens": 12}
        answer = httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=30)
        assert answer.json()["choices"][0]["text"] == people.complete("person00", "I am", tokens=12)
        if Path("/proc").is_dir():
            mapped = Path(f"/proc/{process.pid}/maps").read_text()
            assert "onnxruntime" in mapped
            assert "libtorch" not in mapped
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0


def test_https_with_a_certificate_of_ones_own(run, capsys, tmp_path):
    certificate, key = self_signed(tmp_path)
    with serving(run, "--certfile", str(certificate), "--keyfile", str(key)) as (_, url):
        assert url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(certificate))
        assert httpx.get(f"{url}/healthz", verify=trust).json() == {"status": "ok"}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")


def test_a_token_made_or_revoked_while_the_service_runs_counts_at_once(run, capsys):
    with serving(run) as (_, url):
        secret = token(capsys, run)
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).json()["data"][0]["id"] == "person00"
        assert run_command(capsys, "token", "revoke", secret[3:15], "--run", str(run))[0] == 0
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401


def test_tokens_are_listed_without_their_secrets(run, capsys):
    secret = token(capsys, run, "--adapter", "person00", "--adapter", "base")
    token(capsys, run, "--operator")
    code, out, _ = run_command(capsys, "token", "list", "--run", str(run), "--json")
    first, second = json.loads(out)["tokens"]
    assert code == 0
    assert (first["id"], first["user"], first["adapters"]) == (secret[3:15], "person00", ["base", "person00"])
    assert (second["adapters"], second["operator"]) == ([], True)
    assert secret[16:] not in out
    assert secret[16:] not in run_command(capsys, "token", "list", "--run", str(run))[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("token", "add", "--user", "person07"), "adapter: found 'person07'"),
        (("token", "add", "--user", "person00", "--adapter", "preson00"), "did you mean 'person00'?"),
        (("token", "add", "--user", "a b"), "user: found 'a b'"),
        (("token", "revoke", "0123"), "token: found '0123'"),
        (("--host", "0.0.0.0"), "host: found '0.0.0.0'"),
        (("--certfile", "cert.pem"), "--keyfile"),
        (("--certfile", "no.pem", "--keyfile", "no.pem"), "no.pem"),
        (("--timeout", "0"), "timeout_s"),
        (("--host", "no.such.host.invalid", "--certfile", "CERT", "--keyfile", "KEY"), "address no.such.host.invalid"),
    ],
)
def test_bad_input_ends_with_one_line(run, capsys, tmp_path, arguments, expected):
    certificate, key = self_signed(tmp_path)
    given = [{"CERT": str(certificate), "KEY": str(key)}.get(a, a) for a in arguments]
    code, out, err = run_command(capsys, *given, "--run", str(run))
    assert code == 2
    assert out == ""
    assert expected in err
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_named(run, served, capsys):
    port = served.url.rsplit(":", 1)[1]
    code, _, err = run_command(capsys, "--run", str(run), "--port", port)
    assert code == 2
    assert f"127.0.0.1:{port}" in err


def test_a_run_without_a_base_is_told_what_to_do(run, capsys):
    shutil.rmtree(run / "device" / "base")
    code, _, err = run_command(capsys, "--run", str(run))
    assert code == 2
    assert "fedpeft export" in err


@pytest.mark.parametrize("change", ["encoder", "dynamic-int8"])
def test_a_base_that_no_batch_of_rows_can_run_is_refused_before_anything_is_exported(run, capsys, change):
    folder, key = run / "device" / "base", SigningKey.from_private_bytes(bytes(32))
    manifest = Bundle.open(folder, "base").manifest
    facts = EncoderFacts(context=8, vocabulary=9, hidden=4, pad=0)
    changes = {"decoder": None, "encoder": facts} if change == "encoder" else {"precision": change}
    seal(folder, manifest.model_copy(update=changes), key)
    shutil.rmtree(run / "device" / "base-rows")
    code, _, err = run_command(capsys, "--run", str(run))
    assert code == 2
    assert change in err
    assert not (run / "device" / "base-rows").exists()


def test_without_torch_a_run_without_a_base_for_serving_is_told_what_to_do(run, capsys, monkeypatch):
    shutil.rmtree(run / "device" / "base-rows")
    monkeypatch.setattr("fedpeft.cli.serve.find_spec", lambda name: None if name == "torch" else object())
    code, _, err = run_command(capsys, "--run", str(run))
    assert code == 2
    assert "fedpeft[train]" in err


def test_the_base_for_serving_is_exported_once_like_the_base_and_again_when_that_changed(tmp_path):
    run = tmp_path / "run"
    base, key = load_base("keyboard"), signing_key(run)
    (run / "scenario.json").write_text(json.dumps({"base": {"name": "keyboard", "dtype": "bfloat16"}}))
    for options in (ExportOptions(), ExportOptions(precision="int8", sites=frozenset({"lora", "scale"}))):
        first = export_base(base, base_folder(run), key=key, options=options)
        assert stale(run)
        made = export_rows(run)
        assert not stale(run)
        assert made.variant == "rows"
        assert (made.precision, made.tensors) == (first.precision, first.tensors)
        service = Service(run, Limits(slots=1))
        service.close()


def test_without_its_extra_the_command_says_what_to_install(run, capsys, monkeypatch):
    monkeypatch.setattr("fedpeft.cli.options.find_spec", lambda name: None if name == "uvicorn" else object())
    code, _, err = run_command(capsys, "--run", str(run))
    assert code == 2
    assert "no uvicorn" in err
    assert "fedpeft[serve]" in err


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedpeft test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return paths
