"""Export and import: byte for byte, between engines in both directions, and on from where a killed one was."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from eventsourcing.persistence import StoredEvent
from stores import CARD_STREAM, RELEASED, Store, as_owner, fill, findings, make, stored, unguarded

from api.bench.postgres import PostgresServer
from tsm.errors import ErrorCode, TsmError
from tsm.keys.vault import SoftwareVault
from tsm.store import transfer
from tsm.store.opening import open_recorder
from tsm.store.recorder import Append
from tsm.store.rows import EventRow, open_rows
from tsm.store.transfer import PARTIAL, Transferred

ENGINES = ("sqlite", "postgresql")
Make = Callable[[str], Store]


@pytest.fixture
def new(tmp_path: Path, postgres: PostgresServer) -> Make:
    return lambda engine: make(engine, tmp_path, postgres)


def exported(store: Store, path: Path) -> Transferred:
    with closing(open_rows(store.place)) as rows:
        return transfer.export_file(rows, path, lambda *_: None)


def imported(path: Path, store: Store) -> Transferred:
    with transfer.opened_target(store.owner) as target:
        return transfer.import_file(path, target, lambda *_: None)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(store: Store) -> list[EventRow]:
    with closing(open_rows(store.place)) as rows:
        return list(rows.in_order())


@pytest.mark.parametrize("into", ENGINES)
@pytest.mark.parametrize("out_of", ENGINES)
def test_the_export_of_an_import_is_the_same_file(
    out_of: str, into: str, new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    source, target = new(out_of), new(into)
    fill(source, vault)
    done = exported(source, tmp_path / "first")
    imported(tmp_path / "first", target)
    again = exported(target, tmp_path / "second")
    assert sha256(tmp_path / "first") == sha256(tmp_path / "second") == done.sha256 == again.sha256
    assert content(target) == content(source)  # positions, bytes and times
    assert findings(target, vault) == []
    with closing(open_recorder(target.place, vault)) as recorder:  # and the log goes on
        assert recorder.insert_events([stored(vault, CARD_STREAM, 7, RELEASED)]) == [14]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_store_is_moved_as_well(engine: str, new: Make, tmp_path: Path) -> None:
    done = exported(new(engine), tmp_path / "file")
    assert imported(tmp_path / "file", new(engine)).sha256 == done.sha256


def test_the_file_is_ours_alone_and_holds_no_partial(new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    store = new("sqlite")
    fill(store, vault)
    exported(store, tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / f"file{PARTIAL}").exists()
    with pytest.raises(TsmError) as refused:
        exported(store, tmp_path / "file")
    assert refused.value.code is ErrorCode.ALREADY_EXISTS


def test_every_line_says_what_it_is_and_the_state_is_the_very_bytes(
    new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    store = new("sqlite")
    fill(store, vault)
    exported(store, tmp_path / "file")
    lines = [json.loads(line) for line in (tmp_path / "file").read_bytes().splitlines()]
    assert [line["kind"] for line in lines] == ["store", *["event"] * 13, "payload", "index", "command", "end"]
    assert [line["state"].encode() for line in lines[1:14]] == [row.state for row in content(store)]
    assert "線路の工事" in lines[10]["state"]


@pytest.mark.parametrize("into", ENGINES)
def test_bytes_that_are_no_text_are_kept_as_well(
    into: str, new: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vault: SoftwareVault
) -> None:
    """No event of ours is so, but what lies in a store is moved as it lies there."""
    source, target = new("sqlite"), new(into)
    state = b'{"topic":"t","stream":"a","number":1,"data":"\xff\xfe"}'
    quoted = b'{"topic":"t","stream":"a","number":2,"data":"\\u0000 \\ud83d\\ude00 \xe2\x80\xa8 \x7f"}'
    with closing(open_recorder(source.place, vault)) as recorder:
        recorder.insert_events([StoredEvent("a", 1, "t", state), StoredEvent("a", 2, "t", quoted)])
    monkeypatch.setattr(transfer, "PLACE", _Anything())
    exported(source, tmp_path / "first")
    imported(tmp_path / "first", target)
    exported(target, tmp_path / "second")
    assert [row.state for row in content(target)] == [state, quoted]
    assert sha256(tmp_path / "first") == sha256(tmp_path / "second")


class _Anything:
    """Finds an envelope in bytes that msgspec refuses to read."""

    def decode(self, state: bytes) -> transfer.Place:
        return transfer.Place("t", "a", 1 if b"\xff" in state else 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_may_record_while_a_store_is_exported(
    engine: str, new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    """All is as of one moment: what is recorded later is in no part of the file."""
    store = new(engine)
    fill(store, vault)
    before = exported(store, tmp_path / "before")
    with closing(open_recorder(store.place, vault)) as recorder, closing(open_rows(store.place)) as rows:
        rows_in_order = rows.in_order

        def interrupted(*given: int) -> object:
            append = Append([stored(vault, CARD_STREAM, 7, RELEASED)], put_payloads={(CARD_STREAM, "late"): b"late"})
            recorder.append([append])
            return rows_in_order(*given)

        rows.in_order = interrupted  # type: ignore[assignment, method-assign]
        during = transfer.export_file(rows, tmp_path / "during", lambda *_: None)
    assert during.sha256 == before.sha256


# Going on

KILLED = """
import sys, time
from contextlib import closing
from pathlib import Path
from tsm.store import transfer
from tsm.store.rows import open_rows
transfer.BATCH = 20
def told(*far):
    print(*far, flush=True)
    time.sleep(0.02)
what, file, place = sys.argv[1:]
place = place if "://" in place else Path(place)
if what == "export":
    with closing(open_rows(place)) as rows:
        transfer.export_file(rows, Path(file), told)
else:
    with transfer.opened_target(place) as target:
        transfer.import_file(Path(file), target, told)
"""


def killed(what: str, file: Path, place: Path | str, after: int) -> None:
    """A process of its own is killed once it has told of so many batches."""
    words = [sys.executable, "-c", KILLED, what, str(file), str(place)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(after):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_export_goes_on_where_it_was(engine: str, new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    store = new(engine)
    fill(store, vault, releases=200)
    killed("export", tmp_path / "file", store.place, 3)
    assert not (tmp_path / "file").exists()
    left = (tmp_path / f"file{PARTIAL}").read_bytes()
    done = exported(store, tmp_path / "file")
    assert done.before >= 40
    assert (tmp_path / "file").read_bytes().startswith(left[: left.rindex(b"\n") + 1])
    assert sha256(tmp_path / "file") == exported(store, tmp_path / "at once").sha256 == done.sha256


@pytest.mark.parametrize("cut", [0, 1, 17, 400, 2000, -1, -300])
def test_what_is_left_of_an_export_may_end_anywhere(cut: int, new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    """Also behind its events, or in a hole that a power cut left: whatever no later export would write is cut off."""
    store = new("sqlite")
    fill(store, vault)
    whole = exported(store, tmp_path / "whole")
    octets = (tmp_path / "whole").read_bytes()
    for name, left in (("cut", octets[:cut]), ("hole", octets[:cut] + bytes(100))):
        (tmp_path / f"{name}{PARTIAL}").write_bytes(left)
        with closing(open_recorder(store.place, vault)):
            assert exported(store, tmp_path / name).sha256 == whole.sha256


def test_an_export_that_goes_on_later_holds_what_was_recorded_meanwhile(
    new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    store = new("sqlite")
    fill(store, vault, releases=100)
    killed("export", tmp_path / "file", store.place, 3)
    with closing(open_recorder(store.place, vault)) as recorder:
        recorder.insert_events([stored(vault, CARD_STREAM, 102, RELEASED)])
    assert exported(store, tmp_path / "file").sha256 == exported(store, tmp_path / "at once").sha256


def test_what_is_left_of_another_stores_export_is_refused(new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    one, other = new("sqlite"), new("sqlite")
    fill(one, vault, releases=100)
    fill(other, vault, releases=200)  # the same facts, sealed anew
    killed("export", tmp_path / "file", one.place, 2)
    with unguarded(other) as execute:
        execute("UPDATE event SET recorded_at = '2026-11-22T00:00:00.000000Z'")
    with pytest.raises(TsmError) as refused:
        exported(other, tmp_path / "file")
    assert refused.value.code is ErrorCode.CONFLICT


def test_two_exports_do_not_write_one_file(new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    store = new("sqlite")
    fill(store, vault, releases=500)
    words = [sys.executable, "-c", KILLED, "export", str(tmp_path / "file"), str(store.place)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(TsmError) as refused:
            exported(store, tmp_path / "file")
        process.kill()
    assert refused.value.code is ErrorCode.CONFLICT


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_import_goes_on_where_it_was(engine: str, new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    source, target = new("sqlite"), new(engine)
    fill(source, vault, releases=200)
    done = exported(source, tmp_path / "file")
    killed("import", tmp_path / "file", target.owner, 3)
    with pytest.raises(TsmError, match="repeat `tsm store import`"):
        open_recorder(target.place, vault)
    assert 60 <= len(content(target)) < 208
    again = imported(tmp_path / "file", target)
    assert again.before >= 60
    assert exported(target, tmp_path / "second").sha256 == done.sha256
    assert findings(target, vault) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_import_that_is_repeated_changes_nothing(
    engine: str, new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    source, target = new("sqlite"), new(engine)
    fill(source, vault)
    exported(source, tmp_path / "file")
    assert imported(tmp_path / "file", target).before == 0
    assert imported(tmp_path / "file", target).before == 13
    assert findings(target, vault) == []


# What is not imported


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("other", ["another history", "a longer history", "the same log with something else beside it"])
def test_a_target_that_is_not_the_beginning_of_the_file_is_left_alone(
    other: str, engine: str, new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    source, target = new("sqlite"), new(engine)
    fill(source, vault)
    exported(source, tmp_path / "file")
    if other == "another history":
        fill(target, vault)  # sealed anew, so other bytes
    else:
        imported(tmp_path / "file", target)
        event = [stored(vault, CARD_STREAM, 7, RELEASED)] if other == "a longer history" else []
        with closing(open_recorder(target.place, vault)) as recorder:
            recorder.append([Append(event, put_payloads={(CARD_STREAM, "x"): b"x"})])
    before = content(target)
    with pytest.raises(TsmError) as refused:
        imported(tmp_path / "file", target)
    assert refused.value.code is ErrorCode.ALREADY_EXISTS
    assert content(target) == before
    assert findings(target, vault) == []


def resigned(lines: list[bytes]) -> bytes:
    """A file whose end fits what stands before: only its lines can tell that something is wrong."""
    kinds = [json.loads(line).get("kind") for line in lines]
    counts = {name: kinds.count(kind) for name, kind in COUNTED.items()}
    end = {"kind": "end", **counts, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
    return b"".join(lines) + json.dumps(end, separators=(",", ":")).encode() + b"\n"


COUNTED = {"events": "event", "payloads": "payload", "index": "index", "commands": "command"}


def changed(number: int, old: bytes, new: bytes) -> Callable[[list[bytes]], object]:
    def change(lines: list[bytes]) -> None:
        assert old in lines[number]
        lines[number] = lines[number].replace(old, new)

    return change


WRONG: dict[str, tuple[Callable[[list[bytes]], object], int]] = {
    "a missing event": (lambda lines: lines.pop(4), 3),
    "events in another order": (lambda lines: lines.insert(3, lines.pop(4)), 2),
    "an event that is there twice": (lambda lines: lines.insert(4, lines[4]), 4),
    "another position": (changed(10, b'"position":10', b'"position":11'), 9),
    "a version that does not follow": (changed(10, b'"version":3', b'"version":4'), 9),
    "a row in another place than its envelope": (changed(9, b'"stream":"card-8', b'"stream":"card-9'), 8),
    "a topic that is not the envelope's": (changed(9, b'"topic":"card.released"', b'"topic":"card.x"'), 8),
    "a state that does not decode": (changed(9, b'"state":"{', b'"state":"'), 8),
    "a time before the last": (changed(9, b'"recorded_at":"2026-11-21', b'"recorded_at":"2025-11-21'), 8),
    "a time of another form": (changed(9, b'000Z","state', b'000+00:00","state'), 8),
    "a time that is none": (changed(9, b'"recorded_at":"2026-11-21', b'"recorded_at":"2026-13-21'), 8),
    "a line with more in it": (changed(9, b'{"kind":"event",', b'{"kind":"event","note":1,'), 8),
    "a line that is written otherwise": (changed(9, b'"position":9', b'"position": 9'), 8),
    "a line that is none": (lambda lines: lines.insert(9, b"{}\n"), 8),
    "no first line": (lambda lines: lines.pop(0), 0),
    "an event behind the events": (lambda lines: lines.append(lines[1]), 13),
    "a payload behind the commands": (lambda lines: lines.append(lines.pop(14)), 13),
    "a payload that is there twice": (lambda lines: lines.insert(14, lines[14]), 13),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_refused_before_it_is_written(
    name: str, engine: str, new: Make, vault: SoftwareVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 1)
    source, target = new("sqlite"), new(engine)
    fill(source, vault)
    exported(source, tmp_path / "file")
    lines = (tmp_path / "file").read_bytes().splitlines(keepends=True)[:-1]
    change, sound = WRONG[name]
    change(lines)
    (tmp_path / "wrong").write_bytes(resigned(lines))
    with pytest.raises(TsmError) as refused:
        imported(tmp_path / "wrong", target)
    assert refused.value.code is ErrorCode.INVALID_INPUT
    assert len(content(target)) == sound
    with closing(open_rows(target.place)) as rows:
        assert list(rows.payloads()) == []


def test_the_same_file_is_taken_when_nothing_is_wrong(new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    """Or the refusals above would prove nothing."""
    source = new("sqlite")
    fill(source, vault)
    exported(source, tmp_path / "file")
    lines = (tmp_path / "file").read_bytes().splitlines(keepends=True)[:-1]
    assert resigned(lines) == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda octets: octets[:-1],
        lambda octets: octets[:-200],
        lambda octets: octets.replace(b"Operator One", b"Operator Two"),
        lambda octets: octets + b"\n",
        lambda octets: b"",
        lambda octets: bytes(len(octets)),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_written(
    damage: Callable[[bytes], bytes], new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    source, target = new("sqlite"), new("sqlite")
    fill(source, vault)
    exported(source, tmp_path / "file")
    (tmp_path / "file").write_bytes(damage((tmp_path / "file").read_bytes()))
    with pytest.raises(TsmError) as refused:
        imported(tmp_path / "file", target)
    assert refused.value.code is ErrorCode.INVALID_INPUT
    assert content(target) == []
    assert findings(target, vault) == []


def test_what_comes_in_a_stream_is_found_damaged_at_its_end_and_the_store_stays_shut(
    new: Make, vault: SoftwareVault, tmp_path: Path
) -> None:
    source, target = new("sqlite"), new("sqlite")
    fill(source, vault)
    exported(source, tmp_path / "file")
    damaged = BytesIO((tmp_path / "file").read_bytes().replace(b"Operator One", b"Operator Two"))
    with transfer.opened_target(target.owner) as opened, pytest.raises(TsmError, match="damaged"):
        transfer.import_stream(damaged, opened, lambda *_: None)
    with pytest.raises(TsmError, match="an import has not ended"):
        open_recorder(target.place, vault)


@pytest.mark.parametrize("engine", ENGINES)
def test_whoever_writes_to_the_target_meanwhile_is_noticed(
    engine: str, new: Make, vault: SoftwareVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 5)
    source, target = new("sqlite"), new(engine)
    fill(source, vault)
    exported(source, tmp_path / "file")
    with (
        pytest.raises(TsmError) as refused,
        closing(open_recorder(target.place, vault)) as server,
        transfer.opened_target(target.owner) as opened,
    ):
        told = lambda *_: server.insert_events([StoredEvent("card-1", 1, "t", b"{}")])  # noqa: E731
        transfer.import_file(tmp_path / "file", opened, told)
    assert refused.value.code is ErrorCode.CONFLICT


def test_a_store_with_missing_positions_is_not_exported(new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    store = new("sqlite")
    fill(store, vault)
    with unguarded(store) as execute:
        execute("DELETE FROM event WHERE position = 4")
    with pytest.raises(TsmError) as refused:
        exported(store, tmp_path / "file")
    assert refused.value.code is ErrorCode.STORE_CORRUPT
    assert not (tmp_path / "file").exists()


def test_an_export_holds_no_key_and_no_personal_datum(new: Make, vault: SoftwareVault, tmp_path: Path) -> None:
    store = new("sqlite")
    fill(store, vault)
    exported(store, tmp_path / "file")
    octets = (tmp_path / "file").read_text()
    assert "太郎" not in octets
    assert "load file data block" not in octets
    with as_owner(store) as execute:
        assert "太郎" not in str(execute("SELECT * FROM event"))
