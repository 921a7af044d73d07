"""Certificates and keys that another process has read: the same as from the disk, on their way too."""

from __future__ import annotations

import errno
import os
import ssl

import pytest
from tests.support.tls import Files, replace

from tidegate.net.tls_files import DiskFiles, HandedFiles, tls_paths


@pytest.fixture
def paths(tmp_path):
    made = []
    for name in ("one.pem", "two with space.pem"):
        (tmp_path / name).write_bytes(b"\x00content of " + name.encode())
        made.append(str(tmp_path / name))
    return made


def through(handed):
    """As it arrives in another process."""
    other = HandedFiles()
    other.take(handed.dump())
    return other


def test_what_was_read_is_read(paths):
    handed, disk = HandedFiles.from_disk(paths), DiskFiles()
    for files in (handed, through(handed)):
        for path in paths:
            assert files.read(path) == disk.read(path)
            assert files.stamp(path) == disk.stamp(path)
        assert files.stamps() == {path: disk.stamp(path) for path in paths}


def test_a_change_shows_in_the_stamp_and_not_before_it_is_handed_on(paths):
    handed, disk = HandedFiles.from_disk(paths), DiskFiles()
    before = handed.stamp(paths[0])
    replace(paths[0], b"renewed")
    assert disk.stamp(paths[0]) != before
    assert (handed.stamp(paths[0]), handed.read(paths[0])) == (before, b"\x00content of one.pem")
    handed.take(HandedFiles.from_disk(paths).dump())
    assert handed.stamp(paths[0]) == disk.stamp(paths[0])
    assert handed.read(paths[0]) == b"renewed"


def test_a_stamp_follows_links(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "live.pem"
    link.symlink_to(tmp_path / "old")
    before = DiskFiles().stamp(str(link))
    link.unlink()
    link.symlink_to(tmp_path / "new")
    assert DiskFiles().stamp(str(link)) != before


def test_a_file_that_cannot_be_read_fails_in_the_same_way_later(tmp_path):
    missing, folder = str(tmp_path / "missing.pem"), str(tmp_path)
    handed = HandedFiles.from_disk([missing, folder])
    for files in (handed, through(handed)):
        for path, number in ((missing, errno.ENOENT), (folder, errno.EISDIR)):
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                files.read(path)
            assert (caught.value.errno, caught.value.filename) == (number, path)
            with pytest.raises(OSError, match=os.strerror(number)), files.lend(path):
                pass
        assert files.stamp(missing) == DiskFiles().stamp(missing)


def test_a_file_nobody_handed_on_is_missing():
    with pytest.raises(FileNotFoundError):
        HandedFiles().read("/x")
    assert HandedFiles().stamp("/x") == ()


def test_a_file_that_has_come_back_is_read_again(tmp_path):
    path = tmp_path / "key.pem"
    handed = HandedFiles.from_disk([str(path)])
    path.write_bytes(b"key")
    handed.take(HandedFiles.from_disk([str(path)]).dump())
    assert handed.read(str(path)) == b"key"


def test_what_is_lent_can_be_opened_as_often_as_one_likes_until_it_is_given_back(paths):
    handed = HandedFiles.from_disk(paths)
    with handed.lend(paths[1]) as lent:
        for _ in range(2):
            with open(lent, "rb") as file:
                assert file.read() == handed.read(paths[1])
        there = os.stat(lent).st_ino
    try:
        assert os.stat(lent).st_ino != there
    except FileNotFoundError:
        pass


def test_the_disk_lends_its_own_path(paths):
    with DiskFiles().lend(paths[0]) as lent:
        assert lent == paths[0]


def test_openssl_takes_what_is_lent(tmp_path, ca):
    files = Files(tmp_path, "handed").write(ca.issue_cert("localhost"))
    handed = through(HandedFiles.from_disk([files.cert, files.key]))
    os.unlink(files.cert)
    os.unlink(files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with handed.lend(files.cert) as cert, handed.lend(files.key) as key:
        context.load_cert_chain(cert, key)
    other = Files(tmp_path, "other").write(ca.issue_cert("localhost"))
    mixed = HandedFiles.from_disk([other.key])
    with (
        handed.lend(files.cert) as cert,
        mixed.lend(other.key) as key,
        pytest.raises(ssl.SSLError, match=r"KEY_VALUES_MISMATCH|key values mismatch"),
    ):
        context.load_cert_chain(cert, key)


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        (("c", None, None, ()), ["c"]),
        (("c", "k", "ca", ()), ["c", "k", "ca"]),
        (("c", "c", None, ()), ["c"]),
        (("c", "k", None, ("a.example=c2:k2", "b.example=c:k3")), ["c", "k", "c2", "k2", "k3"]),
        (("c", None, None, ("a.example=both.pem",)), ["c", "both.pem"]),
    ],
)
def test_every_file_that_is_named_is_handed_on(given, paths):
    assert tls_paths(*given) == paths
