"""A bundle that was sent as one file is the bundle that was packed, or it is refused and leaves nothing behind."""

import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpeft.device import pack, unpack
from fedpeft.device.archive import Limits
from fedpeft.errors import BundleError

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def packed(run: Path, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sent") / "ada.zip"
    pack(run / "device" / "adapters" / "ada", path)
    return path


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as zipped:
        return {entry.filename: zipped.read(entry) for entry in zipped.infolist()}


def rewrite(path: Path, files: dict[str, bytes], **entries: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in files.items():
            zipped.writestr(entries.get(name, name), content)
    return path


def refuse(archive: Path, reason: str, **options: object) -> None:
    into = archive.parent / "unpacked"
    before = sorted(archive.parent.iterdir())
    with pytest.raises(BundleError, match=reason) as caught:
        unpack(archive, into, **options)
    assert "\n" not in str(caught.value)
    assert sorted(archive.parent.iterdir()) == before


def test_what_is_unpacked_is_what_was_packed_and_loads(run, runtime, ada, packed, tmp_path):
    bundle = unpack(packed, tmp_path / "people" / "ada", trusted=[ada.manifest.signer])
    assert (bundle.folder.stat().st_mode & 0o777, packed.stat().st_mode & 0o777) == (0o700, 0o600)
    for path in (run / "device" / "adapters" / "ada").iterdir():
        assert (bundle.folder / path.name).read_bytes() == path.read_bytes()
        assert (bundle.folder / path.name).stat().st_mode & 0o777 == 0o600
    again = runtime.load(bundle.folder)
    assert (runtime.logits([1, 3, 300], again) == runtime.logits([1, 3, 300], ada)).all()
    assert (runtime.logits([1, 3, 300], again) != runtime.logits([1, 3, 300])).any()


def test_equal_bundles_are_equal_archives(run, packed, tmp_path):
    pack(run / "device" / "adapters" / "ada", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_a_damaged_bundle_is_not_packed(ada_copy, tmp_path):
    (ada_copy / "adapter_config.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="adapter_config"):
        pack(ada_copy, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_base_or_a_stranger_s_bundle_is_not_unpacked(packed, run, tmp_path):
    refuse(rewrite(tmp_path / "a.zip", contents(packed)), "signer", trusted=["0" * 64])
    base = run / "device" / "base"
    rewrite(tmp_path / "a.zip", {p.name: p.read_bytes() for p in base.glob("manifest.*")})
    refuse(tmp_path / "a.zip", "kind")


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/b", "..", "C:x", "a\\b", ".hidden", "nul\n", "manifest.json/", "MANIFEST.json", "ä"],
)
def test_a_name_that_could_lead_elsewhere_is_refused(packed, tmp_path, name):
    refuse(rewrite(tmp_path / "a.zip", contents(packed) | {name: b"?"}), "file: found")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_devices_are_refused(packed, tmp_path, kind):
    entry = zipfile.ZipInfo("adapter.onnx_adapter")
    entry.external_attr = (kind | 0o777) << 16
    files = contents(packed) | {"adapter.onnx_adapter": b"/etc/passwd"}
    refuse(rewrite(tmp_path / "a.zip", files, **{"adapter.onnx_adapter": entry}), "a link or device")


def test_a_bomb_is_stopped_by_what_it_becomes_and_not_by_what_it_says(packed, tmp_path):
    bomb = contents(packed) | {"adapter_config.json": bytes(300 << 20)}
    path = rewrite(tmp_path / "bomb.zip", bomb)
    refuse(path, "bomb")
    # The same, saying of itself that it is small.
    with zipfile.ZipFile(path) as zipped:
        start = zipped.getinfo("adapter_config.json").header_offset
    content = bytearray(path.read_bytes())
    for at in (start + 22, content.rindex(b"PK\x01\x02") + 24):
        content[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    refuse(path, "zip file|bomb|sha256|bytes")


def test_too_many_files_and_too_large_archives_are_refused(packed, tmp_path):
    many = contents(packed) | {f"f{i}": b"" for i in range(20)}
    refuse(rewrite(tmp_path / "a.zip", many), "25 files")
    refuse(rewrite(tmp_path / "a.zip", contents(packed)), "at most 1000", limits=Limits(bytes=1000))


def test_a_file_twice_is_refused(packed, tmp_path):
    path = rewrite(tmp_path / "a.zip", contents(packed))
    with zipfile.ZipFile(path, "a") as zipped, pytest.warns(UserWarning):
        zipped.writestr("manifest.json", b"{}")
    refuse(path, "each file once")


def test_a_folder_that_is_there_is_not_touched(packed, tmp_path):
    (tmp_path / "unpacked").mkdir()
    with pytest.raises(BundleError, match="nothing there yet"):
        unpack(packed, tmp_path / "unpacked")
    assert not list((tmp_path / "unpacked").iterdir())


@quick
@given(content=st.binary(max_size=300))
def test_bytes_that_are_no_archive_are_refused(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    refuse(tmp_path / "a.zip", ".")


@quick
@given(data=st.data())
def test_an_archive_with_a_changed_byte_is_refused_or_is_the_same_bundle(packed, run, tmp_path, data):
    content = bytearray(packed.read_bytes())
    directory = content.index(b"PK\x01\x02")
    at = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(directory, len(content) - 1)))
    content[at] ^= data.draw(st.integers(1, 255))
    (tmp_path / "a.zip").write_bytes(content)
    try:
        bundle = unpack(tmp_path / "a.zip", tmp_path / "unpacked")
    except BundleError:
        assert not (tmp_path / "unpacked").exists()
        return
    for path in (run / "device" / "adapters" / "ada").iterdir():
        assert (bundle.folder / path.name).read_bytes() == path.read_bytes()
        (bundle.folder / path.name).unlink()
    bundle.folder.rmdir()


def test_an_archive_cut_short_anywhere_is_refused(packed, tmp_path):
    whole = packed.read_bytes()
    for end in range(0, len(whole), len(whole) // 20):
        (tmp_path / "a.zip").write_bytes(whole[:end])
        refuse(tmp_path / "a.zip", ".")
    assert io.BytesIO(whole).read(2) == b"PK"
