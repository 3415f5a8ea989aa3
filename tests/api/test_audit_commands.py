"""`tsm audit`, against a server over TLS: tables, JSON, and exports that survive a cut connection."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, create_connection, create_server, socket
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from api import audit_client, cli, exports
from api.administration import certify_party
from api.audit_client import AuditClient, Identity, part_of
from api.certificates import request
from tests.api.audit_world import AuditWorld
from tests.api.https import serving
from tests.projections.story import CREDENTIAL, ICCID
from tsm.errors import ErrorCode, TsmError


class Auditor:
    """Somebody with a token file at a terminal."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = AuditWorld(folder)
        self.folder = folder
        self.ca = self.world.parts.settings.tls.party_ca
        self.token = folder / "token"
        self.token.write_text(self.world.token("auditor", "*").token + "\n")
        self.url = ""
        self._capsys = capsys

    def run(self, *words: str, status: int | None = None) -> str:
        """What it printed; `status` of a refusal."""
        given = cli.parser().parse_args(
            ["audit", *words, "--server", self.url, "--ca", str(self.ca), "--token-file", str(self.token)]
        )
        given.run(given)
        return self._capsys.readouterr().out

    def client(self) -> AuditClient:
        return AuditClient(self.url, self.ca, Identity(token=self.token.read_text().strip()))


@pytest.fixture
def auditor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Auditor]:
    monkeypatch.setattr(audit_client, "PAUSE", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    made = Auditor(tmp_path, capsys)
    with serving(made.world.app, made.world.parts.settings.tls) as url:
        made.url = url
        yield made


def test_the_history_of_a_card_is_a_table_from_the_beginning(auditor: Auditor) -> None:
    shown = auditor.run("history", "--card", ICCID)

    assert "位置" in shown and "what" in shown
    assert shown.index("card.registered") < shown.index("session.started") < shown.index("credential.applied")
    assert "registered for operator MNO00001" in shown


def test_a_history_and_a_search_come_for_programs_too(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_client, "PAGE", 2)
    history = json.loads(auditor.run("history", "--credential", f"{CREDENTIAL}-13101", "--json"))
    assert [event["topic"] for event in history] == [
        "credential.applied",
        "access_code.handed_out",
        "credential.holder_authenticated",
    ]
    found = json.loads(auditor.run("search", "--kind", "session.", "--provider", "BANK0001", "--limit", "5", "--json"))
    positions = [event["position"] for event in found]
    assert len(positions) == 5 and positions == sorted(positions, reverse=True)
    assert {event["provider"] for event in found} == {"BANK0001"}


def test_who_saw_a_persons_data_is_found_when_asked_for(auditor: Auditor) -> None:
    assert "reading.data_accessed" not in auditor.run("history", "--subject", "subject-13101")
    assert "reading.data_accessed" in auditor.run("history", "--subject", "subject-13101", "--readings")


def test_nothing_found_is_said_so(auditor: Auditor) -> None:
    assert auditor.run("search", "--to", "2020-01-01") == "no event is so, or you may not see it\n"


def test_what_people_wrote_cannot_write_on_the_terminal() -> None:
    from api.audit_commands import cells

    event = dict.fromkeys(("card", "aid", "domain", "credential", "provider"), "") | {
        "position": 1, "recordedAt": "2026-11-21T00:00:00+00:00", "topic": "card.released", "actor": "a\x1b[31m",
        "text": "\x1b[2J[bold]x", "reason": "a\nb",
    }  # fmt: skip
    plain = [cell.plain for cell in cells(event)]
    assert plain[3] == "�[2J[bold]x (a�b)" and plain[4] == "a�[31m"


def test_a_client_certificate_does_as_well_as_a_token(auditor: Auditor) -> None:
    folder = auditor.folder / "a-1"
    wanted = request(folder, "A-1").read_bytes()
    pem = certify_party(auditor.world.data, wanted, "A-1", "auditor", [])
    (folder / "certificate.pem").write_bytes(pem)
    identity = Identity(folder / "certificate.pem", folder / "key.pem")

    with closing(AuditClient(auditor.url, auditor.ca, identity)) as client:
        assert len(client.history({"card": ICCID}, 3)) == 3


def test_a_refusal_is_told_with_its_request(auditor: Auditor) -> None:
    auditor.token.write_text(auditor.world.token("clerk", "municipality:13101").token)
    with pytest.raises(TsmError) as refused:
        auditor.run("export", str(auditor.folder / "all.jsonl"))
    assert refused.value.code is ErrorCode.FORBIDDEN and "request " in refused.value.detail
    auditor.token.write_text("tsm_nothing")
    with pytest.raises(TsmError) as refused:
        auditor.run("search")
    assert refused.value.code is ErrorCode.UNAUTHENTICATED


def test_a_server_that_is_not_the_one_is_not_told_the_token(auditor: Auditor) -> None:
    with (
        closing(AuditClient(auditor.url, None, Identity(token="tsm_secret"))) as client,
        pytest.raises(TsmError) as error,
    ):
        client.search({}, 1)
    assert error.value.code is ErrorCode.CERTIFICATE_INVALID


@pytest.mark.parametrize("server", ["https://[::1", "ftp://server", "server", "https://" + "a" * 64 + ".example"])
def test_an_address_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(TsmError) as refused:
        AuditClient(server, None, Identity(token="tsm_secret"))
    assert (refused.value.code, refused.value.field) == (ErrorCode.INVALID_INPUT, ("server",))


# Exports


def positions(file: Path) -> list[int]:
    return [json.loads(line)["position"] for line in file.read_text().splitlines()]


@pytest.mark.parametrize("name", ["all.jsonl", "all.csv"])
def test_an_export_is_a_file_of_events_and_nothing_else(auditor: Auditor, name: str) -> None:
    file = auditor.folder / name
    report = json.loads(auditor.run("export", str(file), "--readings", "--json"))

    events = auditor.world.parts.tsm.position
    assert report == {"file": str(file), "events": events}
    assert len(file.read_text().splitlines()) == events + (name == "all.csv")
    assert list(auditor.folder.glob("*.part")) == []
    with pytest.raises(TsmError) as refused:
        auditor.run("export", str(file))
    assert refused.value.code is ErrorCode.ALREADY_EXISTS


@contextmanager
def cutting(url: str, octets: int, times: int) -> Iterator[str]:
    """A way to the server that is cut after so many octets of answers, so many times."""
    listener, left = create_server(("127.0.0.1", 0)), [times]

    def carry(source: socket, sink: socket, limit: int | None) -> None:
        sent = 0
        try:
            while chunk := source.recv(1024):
                sink.sendall(chunk)
                sent += len(chunk)
                if limit is not None and sent > limit:
                    break
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(SHUT_RDWR)  # the other thread waits for it
            end.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0))
            limit = octets if left[0] > 0 else None
            left[0] -= 1
            threading.Thread(target=carry, args=(client, server, None), daemon=True).start()
            threading.Thread(target=carry, args=(server, client, limit), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@pytest.mark.parametrize("name", ["all.jsonl", "all.csv"])
def test_a_connection_that_is_cut_again_and_again_loses_nothing_and_doubles_nothing(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(exports, "PAGE", 3)
    whole, cut = auditor.folder / f"whole-{name}", auditor.folder / f"cut-{name}"
    auditor.run("export", str(whole))
    with cutting(auditor.url, 9_000, 4) as url:
        auditor.url = url
        auditor.run("export", str(cut))

    assert cut.read_bytes() == whole.read_bytes()


def test_an_export_waits_until_there_is_a_place_for_it(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    [places] = [route.endpoint._places for route in auditor.world.app.routes if route.path == exports.PATH]
    client = "service-token:" + auditor.token.read_text().split("_")[1]
    while places.take(client):
        pass
    monkeypatch.setattr(audit_client, "time", SimpleNamespace(sleep=lambda _: places.leave(client)))
    file = auditor.folder / "waits.jsonl"
    auditor.run("export", str(file))
    assert file.exists()


def test_an_export_that_was_broken_off_goes_on_when_it_is_called_again(auditor: Auditor) -> None:
    whole, file = auditor.folder / "whole.jsonl", auditor.folder / "all.jsonl"
    auditor.run("export", str(whole))
    lines = whole.read_bytes().splitlines(keepends=True)
    part = part_of(file, auditor.url, {}, "jsonl")
    part.write_bytes(b"".join(lines[:7]) + lines[7][:20])
    auditor.run("export", str(file))

    assert file.read_bytes() == whole.read_bytes()
    assert not part.exists()


def test_another_question_never_goes_on_with_this_ones_beginning(auditor: Auditor) -> None:
    file = auditor.folder / "all.jsonl"
    part_of(file, auditor.url, {"card": ICCID}, "jsonl").write_bytes(b'{"cursor": "MQ=="}\n')
    auditor.run("export", str(file), "--kind", "card.")

    assert len(positions(file)) == sum(event.topic.startswith("card.") for event in auditor.world.log.events)


def test_a_server_that_brings_nothing_new_is_given_up_and_what_came_is_kept(auditor: Auditor) -> None:
    file = auditor.folder / "all.jsonl"
    with cutting(auditor.url, 100, 1000) as url, pytest.raises(TsmError) as error:
        auditor.url = url
        auditor.run("export", str(file))
    assert error.value.code is ErrorCode.UPSTREAM_UNAVAILABLE and "call again" in error.value.detail
    assert not file.exists()


def test_a_token_that_ends_in_the_middle_is_said_so_and_what_came_is_kept(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE", 3)
    issued = auditor.world.token("auditor", "*")
    whole, file = auditor.folder / "whole.jsonl", auditor.folder / "all.jsonl"
    auditor.run("export", str(whole))
    made = exports.write

    def revoked_later(*arguments: Any) -> Any:
        if arguments[3] > 8:
            auditor.world.tokens.revoke(issued.id, auditor.world.log.events[0].context)
        return made(*arguments)

    monkeypatch.setattr(exports, "write", revoked_later)
    kept, good = auditor.token.read_text(), issued.token
    auditor.token.write_text(good)
    with pytest.raises(TsmError) as ended:
        auditor.run("export", str(file))
    assert ended.value.code is ErrorCode.UNAUTHENTICATED
    auditor.token.write_text(kept)
    monkeypatch.setattr(exports, "write", made)
    auditor.run("export", str(file))

    found = positions(file)
    assert found == sorted(set(found)) and set(positions(whole)) <= set(found)
