"""What operators tell of their lines: feeds that are answered line by line while they go on."""

import asyncio
import json
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from socket import create_connection
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from api import administration
from api.bootstrap import CONFIG_FILE, AccessSettings, Parts
from api.camara.tokens import local_name
from api.rest import feed
from api.rest.feed import LONGEST_LINE, MOST_LINES, batches
from api.rest.signals import read_signal
from tests.api.admin_world import ICCIDS, OPERATOR, OTHER_ICCID, OTHER_OPERATOR, PROVIDER, World
from tests.api.https import serving, started
from tests.line_samples import NUMBER, OTHER_NUMBER, OTHER_PHONE, PHONE
from tests.tools import unavailable
from tsm.errors import ErrorCode, TsmError
from tsm.flows.lines import Lines

SIGNALS, SUBJECTS = "/mno/signals", "/mno/subjects"
ISSUER, OPERATORS_ISSUER = "https://id.example", "https://id.operator.example"
ICCID = ICCIDS[0]
LAST_WEEK = (datetime.now(UTC) - timedelta(days=7)).isoformat()
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat()
SECONDS = 10.0  # that a test waits for an answer
in_time = feed.in_time

Line = dict[str, Any]


class FedWorld(World):
    """It takes relying parties' tokens of an issuer for which any operator speaks, and of one that is OPERATOR's."""

    def build(self) -> Parts:
        one = {"issuer": ISSUER, "audience": "tsm", "algorithms": ["ES256"], "jwks": "keys.json"}
        issuers = [one, {**one, "issuer": OPERATORS_ISSUER, "operator": OPERATOR}]
        config = self.data / CONFIG_FILE
        config.write_text(json.dumps(json.loads(config.read_text()) | {"camara": {"issuers": issuers}}))
        return super().build()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(FedWorld(tmp_path)) as world:
        yield world


def signal(id: str, kind: str = "OBSERVED", at: str = LAST_WEEK, **values: str) -> Line:
    return {"id": id, "kind": kind, "occurred_at": at, **values}


BOUND = {"msisdn": NUMBER, "iccid": ICCID, "imei": PHONE}


@dataclass
class Talk:
    """One request, from the client's side."""

    sent: "asyncio.Queue[dict[str, Any]]" = field(default_factory=asyncio.Queue)
    answered: "asyncio.Queue[Line]" = field(default_factory=asyncio.Queue)
    status: int = 0
    takes: asyncio.Event = field(default_factory=asyncio.Event)  # whether the client reads
    over: bool = False

    def say(self, *lines: Line | bytes, more: bool = True) -> None:
        body = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        self.sent.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def go_away(self) -> None:
        self.sent.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> Line:
        return await asyncio.wait_for(self.answered.get(), SECONDS)

    async def take(self, message: dict[str, Any]) -> None:
        await self.takes.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        for line in message.get("body", b"").splitlines():
            self.answered.put_nowait(json.loads(line))
        self.over = not message.get("more_body", False)


@asynccontextmanager
async def talking(
    world: World, path: str, party: str = OPERATOR, headers: Sequence[tuple[bytes, bytes]] = (), **extensions: Any
) -> AsyncIterator[Talk]:
    """The request is under way within the block; it has to end with it."""
    talk = Talk()
    talk.takes.set()
    der = world.certificates[party] if party else None
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": list(headers), "scheme": "https", "server": ("server", 443),
        "extensions": {"tls": {"client_cert_der": der}, **extensions},
    }  # fmt: skip
    running = asyncio.ensure_future(world.app(scope, talk.sent.get, talk.take))
    try:
        yield talk
        await asyncio.wait_for(running, SECONDS)
    finally:
        running.cancel()


def post(world: World, path: str, *lines: Line | bytes, party: str = OPERATOR) -> list[Line]:
    """A whole body, and all answers."""

    async def run() -> list[Line]:
        async with talking(world, path, party) as talk:
            talk.say(*lines, more=False)
        return [talk.answered.get_nowait() for _ in range(talk.answered.qsize())]

    return asyncio.run(run())


def codes(answers: Sequence[Line]) -> list[str]:
    return [answer["error"]["code"] if "error" in answer else "" for answer in answers]


# What is told


def test_each_line_of_a_body_is_answered_by_its_number_its_id_and_its_position(world: World) -> None:
    before = world.position
    answers = post(world, SIGNALS, signal("a", **BOUND), b"", signal("b", msisdn=OTHER_NUMBER), signal("a", **BOUND))
    assert answers == [
        {"line": 1, "id": "a", "position": before + 1, "repeated": False},
        {"line": 2, "id": "b", "position": before + 2, "repeated": False},
        {"line": 3, "id": "a", "position": before + 1, "repeated": True},
    ]
    told = world.parts.lines.history(msisdn=NUMBER).signals[0].signal
    assert (told.source, told.id, told.imei) == (f"operator:{OPERATOR}", "a", PHONE)


def test_a_notification_of_globalplatform_is_a_line_too(world: World) -> None:
    renewal = {"OldSecureElement": {"ICCID": ICCID}, "NewSecureElement": {"ICCID": ICCIDS[1]}}
    [answer] = post(world, SIGNALS, {"id": "n", "occurred_at": LAST_WEEK, "HandleSERenewalNotification": renewal})
    assert (answer["id"], answer["repeated"]) == ("n", False)
    [known] = world.parts.lines.history(iccid=ICCID).signals
    assert (known.signal.kind, known.signal.previous, known.position) == ("SIM_REPLACED", ICCID, answer["position"])


def test_times_have_any_offset_but_none_at_all_is_refused(world: World) -> None:
    japanese = "2026-11-21T09:00:00+09:00"
    [taken, refused] = post(
        world,
        SIGNALS,
        signal("a", at=japanese, **BOUND),
        signal("b", at="2026-11-21T09:00:00", **BOUND),
    )
    assert world.parts.tsm.at([taken["position"]])[0].occurred_at == datetime(2026, 11, 21, tzinfo=UTC)  # type: ignore[union-attr]
    assert refused["error"]["field"] == ["occurred_at"]


@pytest.mark.parametrize(
    ("line", "id", "code", "place"),
    [
        (b"{", "", "INVALID_INPUT", []),
        (b"[1]", "", "INVALID_INPUT", []),
        (b"\xff\xfe", "", "INVALID_INPUT", []),
        (b"\xef\xbb\xbf{}", "", "INVALID_INPUT", []),
        (b"\x00", "", "INVALID_INPUT", []),
        (b'{"id": "\x82\xa0"}', "", "INVALID_INPUT", []),  # Shift JIS
        (b'{"id": "x", "kind": "\xff"}', "", "INVALID_INPUT", []),
        (b'{"id": "\\ud800"}', "", "INVALID_INPUT", []),
        (b'{"id": ' + b"[" * 8000, "", "INVALID_INPUT", ["id"]),
        (b'{"HandleSERenewalNotification": ' + b"[" * 4000 + b"]" * 4000 + b"}", "", "INVALID_INPUT", []),
        (b'{"id": ' + b"9" * 8000 + b"}", "", "INVALID_INPUT", ["id"]),
        (b'{"id": 1e999}', "", "INVALID_INPUT", ["id"]),
        (signal("x", colour="red", **BOUND), "x", "INVALID_INPUT", []),
        (signal("x", kind="PAINTED", **BOUND), "x", "INVALID_INPUT", ["kind"]),
        (signal("x", at="yesterday", **BOUND), "x", "INVALID_INPUT", ["occurred_at"]),
        (signal("x", at="2999-01-01T00:00:00Z", **BOUND), "x", "INVALID_INPUT", ["occurred_at"]),
        (signal("x", **{**BOUND, "imei": "123456789012345"}), "x", "INVALID_INPUT", ["imei"]),
        (signal("not a name", **BOUND), "not a name", "INVALID_INPUT", ["id"]),
        (signal("x"), "x", "INVALID_INPUT", ["msisdn"]),
        (signal("x", source=f"operator:{OTHER_OPERATOR}", **BOUND), "x", "FORBIDDEN", ["source"]),
        (signal("x", iccid=OTHER_ICCID), "x", "FORBIDDEN", ["iccid"]),
        ({"id": "x", "HandleNothing": {}}, "x", "INVALID_INPUT", []),
        ({"id": "x", "HandleSERenewalNotification": {}, "and": 1}, "x", "INVALID_INPUT", ["and"]),
        ({"id": 7, "HandleSERenewalNotification": {}}, "", "INVALID_INPUT", []),
    ],
)
def test_a_bad_line_is_refused_alone(world: World, line: Line | bytes, id: str, code: str, place: list[str]) -> None:
    before, refused, after = post(world, SIGNALS, signal("a", **BOUND), line, signal("b", **BOUND))
    assert (refused["line"], refused["id"]) == (2, id)
    assert (refused["error"]["code"], refused["error"]["field"]) == (code, place)
    assert after["position"] == before["position"] + 1


RENEWAL = {"OldSecureElement": {"ICCID": ICCIDS[0]}, "NewSecureElement": {"ICCID": ICCIDS[1]}}
NOTIFICATION = {"id": "x", "occurred_at": LAST_WEEK, "HandleSERenewalNotification": RENEWAL}


@pytest.mark.parametrize(
    ("line", "once", "twice"),
    [
        (signal("x", "LOST", **BOUND), '"kind"', '"kind": "RECOVERED", "kind"'),
        (signal("x", "LOST", **BOUND), '"kind"', r'"k\u0069nd": "RECOVERED", "kind"'),
        (signal("x", "LOST", **BOUND), '"id"', '"id": "x", "id"'),
        (NOTIFICATION, '"id"', '"id": "y", "id"'),
        (NOTIFICATION, '"ICCID"', f'"ICCID": "{OTHER_ICCID}", "ICCID"'),
    ],
)
def test_a_line_in_which_a_name_comes_twice_is_refused_alone(world: World, line: Line, once: str, twice: str) -> None:
    before, refused, after = post(
        world,
        SIGNALS,
        signal("a", **BOUND),
        json.dumps(line).replace(once, twice, 1).encode(),
        signal("b", **BOUND),
    )
    assert (refused["id"], refused["error"]["code"], refused["error"]["field"]) == ("", "INVALID_INPUT", [])
    assert after["position"] == before["position"] + 1


def test_a_line_may_end_as_on_windows(world: World) -> None:
    [answer] = post(world, SIGNALS, json.dumps(signal("b", **BOUND)).encode() + b"\r")
    assert (answer["id"], answer["repeated"]) == ("b", False)


def test_another_content_under_a_known_id_is_refused(world: World) -> None:
    post(world, SIGNALS, signal("a", **BOUND))
    assert codes(post(world, SIGNALS, signal("a", msisdn=NUMBER))) == [ErrorCode.COMMAND_REUSED]


def test_what_follows_is_in_force_when_a_line_is_answered_and_the_feed_goes_on(world: World) -> None:
    async def run() -> None:
        async with talking(world, SIGNALS) as talk:
            talk.say(signal("a", **BOUND))
            assert (await talk.answer())["id"] == "a"
            assert not world.parts.standings.of(ICCID).on_hold
            talk.say(signal("b", "DEVICE_CHANGED", YESTERDAY, iccid=ICCID, imei=OTHER_PHONE))
            assert (await talk.answer())["line"] == 2
            assert world.parts.standings.of(ICCID).on_hold
            assert not talk.over
            talk.say(more=False)
        assert talk.over

    asyncio.run(run())


def test_events_say_which_operator_told_and_belong_to_it(world: World) -> None:
    [answer] = post(world, SIGNALS, signal("a", **BOUND))
    [event] = world.parts.tsm.at([answer["position"]])
    context = event.context  # type: ignore[union-attr]
    assert (context.actor, context.role, context.tenant) == (f"operator:{OPERATOR}", "operator", OPERATOR)
    assert context.request and context.correlation == f"signals-{context.request}"


# How it comes


@given(
    lines=st.lists(st.binary(min_size=1, max_size=20).filter(lambda b: b"\n" not in b and b.strip()), max_size=100),
    data=st.data(),
)
def test_however_a_body_is_cut_its_lines_are_its_lines(lines: list[bytes], data: st.DataObject) -> None:
    body = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    async def read() -> list[list[bytes]]:
        talk = Talk()
        for number, piece in enumerate(pieces, 1):
            talk.sent.put_nowait({"type": "http.request", "body": piece, "more_body": number < len(pieces)})
        return [batch async for batch in batches(talk.sent.get, 60)]

    found = asyncio.run(read())
    assert [line for batch in found for line in batch] == lines
    assert all(0 < len(batch) <= MOST_LINES for batch in found)


def test_what_comes_together_is_recorded_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, record = list[int](), Lines.record

    def counted(self: Lines, signals: Any, context: Any) -> Any:
        sizes.append(len(signals))
        return record(self, signals, context)

    monkeypatch.setattr(Lines, "record", counted)
    answers = post(world, SIGNALS, *(signal(f"s-{n}", **BOUND) for n in range(2 * MOST_LINES + 3)))
    assert sizes == [MOST_LINES, MOST_LINES, 3]
    assert [answer["line"] for answer in answers] == list(range(1, 2 * MOST_LINES + 4))


def test_a_line_too_long_ends_the_feed_with_what_came_before_it(world: World) -> None:
    async def run() -> Line:
        async with talking(world, SIGNALS) as talk:
            talk.say(signal("a", **BOUND))
            assert "position" in await talk.answer()
            talk.say(b"x" * (LONGEST_LINE + 1))
            return await talk.answer()

    ended = asyncio.run(run())
    assert ended.keys() == {"error", "requestId"} and codes([ended]) == [ErrorCode.MESSAGE_TOO_LARGE]


def test_a_feed_that_cannot_begin_is_refused_as_any_request_is(world: World) -> None:
    async def status(party: str, *lines: bytes) -> tuple[int, str]:
        async with talking(world, SIGNALS, party) as talk:
            talk.say(*lines, more=False)
        return talk.status, talk.answered.get_nowait()["code"]

    assert asyncio.run(status(OPERATOR, b"x" * (LONGEST_LINE + 1))) == (413, "MESSAGE_TOO_LARGE")
    assert asyncio.run(status("")) == (401, "UNAUTHENTICATED")
    assert asyncio.run(status(PROVIDER)) == (403, "FORBIDDEN")


@pytest.mark.parametrize("header", [(b"origin", b"https://evil.example"), (b"sec-fetch-site", b"cross-site")])
def test_no_page_of_another_site_makes_a_browser_tell_signals_with_its_certificate(
    world: World, header: tuple[bytes, bytes]
) -> None:
    async def run() -> Talk:
        async with talking(world, SIGNALS, headers=[(b"host", b"server"), header]) as talk:
            talk.say(signal("a", **BOUND), more=False)
        return talk

    talk = asyncio.run(run())
    assert (talk.status, talk.answered.get_nowait()["code"]) == (403, "FORBIDDEN")
    assert world.parts.lines.history(msisdn=NUMBER).signals == ()


def test_a_feed_without_a_line_is_answered_by_nothing(world: World) -> None:
    assert post(world, SIGNALS) == []


def test_a_silent_client_is_let_go_and_an_empty_line_is_no_silence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SILENCE", 0.3)

    async def run() -> Line:
        async with talking(world, SIGNALS) as talk:
            talk.say(signal("a", **BOUND))
            await talk.answer()
            for _ in range(5):
                await asyncio.sleep(0.1)
                talk.say(b"")
            assert not talk.over
            return await talk.answer()

    assert codes([asyncio.run(run())]) == [ErrorCode.TIMEOUT]


def test_an_operator_that_is_withdrawn_is_heard_no_more(world: World) -> None:
    async def run() -> Line:
        async with talking(world, SIGNALS) as talk:
            talk.say(signal("a", **BOUND))
            await talk.answer()
            await asyncio.to_thread(administration.withdraw, world.data, "operator", OPERATOR, "key lost")
            talk.say(signal("b", **BOUND))
            return await talk.answer()

    assert codes([asyncio.run(run())]) == [ErrorCode.UNAUTHENTICATED]
    assert [one.signal.id for one in world.parts.lines.history(msisdn=NUMBER).signals] == ["a"]


def test_what_a_client_told_before_it_went_away_counts_but_not_the_line_that_it_had_begun(world: World) -> None:
    async def run() -> None:
        async with talking(world, SIGNALS) as talk:
            body = json.dumps(signal("a", **BOUND)) + "\n" + json.dumps(signal("b", **BOUND))
            talk.sent.put_nowait({"type": "http.request", "body": body.encode(), "more_body": True})
            talk.go_away()

    asyncio.run(run())
    assert [one.signal.id for one in world.parts.lines.history(msisdn=NUMBER).signals] == ["a"]


def test_a_client_that_takes_no_answers_is_cut_and_read_no_further(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "in_time", lambda sending, _: in_time(sending, 0.05))
    cut = list[bool]()

    async def run() -> None:
        async with talking(world, SIGNALS, cut={"connection": lambda: cut.append(True)}) as talk:
            talk.takes.clear()
            for number in range(5):
                talk.say(*(signal(f"s-{number}-{n}", **BOUND) for n in range(MOST_LINES)))
        assert talk.sent.qsize() >= 3

    asyncio.run(run())
    assert cut == [True]


def test_a_client_has_so_many_feeds_at_one_time(world: World) -> None:
    most = world.parts.settings.limits.streams_per_client

    async def run() -> int:
        talks = [talking(world, SIGNALS) for _ in range(most)]
        opened = [await talk.__aenter__() for talk in talks]
        for talk in opened:
            talk.say(b"")
        await asyncio.sleep(0)
        async with talking(world, SIGNALS) as refused:
            pass
        for talk, opening in zip(opened, talks, strict=True):
            talk.say(more=False)
            await opening.__aexit__(None, None, None)
        async with talking(world, SIGNALS) as again:
            again.say(more=False)
        assert again.status == 200
        return refused.status

    assert asyncio.run(run()) == 429


@pytest.mark.parametrize("code", [ErrorCode.STORE_BUSY, ErrorCode.STORE_UNAVAILABLE, ErrorCode.CONFLICT])
def test_what_the_store_could_not_take_is_said_line_by_line_and_may_be_said_again(
    world: World, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    def refuses(*_: Any) -> Any:
        raise TsmError(code, "the name of the disk")

    with monkeypatch.context() as away:
        away.setattr(Lines, "record", refuses)
        answers = post(world, SIGNALS, signal("a", **BOUND), b"{", signal("b", **BOUND))
    assert codes(answers) == [code, ErrorCode.INVALID_INPUT, code]
    assert "disk" not in json.dumps(answers)
    assert codes(post(world, SIGNALS, signal("a", **BOUND), signal("b", **BOUND))) == ["", ""]


def test_a_fault_in_the_middle_is_the_last_line_and_says_nothing_of_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> Line:
        async with talking(world, SIGNALS) as talk:
            talk.say(signal("a", **BOUND))
            await talk.answer()
            monkeypatch.setattr(Lines, "record", lambda *_: 1 / 0)
            talk.say(signal("b", **BOUND))
            return await talk.answer()

    ended = asyncio.run(run())
    assert codes([ended]) == [ErrorCode.INTERNAL] and "division" not in json.dumps(ended)


def test_the_lines_of_the_documentation_are_answered_as_it_says(world: World) -> None:
    """In its order: what it says of subjects comes last."""
    document = Path(__file__).parents[2].joinpath("docs", "lines.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", document, re.DOTALL)
    signals, subjects = ([line.encode() for line in block.splitlines()] for block in blocks)
    shown = re.findall(r"^\{\"line\".*$", document, re.MULTILINE)
    answers = post(world, SIGNALS, *signals)
    assert codes(answers) == ["", ErrorCode.INVALID_INPUT, "", "", "", ""]
    first, second = map(json.loads, shown)
    assert answers[:2] == [{**first, "position": answers[0]["position"]}, second]
    assert codes(post(world, SUBJECTS, *subjects)) == [""]


# Subjects


def test_a_subject_leads_to_the_line_of_its_number(world: World) -> None:
    post(world, SIGNALS, signal("a", "SUBSCRIBED", **BOUND), signal("b", "SUBSCRIBED", msisdn=OTHER_NUMBER))
    mapping = {"issuer": "https://id.example", "sub": "alice", "msisdn": NUMBER}
    answers = post(
        world,
        SUBJECTS,
        mapping,
        mapping,
        {**mapping, "msisdn": OTHER_NUMBER},
        mapping,
        {**mapping, "msisdn": "+447700900009"},
        {**mapping, "msisdn": "447700900001"},
        {"issuer": "https://id.example", "sub": "alice"},
        {**mapping, "issuer": "https://id.example|alice", "sub": "b"},
        b"{",
        b'{"issuer": "\xff"}',
        b'{"issuer": ' + b"[" * 8000,
        json.dumps(mapping).replace('"msisdn"', f'"msisdn": "{OTHER_NUMBER}", "msisdn"').encode(),
    )
    lines = world.parts.lines
    assert lines.stream_of_subject("https://id.example", "alice") == lines.stream_of_number(NUMBER)
    assert codes(answers) == ["", "", "", "", "FORBIDDEN", *["INVALID_INPUT"] * 7]
    assert [answer["repeated"] for answer in answers[:4]] == [False, True, False, False]


def test_an_operator_maps_neither_anothers_number_nor_anothers_subject(world: World) -> None:
    mapping = {"issuer": "https://id.example", "sub": "alice", "msisdn": NUMBER}
    post(world, SIGNALS, signal("a", "SUBSCRIBED", **BOUND))
    post(world, SIGNALS, signal("b", "SUBSCRIBED", msisdn=OTHER_NUMBER), party=OTHER_OPERATOR)
    unknown = {**mapping, "sub": "eve", "msisdn": "+447700900009"}
    stolen, guessed = post(world, SUBJECTS, {**mapping, "sub": "eve"}, unknown, party=OTHER_OPERATOR)
    assert stolen["error"] == guessed["error"]  # so it tells nobody which numbers are others' customers'
    assert codes([stolen]) == ["FORBIDDEN"]
    assert codes(post(world, SUBJECTS, mapping)) == [""]
    taken_over = post(world, SUBJECTS, {**mapping, "msisdn": OTHER_NUMBER}, party=OTHER_OPERATOR)
    assert codes(taken_over) == ["ALREADY_EXISTS"]
    lines = world.parts.lines
    assert lines.stream_of_subject("https://id.example", "alice") == lines.stream_of_number(NUMBER)


def both_tell_a_number(world: World) -> None:
    post(world, SIGNALS, signal("a", "SUBSCRIBED", **BOUND))
    post(world, SIGNALS, signal("b", "SUBSCRIBED", msisdn=OTHER_NUMBER), party=OTHER_OPERATOR)


def test_for_an_issuer_that_names_an_operator_no_other_speaks(world: World) -> None:
    both_tell_a_number(world)
    mapping = {"issuer": OPERATORS_ISSUER, "sub": "alice", "msisdn": OTHER_NUMBER}
    [answer] = post(world, SUBJECTS, mapping, party=OTHER_OPERATOR)
    assert (answer["error"]["code"], answer["error"]["field"]) == ("FORBIDDEN", ["issuer"])
    lines = world.parts.lines
    assert lines.stream_of_subject(OPERATORS_ISSUER, "alice") is None
    assert codes(post(world, SUBJECTS, {**mapping, "msisdn": NUMBER})) == [""]
    assert lines.stream_of_subject(OPERATORS_ISSUER, "alice") == lines.stream_of_number(NUMBER)


def test_for_an_issuer_that_names_none_and_for_the_local_login_each_operator_speaks(world: World) -> None:
    both_tell_a_number(world)
    for issuer in (ISSUER, local_name(world.parts.settings.public_url)):
        hers = {"issuer": issuer, "sub": "alice", "msisdn": NUMBER}
        his = {"issuer": issuer, "sub": "bob", "msisdn": OTHER_NUMBER}
        assert codes(post(world, SUBJECTS, hers)) == [""]
        assert codes(post(world, SUBJECTS, his, party=OTHER_OPERATOR)) == [""]


@pytest.mark.parametrize("issuer", ["", "https://id.example/", "HTTPS://id.example", "https://another.example"])
def test_for_an_issuer_whose_tokens_are_not_taken_nobody_speaks(world: World, issuer: str) -> None:
    both_tell_a_number(world)
    [answer] = post(world, SUBJECTS, {"issuer": issuer, "sub": "alice", "msisdn": NUMBER})
    assert (answer["error"]["code"], answer["error"]["field"]) == ("INVALID_INPUT", ["issuer"])


def test_where_the_local_login_is_off_nobody_speaks_for_it(world: World) -> None:
    settings = world.parts.settings
    assert local_name(settings.public_url) in settings.speakers
    off = msgspec.structs.replace(settings, access=AccessSettings(local_login=False))
    assert off.speakers == {ISSUER: None, OPERATORS_ISSUER: OPERATOR}


# Over the wire


@dataclass
class Files:
    certificate: Path
    key: Path
    ca: Path


@pytest.fixture
def files(world: World, tmp_path: Path) -> Files:
    """The operator's certificate, as it has it."""
    certificate = tmp_path / OPERATOR / "cert.pem"
    shown = x509.load_der_x509_certificate(world.certificates[OPERATOR])
    certificate.write_bytes(shown.public_bytes(Encoding.PEM))
    return Files(certificate, tmp_path / OPERATOR / "key.pem", world.parts.settings.tls.party_ca)


@pytest.fixture
def url(world: World) -> Iterator[str]:
    """The world's server on a socket."""
    with serving(started(world.app), world.parts.settings.tls) as url:
        yield url


def chunk(line: Line) -> bytes:
    body = json.dumps(line).encode() + b"\n"
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def test_over_tls_a_line_is_answered_before_the_next_is_written(url: str, files: Files) -> None:
    tls = ssl.create_default_context(cafile=str(files.ca))
    tls.load_cert_chain(files.certificate, files.key)
    plain = create_connection(("127.0.0.1", int(url.rpartition(":")[2])), SECONDS)
    with tls.wrap_socket(plain, server_hostname="127.0.0.1") as client, client.makefile("rwb") as stream:
        stream.write(f"POST {SIGNALS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        stream.write(chunk(signal("a", **BOUND)))
        stream.flush()
        assert stream.readline().startswith(b"HTTP/1.1 200")
        said = answer_after(stream)
        stream.write(chunk(signal("b", **BOUND)) + b"0\r\n\r\n")
        stream.flush()
        assert (said["id"], answer_after(stream)["id"]) == ("a", "b")


@pytest.mark.parametrize(
    ("member", "time"), [("occurred_at", "0001-01-01T00:00:00+09:00"), ("until", "9999-12-31T23:59:59-09:00")]
)
def test_a_time_that_there_is_not_in_utc_is_refused(member: str, time: str) -> None:
    line = signal("a", **{"kind": "MODEL_CHANGE_ANNOUNCED", **BOUND, "until": "2026-11-22T09:00:00Z", member: time})
    with pytest.raises(TsmError) as refusal:
        read_signal(json.dumps(line).encode(), f"operator:{OPERATOR}")
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.INVALID_INPUT, (member,))


def answer_after(stream: Any) -> Line:
    """The next line of the answer that is JSON: what lies between is HTTP's."""
    while not (line := stream.readline()).startswith(b"{"):
        assert line
    return dict(json.loads(line))


def test_curl_feeds_what_a_pipe_gives_it(url: str, files: Files) -> None:
    if which("curl") is None:
        unavailable("missing here: apt-get install curl")
    shown = ["--cacert", files.ca, "--cert", files.certificate, "--key", files.key]
    command = ["curl", "-sSN", "--max-time", "10", "-X", "POST", "-T", "-", *shown, f"{url}{SIGNALS}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as curl:
        told = "".join(json.dumps(signal(f"s-{n}", **BOUND)) + "\n" for n in range(200))
        answers, _ = curl.communicate(told)
    assert [json.loads(line)["line"] for line in answers.splitlines()] == list(range(1, 201))
