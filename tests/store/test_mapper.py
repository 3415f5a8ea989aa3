"""Events as JSON: readable without our code, personal fields sealed into their place, old versions understood."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import msgspec
import pytest
from eventsourcing.persistence import StoredEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_events import APPLIED, CONTEXT, FACTS, KEYS_PUT, NOON, Applied, KeysPut, Renamed, event

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Aid, Iccid, SpId
from tsm.keys.vault import SoftwareVault
from tsm.model.event import Context, Event, Fact
from tsm.store.mapper import ERASED, JsonMapper
from tsm.store.recorder import RecordedEvent
from tsm.store.sqlite import SQLiteRecorder


def test_a_stored_event_reads_without_our_code(mapper: JsonMapper) -> None:
    stored = mapper.to_stored_event(event(KEYS_PUT, "card-1", 7))
    assert (stored.originator_id, stored.originator_version, stored.topic) == ("card-1", 7, "sample.keys_put")
    assert json.loads(stored.state) == {
        "topic": "sample.keys_put",
        "version": 1,
        "stream": "card-1",
        "number": 7,
        "occurred_at": "2026-11-21T12:00:00Z",
        "context": {
            "actor": "phone",
            "role": "phone",
            "tenant": "JPKI0001",
            "tenants": ["MNO00001"],
            "correlation": "story-1",
            "causation": "",
            "request": "",
            "command": "",
            "reason": "",
            "person": "",
        },
        "data": {"domain": "A0000001510000", "key_version": 2, "check_values": ["e79c05", "d1bd77", "3fde8c"]},
    }


text = st.text(max_size=20)
contexts = st.builds(Context, actor=text, role=text, tenant=text, tenants=st.lists(text).map(tuple), correlation=text)
facts = st.one_of(
    st.builds(KeysPut, domain=text, key_version=st.integers(-(2**63), 2**63 - 1), check_values=st.just(("a",))),
    st.builds(Renamed, kind=text, count=st.integers(0, 99)),
    st.builds(Applied, subject=st.sampled_from(["p", "q"]), iccid=text, applicant=text, provider=text),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fact=facts,
    context=contexts,
    stream=text,
    number=st.integers(1, 2**31),
    occurred_at=st.datetimes(timezones=st.just(UTC)),
)
def test_what_goes_in_comes_out(
    mapper: JsonMapper, fact: Fact, context: Context, stream: str, number: int, occurred_at: datetime
) -> None:
    one = Event(originator_id=stream, originator_version=number, occurred_at=occurred_at, context=context, fact=fact)
    assert mapper.to_domain_event(mapper.to_stored_event(one)) == one


def test_an_identifier_is_stored_as_the_text_that_it_is(mapper: JsonMapper) -> None:
    plain = msgspec.structs.replace(KEYS_PUT, domain=Aid("A0000001510000"))
    sealed = msgspec.structs.replace(APPLIED, iccid=Iccid("8981100000000000010"), provider=SpId("JPKI0001"))
    for fact in (plain, sealed):
        assert mapper.to_domain_event(mapper.to_stored_event(event(fact))).fact == fact


def test_an_event_from_the_log_knows_its_position_and_the_time_of_its_record(
    mapper: JsonMapper, recorder: SQLiteRecorder
) -> None:
    recorder.insert_events([mapper.to_stored_event(event())])
    [recorded] = recorder.select_events("card-1")
    read = mapper.to_domain_event(recorded)
    assert read == msgspec.structs.replace(event(), position=1, recorded_at=recorded.recorded_at)
    assert read.recorded_at is not None


def test_an_older_version_is_brought_up_to_date(mapper: JsonMapper) -> None:
    first = changed(mapper.to_stored_event(event(Renamed(kind="x", count=9))), version=1, data={"sort": "old"})
    second = changed(mapper.to_stored_event(event(Renamed(kind="x", count=9))), version=2, data={"kind": "newer"})
    assert mapper.to_domain_event(first).fact == Renamed(kind="old", count=1)
    assert mapper.to_domain_event(second).fact == Renamed(kind="newer", count=1)


def test_an_older_version_that_lacks_what_it_should_have_is_refused(mapper: JsonMapper) -> None:
    stored = mapper.to_stored_event(event(Renamed(kind="x", count=9)))
    refuses(mapper, changed(stored, version=1, data={}), ErrorCode.STORE_CORRUPT)


def test_a_newer_version_is_refused(mapper: JsonMapper) -> None:
    newer = changed(mapper.to_stored_event(event()), version=2)
    refuses(mapper, newer, ErrorCode.STORE_FORMAT)


@pytest.mark.parametrize(
    "change",
    [
        {"stream": "card-2"},
        {"number": 2},
        {"topic": "sample.applied"},
        {"data": {"domain": "A0"}},
        {"data": {"domain": 1, "key_version": 2, "check_values": []}},
        {"data": []},
        {"context": {}},
        {"occurred_at": "yesterday"},
        {"version": "1"},
    ],
)
def test_an_event_that_does_not_fit_its_place_or_form_is_refused(mapper: JsonMapper, change: dict[str, Any]) -> None:
    refuses(mapper, changed(mapper.to_stored_event(event()), **change), ErrorCode.STORE_CORRUPT)


@pytest.mark.parametrize("state", [b"", b"{", b"null", b"\xff\xfe", b"[1]", b'{"topic": "sample.keys_put"}'])
def test_bytes_that_are_no_event_are_refused(mapper: JsonMapper, state: bytes) -> None:
    refuses(mapper, StoredEvent("card-1", 1, "sample.keys_put", state), ErrorCode.STORE_CORRUPT)


def test_a_topic_is_looked_up_in_the_list_and_never_imported(mapper: JsonMapper) -> None:
    stored = changed(mapper.to_stored_event(event()), topic="os:system")
    refuses(mapper, replace(stored, topic="os:system"), ErrorCode.STORE_CORRUPT)


def test_an_unlisted_fact_is_not_stored(vault: SoftwareVault) -> None:
    with pytest.raises(TsmError) as refusal:
        JsonMapper([Renamed], vault).to_stored_event(event(KEYS_PUT))
    assert refusal.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("when", [NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=9)))])
def test_a_time_that_is_not_utc_is_not_stored(mapper: JsonMapper, when: datetime) -> None:
    with pytest.raises(TsmError) as refusal:
        mapper.to_stored_event(event(occurred_at=when))
    assert refusal.value.code is ErrorCode.INVALID_INPUT


def test_utc_by_another_name_is_utc(mapper: JsonMapper) -> None:
    stored = mapper.to_stored_event(event(occurred_at=NOON.astimezone(ZoneInfo("UTC"))))
    assert json.loads(stored.state)["occurred_at"] == "2026-11-21T12:00:00Z"


def test_two_facts_cannot_share_a_topic(vault: SoftwareVault) -> None:
    class Impostor(Fact, frozen=True, kw_only=True):
        topic: ClassVar[str] = KeysPut.topic

    with pytest.raises(TsmError):
        JsonMapper([*FACTS, Impostor], vault)


def test_a_fact_with_sealed_fields_names_its_subject(vault: SoftwareVault) -> None:
    class Nameless(Fact, frozen=True, kw_only=True):
        topic: ClassVar[str] = "sample.nameless"
        sealed: ClassVar[tuple[str, ...]] = ("iccid",)
        iccid: str

    with pytest.raises(TsmError):
        JsonMapper([Nameless], vault)


def test_personal_fields_are_sealed_and_the_rest_stays_readable(mapper: JsonMapper) -> None:
    stored = mapper.to_stored_event(event(APPLIED))
    data = json.loads(stored.state)["data"]
    assert data["provider"] == "JPKI0001"
    assert data["subject"] == "credential-1"
    assert set(data["iccid"]) == {"sealed_under", "value"}
    assert data["iccid"]["sealed_under"] == data["applicant"]["sealed_under"]
    assert APPLIED.iccid.encode() not in stored.state
    assert APPLIED.applicant.encode() not in stored.state
    assert mapper.to_domain_event(stored).fact == APPLIED


def test_the_same_value_is_never_sealed_into_the_same_bytes(mapper: JsonMapper) -> None:
    assert mapper.to_stored_event(event(APPLIED)).state != mapper.to_stored_event(event(APPLIED)).state


@pytest.mark.parametrize("place", [{"stream": "card-2"}, {"number": 2}])
def test_a_sealed_field_opens_only_in_its_own_event(mapper: JsonMapper, place: dict[str, Any]) -> None:
    moved = changed(mapper.to_stored_event(event(APPLIED)), **place)
    moved = replace(
        moved,
        originator_id=place.get("stream", moved.originator_id),
        originator_version=place.get("number", moved.originator_version),
    )
    refuses(mapper, moved, ErrorCode.STORE_CORRUPT)


def test_a_sealed_field_opens_only_under_its_own_name(mapper: JsonMapper) -> None:
    stored = mapper.to_stored_event(event(APPLIED))
    data = json.loads(stored.state)["data"]
    data["iccid"], data["applicant"] = data["applicant"], data["iccid"]
    refuses(mapper, changed(stored, data=data), ErrorCode.STORE_CORRUPT)


@pytest.mark.parametrize("value", ["", "AAAA", "not base64!", "é"])
def test_a_damaged_sealed_field_is_refused(mapper: JsonMapper, value: str) -> None:
    stored = mapper.to_stored_event(event(APPLIED))
    data = json.loads(stored.state)["data"]
    data["iccid"]["value"] = value
    refuses(mapper, changed(stored, data=data), ErrorCode.STORE_CORRUPT)


def test_destroying_a_subjects_key_erases_the_person_and_leaves_the_event(
    mapper: JsonMapper, vault: SoftwareVault
) -> None:
    stored = mapper.to_stored_event(event(APPLIED))
    other = mapper.to_stored_event(event(msgspec.structs.replace(APPLIED, subject="credential-2"), number=2))
    vault.destroy_subject("credential-1")
    assert mapper.to_domain_event(stored).fact == msgspec.structs.replace(APPLIED, iccid=ERASED, applicant=ERASED)
    assert mapper.to_domain_event(other).fact == msgspec.structs.replace(APPLIED, subject="credential-2")


def test_nothing_can_be_recorded_of_an_erased_person(mapper: JsonMapper, vault: SoftwareVault) -> None:
    vault.destroy_subject("credential-1")
    with pytest.raises(TsmError) as refusal:
        mapper.to_stored_event(event(APPLIED))
    assert refusal.value.code is ErrorCode.UNKNOWN_KEY


def test_no_personal_datum_is_readable_in_any_file(
    mapper: JsonMapper, recorder: SQLiteRecorder, tmp_path: Path
) -> None:
    recorder.insert_events([mapper.to_stored_event(event(APPLIED))])
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert APPLIED.iccid.encode() not in file.read_bytes()
        assert APPLIED.applicant.encode() not in file.read_bytes()


def test_a_refusal_quotes_no_data(mapper: JsonMapper) -> None:
    data = {"domain": "A0", "key_version": "SECRET", "check_values": []}
    refusal = refuses(mapper, changed(mapper.to_stored_event(event()), data=data), ErrorCode.STORE_CORRUPT)
    assert "SECRET" not in str(refusal)


def test_recorded_times_are_not_part_of_the_stored_form(mapper: JsonMapper) -> None:
    stored = mapper.to_stored_event(event())
    recorded = RecordedEvent(stored.originator_id, stored.originator_version, stored.topic, stored.state, 9, NOON)
    assert mapper.to_stored_event(mapper.to_domain_event(recorded)) == stored
    assert mapper.to_domain_event(recorded).context == CONTEXT


def changed(stored: StoredEvent, **values: Any) -> StoredEvent:
    return replace(stored, state=json.dumps({**json.loads(stored.state), **values}).encode())


def refuses(mapper: JsonMapper, stored: StoredEvent, code: ErrorCode) -> TsmError:
    with pytest.raises(TsmError) as refusal:
        mapper.to_domain_event(stored)
    assert refusal.value.code is code
    return refusal.value
