"""The local secret: made once, kept private, refused when it is neither."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slim_actors import ConfigurationError
from slim_actors.identity import check_secret
from slim_actors.secret import local_secret


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SLIM_SHARED_SECRET")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "slim-actors"


def test_the_secret_is_made_once_for_all_who_ask_at_once(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: local_secret(), range(64)))
    assert len(secrets) == 1
    assert len(check_secret(secrets.pop())) == 64
    assert [file.name for file in folder.iterdir()] == ["secret"]
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_others_can_read_is_refused(folder: Path) -> None:
    local_secret()
    (folder / "secret").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        local_secret()


@pytest.mark.parametrize(("content", "why"), [(b"", "is empty"), (b"\xff\xfe", "cannot be used")])
def test_a_broken_secret_file_is_refused(folder: Path, content: bytes, why: str) -> None:
    local_secret()
    (folder / "secret").write_bytes(content)
    with pytest.raises(ConfigurationError, match=why):
        local_secret()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="cannot be used"):
        local_secret()
