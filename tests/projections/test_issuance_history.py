"""Issuance history: everything that concerns a card, nothing that the log seals."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args, get_origin

import msgspec
import pytest

from projections.folding import retry
from projections.issuance_history import ISSUANCE_HISTORY, entries, entry, positions
from projections.lines import line
from projections.runner import Runner
from projections.sqlite import SQLiteViews
from projections.views import Views
from tests.projections.conftest import MakeViews
from tests.projections.story import (
    BEGIN,
    CREDENTIAL,
    ICCID,
    OTHER_ICCID,
    SECRETS,
    MemoryLog,
    applied,
    registered,
    tell,
)
from tsm.errors import ErrorCode, TsmError
from tsm.model import access_code, card, credential, session
from tsm.model.event import Event, Fact
from tsm.model.swap_policy import DEFAULT, Policy
from tsm.model.topics import FACTS
from tsm.store.log import Unreadable


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    return make_views(ISSUANCE_HISTORY)


def whole(log: MemoryLog, views: Views, card: str = ICCID) -> list[Event | Unreadable]:
    return entries(views, log, card, 0, None, 1000)


def told(log: MemoryLog, views: Views) -> list[str]:
    return [line(found.fact) for found in whole(log, views) if isinstance(found, Event)]


def test_the_whole_story_of_a_card_is_told_in_order(log: MemoryLog, views: Views) -> None:
    Runner(tell(log), views).catch_up()

    assert [found.position for found in whole(log, views)] == list(range(2, log.position + 1))
    assert views.parked(ISSUANCE_HISTORY) == []
    assert told(log, views) == [
        "registered for operator MNO00001, profile DEMO-1, key version 30",
        "deployment for JPKI0001 prepared: security-domain, reception 2026112100000001",
        "security domain A00000015100000001 created under A000000151000000, SELECTABLE",
        "security domain A00000015100000001 got provisional keys, version 01, check values aaaaaa, bbbbbb, cccccc",
        "security domain A00000015100000001 got keys, version 02, check values aaaaaa, bbbbbb, cccccc",
        "load file D392F0002601FF loaded into A00000015100000001, 1234 octets, hash checked by the card",
        "application D392F000260100000001 installed from D392F0002601FF in A00000015100000001, SELECTABLE",
        "credential applied for at terminal T-13101-01 in 13101",
        "My Number card's certificate verified, not revoked as of 2026-11-21T02:00:00+00:00",
        "both key pairs and certificates issued by ca",
        "slip with access code and password handed out",
        "access code handed out, 5 tries, until 2027-11-21T02:00:00+00:00",
        "access code and password accepted",
        "DELEGATE: 1 command from JPKI0001 for A00000015100000001, reception 2026112100000001",
        "START: session for JPKI0001, reception 2026112100000001, with A00000015100000001",
        "application D392F000260100000001 personalized by A00000015100000001",
        "credential written to the card, reception 2026112100000001",
        "authority's copy of the authentication key destroyed",
        "authority's copy of the signature key destroyed",
        "credential active: its keys exist in the card only",
    ]


def test_an_entry_says_who_why_and_when_twice(log: MemoryLog, views: Views) -> None:
    Runner(tell(log), views).catch_up()
    found = entry(views, log, 9)

    assert isinstance(found, Event)
    assert (found.topic, found.originator_id, found.originator_version) == (
        "credential.applied",
        f"credential-{CREDENTIAL}",
        1,
    )
    said = found.context
    assert (said.actor, said.role, said.tenant, said.tenants) == (
        "terminal:T-13101-01",
        "phone",
        "JPKI0001",
        ("MNO00001",),
    )
    assert (said.correlation, said.request, said.causation, said.reason) == (CREDENTIAL, "r-1", "", "")
    assert found.recorded_at is not None and found.recorded_at - found.occurred_at == timedelta(milliseconds=1)
    assert found.occurred_at == BEGIN + timedelta(seconds=8)


def test_of_what_is_sealed_only_the_card_is_known(log: MemoryLog, views: Views) -> None:
    Runner(tell(log), views).catch_up()
    written = str(rows(views)) + str(told(log, views))

    assert CREDENTIAL in written
    assert [secret for secret in SECRETS if secret in written] == []


def erased(log: MemoryLog) -> None:
    """The order is recorded, the key destroyed, and that recorded."""
    log.add(f"credential-{CREDENTIAL}", credential.ErasureOrdered(subject="subject-1", in_use=True))
    log.erased.add("subject-1")
    log.add(f"credential-{CREDENTIAL}", credential.PersonErased(subject="subject-1"))


def rows(views: Views) -> list[object]:
    """All there are of the read model."""
    tables = ("SELECT * FROM {stream} ORDER BY stream", "SELECT * FROM {entry} ORDER BY position")
    return [views.read(ISSUANCE_HISTORY, query) for query in tables]


def test_erasure_unties_the_person_from_the_card_and_a_rebuild_gives_the_same_rows(
    log: MemoryLog, views: Views, make_views: MakeViews
) -> None:
    Runner(tell(log), views).catch_up()
    erased(log)
    log.add("access-code-0123", access_code.AccessCodeLocked())
    Runner(log, views).catch_up()
    again = make_views(ISSUANCE_HISTORY, anew=True)
    Runner(log, again).catch_up()

    assert rows(again) == rows(views)
    streams = {found.originator_id for found in whole(log, views)}
    assert f"card-{ICCID}" in streams
    assert not [stream for stream in streams if stream.startswith(("credential-", "access-code-"))]
    assert len(whole(log, views, "")) == 13
    assert entry(views, log, 9) is not None
    assert views.parked(ISSUANCE_HISTORY) == []


def test_erasure_in_the_page_of_the_application_unties_as_well(log: MemoryLog, views: Views) -> None:
    tell(log)
    log.add(f"credential-{CREDENTIAL}", credential.ErasureOrdered(subject="subject-1", in_use=True))
    Runner(log, views).catch_up()

    assert not [found for found in whole(log, views) if found.originator_id.startswith(("credential-", "access-code-"))]


def test_what_was_parked_when_the_person_was_erased_is_tied_to_no_card_later(log: MemoryLog, views: Views) -> None:
    tell(log)
    log.unreadable = {next(event.position for event in log.events if event.topic == "credential.applied")}
    Runner(log, views).catch_up()
    erased(log)
    Runner(log, views).catch_up()
    waiting = {parked.stream for parked in views.parked(ISSUANCE_HISTORY)}
    assert waiting == {f"credential-{CREDENTIAL}", "access-code-0123"}

    log.unreadable = set()
    retry(log, views, ISSUANCE_HISTORY)
    assert views.parked(ISSUANCE_HISTORY) == []
    assert not [found for found in whole(log, views) if found.originator_id in waiting]
    assert waiting <= {found.originator_id for found in whole(log, views, "")}


def test_an_event_that_cannot_be_read_keeps_its_place_and_is_said_to_be_unreadable(
    log: MemoryLog, views: Views
) -> None:
    tell(log)
    log.unreadable = {5}
    Runner(log, views).catch_up()

    found = {found.position: found for found in whole(log, views)}
    assert list(found) == list(range(2, log.position + 1))
    assert [position for position, event in found.items() if isinstance(event, Unreadable)] == [5]
    assert (found[5].topic, found[5].originator_id) == ("card.keys_put", f"card-{ICCID}")
    assert views.parked(ISSUANCE_HISTORY) == []


def test_another_persons_rows_stay_where_they_are(log: MemoryLog, views: Views) -> None:
    """Of the next holder of the same card, say."""
    tell(log)
    log.add("credential-other", msgspec.structs.replace(applied(), subject="subject-2"), "other")
    erased(log)
    Runner(log, views).catch_up()

    credentials = {found.originator_id for found in whole(log, views) if found.originator_id.startswith("credential-")}
    assert credentials == {"credential-other"}


def test_another_card_has_another_history(log: MemoryLog, views: Views) -> None:
    tell(log)
    log.add(f"card-{OTHER_ICCID}", registered(OTHER_ICCID))
    Runner(log, views).catch_up()

    assert [found.topic for found in whole(log, views, OTHER_ICCID)] == ["card.registered"]
    assert log.position not in [found.position for found in whole(log, views)]


def test_pages_follow_each_other_in_both_directions(log: MemoryLog, views: Views) -> None:
    Runner(tell(log), views).catch_up()
    every = [found.position for found in whole(log, views)]

    forwards: list[int] = []
    while page := positions(views, ICCID, forwards[-1] if forwards else 0, None, 3):
        forwards += page
    backwards: list[int] = []
    while page := positions(views, ICCID, 0, backwards[-1] if backwards else None, 3, newest_first=True):
        backwards += page

    assert forwards == every
    assert backwards == every[::-1]


def test_a_page_is_read_from_the_index_whatever_the_length_of_the_history(log: MemoryLog, tmp_path: Path) -> None:
    """The rows come in the order of the index, so that reading can end at the limit."""
    views = SQLiteViews(tmp_path / "views.sqlite", [ISSUANCE_HISTORY])
    Runner(tell(log), views).catch_up()
    query = (
        "EXPLAIN QUERY PLAN SELECT * FROM {entry} WHERE card = ? AND position > ? AND position < ? ORDER BY position"
    )
    plan = [row[-1] for row in views.read(ISSUANCE_HISTORY, query, (ICCID, 5, 9))]

    assert len(plan) == 1
    assert plan[0].endswith("(card=? AND position>? AND position<?)")
    views.close()


def test_a_stream_that_names_no_card_is_parked_not_skipped(log: MemoryLog, views: Views) -> None:
    log.add("session-JPKI0001-2026112100000009", session.CardConnected())
    log.add("access-code-9999", access_code.AccessCodeHandedOut(credential="unknown", expires_at=BEGIN, tries=5))
    log.add("novelty-1", session.CardConnected())
    Runner(log, views).catch_up()

    assert [parked.position for parked in views.parked(ISSUANCE_HISTORY)] == [1, 2, 3]


@pytest.mark.parametrize("fact", FACTS, ids=lambda f: f.topic)
def test_every_fact_has_a_line(fact: type[Fact]) -> None:
    made = msgspec.convert({f.name: sample(f.type) for f in msgspec.structs.fields(fact)}, fact)
    text = line(made)
    assert text and "\n" not in text


def sample(kind: object) -> object:
    simple = {str: "80E60C00", int: 1, bool: True}
    if kind in simple:
        return simple[kind]  # type: ignore[index]
    if get_origin(kind) is Mapping:
        return {}
    if kind is Policy:
        return DEFAULT
    return BEGIN if datetime in (kind, *get_args(kind)) else ()


def test_a_fact_without_a_line_is_an_error() -> None:
    class Novelty(Fact, frozen=True, kw_only=True):
        topic = "card.novelty"

    with pytest.raises(TsmError) as refused:
        line(Novelty())
    assert refused.value.code is ErrorCode.INTERNAL


def test_a_refused_command_is_named_with_its_status_word() -> None:
    refused = card.CommandRefused(domain="A000000151000000", command="COMMAND", header="80E60200", status_word="6A84")
    what = "INSTALL (80E60200) for A000000151000000 with status word 6A84"
    assert line(refused) == f"refused: {what}, which nothing proves"
    assert line(msgspec.structs.replace(refused, verified=True)) == f"the card refused {what}"
