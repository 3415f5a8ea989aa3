"""The list of destroyed keys: on the disk before a key is gone, and stronger than any older copy of the keys."""

import multiprocessing
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tsm.errors import ErrorCode, TsmError
from tsm.keys.destroyed_keys import DestroyedKeys
from tsm.keys.vault import SoftwareVault

NOON = datetime(2026, 11, 21, 12, 0, 7, tzinfo=UTC)
ONE, TWO = "11" * 16, "22" * 16


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kek.destroyed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "vault"


@pytest.fixture
def listed(file: Path, folder: Path) -> DestroyedKeys:
    return DestroyedKeys.create(file, folder, lambda: NOON)


@pytest.fixture
def vault(folder: Path, tmp_path: Path) -> Iterator[SoftwareVault]:
    vault = SoftwareVault.create(folder, tmp_path / "kek")
    yield vault
    vault.close()


def refuses(code: ErrorCode, action: object) -> None:
    with pytest.raises(TsmError) as refusal:
        action()  # type: ignore[operator]
    assert refusal.value.code is code


def test_a_line_is_a_key_id_and_a_time_and_nothing_else(listed: DestroyedKeys, file: Path) -> None:
    listed.add(ONE)
    listed.add(TWO)
    assert file.read_text() == f"{ONE} 2026-11-21T12:00:07Z\n{TWO} 2026-11-21T12:00:07Z\n"
    assert listed.read() == [ONE, TWO]


def test_the_list_is_its_owners_alone(listed: DestroyedKeys, file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_list_that_is_there_is_kept(listed: DestroyedKeys, file: Path, folder: Path) -> None:
    listed.add(ONE)
    assert DestroyedKeys.create(file, folder, lambda: NOON).read() == [ONE]


def test_a_list_inside_the_folder_is_refused(folder: Path) -> None:
    refuses(ErrorCode.INVALID_INPUT, lambda: DestroyedKeys.create(folder / "destroyed", folder, lambda: NOON))
    refuses(ErrorCode.INVALID_INPUT, lambda: DestroyedKeys.open(folder / "x" / "destroyed", folder, lambda: NOON))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, folder: Path) -> None:
    refuses(ErrorCode.NOT_FOUND, lambda: DestroyedKeys.create(tmp_path / "none" / "list", folder, lambda: NOON))


@pytest.mark.parametrize("left", [f"{TWO} 2026-11-21T12:00:07Z", f"{TWO} 2026-11", TWO[:7], " "])
def test_a_torn_last_line_does_not_count_and_stays_marked(listed: DestroyedKeys, file: Path, left: str) -> None:
    listed.add(ONE)
    with file.open("a") as appended:
        appended.write(left)
    assert listed.read() == [ONE]
    listed.add(TWO)
    assert listed.read() == [ONE, TWO]
    assert file.read_text().splitlines()[1] == f"{left} torn"


@pytest.mark.parametrize("line", ["", "nothing", ONE, f"{ONE} yesterday", f"{'AB' * 16} 2026-11-21T12:00:07Z"])
def test_a_whole_line_that_is_no_destroyed_key_is_refused(listed: DestroyedKeys, file: Path, line: str) -> None:
    file.write_text(f"{line}\n")
    refuses(ErrorCode.STORE_CORRUPT, listed.read)


def test_a_missing_list_is_refused_clearly(vault: SoftwareVault, file: Path, folder: Path, tmp_path: Path) -> None:
    key_id, sealed = vault.seal("person", b"value", b"")
    file.unlink()
    refuses(ErrorCode.NOT_FOUND, lambda: vault.destroy_subject("person"))
    assert vault.unseal(key_id, sealed, b"") == b"value"  # not destroyed, for nobody would know of it
    with pytest.raises(TsmError, match="the list of destroyed keys") as refusal:
        SoftwareVault.open(folder, tmp_path / "kek")
    assert refusal.value.code is ErrorCode.NOT_FOUND
    assert not file.exists()


def test_a_list_in_another_place_is_used_and_no_other(folder: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    vault = SoftwareVault.create(folder, tmp_path / "kek", destroyed_keys=chosen)
    key_id, _ = vault.seal("person", b"value", b"")
    vault.destroy_subject("person")
    vault.close()
    assert chosen.read_text().startswith(key_id)
    assert not (tmp_path / "kek.destroyed").exists()
    refuses(ErrorCode.NOT_FOUND, lambda: SoftwareVault.open(folder, tmp_path / "kek"))
    SoftwareVault.open(folder, tmp_path / "kek", destroyed_keys=chosen).close()


def test_the_line_is_there_before_the_key_is_destroyed(
    vault: SoftwareVault, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, _ = vault.seal("person", b"value", b"")
    add, seen = DestroyedKeys.add, []

    def looked(listed: DestroyedKeys, key: str) -> None:
        add(listed, key)
        with closing(sqlite3.connect(folder / "datakeys.sqlite")) as reader:
            seen.append(reader.execute("SELECT wrapped IS NOT NULL FROM data_key").fetchall())
        raise KeyboardInterrupt  # the process is gone

    with monkeypatch.context() as patched:
        patched.setattr(DestroyedKeys, "add", looked)
        with pytest.raises(KeyboardInterrupt):
            vault.destroy_subject("person")
    assert seen == [[(1,)]]
    assert file.read_text().startswith(key_id)
    assert not vault.subject_destroyed("person")


def test_what_the_list_names_is_destroyed_when_the_vault_opens(
    vault: SoftwareVault, file: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sealed = {person: vault.seal(person, b"value", b"") for person in ("one", "two", "three")}
    vault.close()
    key_ids = [sealed[person][0] for person in ("one", "two")]
    file.write_text("".join(f"{key_id} 2026-11-21T12:00:07Z\n" for key_id in [*key_ids, ONE]))  # one was never here
    reopened = SoftwareVault.open(folder, tmp_path / "kek")
    for person in ("one", "two"):
        refuses(ErrorCode.UNKNOWN_KEY, lambda person=person: reopened.unseal(*sealed[person], b""))
        refuses(ErrorCode.UNKNOWN_KEY, lambda person=person: reopened.seal(person, b"again", b""))
    assert reopened.unseal(*sealed["three"], b"") == b"value"
    assert "2 destroyed data keys were back" in caplog.text
    assert sorted(reopened.destroyed_subjects()) == ["one", "two"]
    reopened.close()
    caplog.clear()
    SoftwareVault.open(folder, tmp_path / "kek").close()
    assert caplog.text == ""


def test_destroying_again_adds_no_line(vault: SoftwareVault, file: Path) -> None:
    vault.seal("person", b"value", b"")
    for _ in range(3):
        vault.destroy_subject("person")
        vault.destroy_subject("never seen")  # it must not get a key later, so it has one that is destroyed
    assert len(file.read_text().splitlines()) == 2
    assert vault.subject_destroyed("person") and vault.subject_destroyed("never seen")
    assert not vault.subject_destroyed("nobody")


def add_many(file: Path, number: int) -> None:
    listed = DestroyedKeys(file, lambda: NOON)
    for turn in range(50):
        listed.add(f"{number:02x}{turn:02x}" + "00" * 14)


def test_processes_that_append_at_once_lose_no_line(listed: DestroyedKeys, file: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=add_many, args=(file, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert len(set(listed.read())) == 150
