"""Files are written whole or not at all, and whoever is killed meanwhile leaves nothing for long."""

import errno
import os
import signal

import pytest

from bertram.files import replacing


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_what_else_a_library_leaves_is_gone(tmp_path):
    with replacing(tmp_path / "file") as temporary:
        (temporary.parent / ".tmp0").write_text("a library's own")
        temporary.write_text("new")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "new"


def full_disk(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))


def test_after_an_error_the_old_content_stands(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="No space left") as caught:
        full_disk(tmp_path / "file")
    assert caught.value.filename == str(tmp_path / "file")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "instant", ["os.fsync", "pathlib.Path.chmod", "shutil.rmtree", "bertram.files.flush_directory"]
)
def test_what_a_killed_process_left_goes_with_the_next(tmp_path, monkeypatch, instant):
    if (child := os.fork()) == 0:
        monkeypatch.setattr(instant, kill)
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("new")
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    if instant == "bertram.files.flush_directory":  # it was renamed
        assert names(tmp_path) == ["file"]
        assert (tmp_path / "file").read_text() == "new"
    else:
        assert names(tmp_path)
        assert not (tmp_path / "file").exists()
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("newer")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "newer"


def test_of_two_who_write_one_file_the_first_fails(tmp_path):
    first = replacing(tmp_path / "file")
    first.__enter__().write_text("first")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("half of the sec")
        with pytest.raises(FileNotFoundError) as caught:
            first.__exit__(None, None, None)
        assert caught.value.filename == str(tmp_path / "file")
        assert not (tmp_path / "file").exists()


def test_a_file_whose_name_goes_on_is_another(tmp_path):
    with replacing(tmp_path / "file.more") as temporary:
        temporary.write_text("more")
        with replacing(tmp_path / "file") as other:
            other.write_text("file")
    assert names(tmp_path) == ["file", "file.more"]
    assert (tmp_path / "file.more").read_text() == "more"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_is_for_whom_the_user_makes_files(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "file") as temporary:
            temporary.touch(0o600)  # as safetensors does
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_who_cannot_begin_names_the_file_that_was_wanted(tmp_path, monkeypatch):
    def full(**options):
        raise OSError(errno.ENOSPC, "No space left on device", f"{options['dir']}/{options['prefix']}x")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "file")
