"""What a model argument may name."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

from bertram.errors import BadInput
from bertram.model_names import resolve
from tiny import model_directory


def test_a_model_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are fetched, pickled weights where they are allowed; and only a name with one slash is asked for."""
    place = model_directory(tmp_path / "cache", {"classification": 2})
    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if name == "nobody/nothing":
            raise OSError("404 Client Error.\nand more")
        return str(place)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve("owner/name") == place
    resolve("owner/name", allow_pickle=True)
    files = [file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file()]
    assert all(any(fnmatch(file, pattern) for pattern in asked[0]) for file in files)
    assert ["*.bin" in patterns for patterns in asked] == [False, True]
    for name in ("bert-tinny", "./a/b", "/a/b", "~/a", "a/b/c", "a/"):
        with pytest.raises(BadInput):
            resolve(name)
    assert len(asked) == 2
    with pytest.raises(BadInput, match=r"^nobody/nothing: neither [^\n]*404 Client Error\.$"):
        resolve("nobody/nothing")
