"""Who was shown personal data is in the log before the answer leaves, or there is no answer."""

import pytest

from api.access import Caller
from api.reading import Readings
from projections.viewer import EVERYTHING
from tests.flows.mas_world import World
from tsm.errors import ErrorCode, TsmError
from tsm.model.reading import DataAccessed, stream

OFFICER = Caller("alice", "security-officer", "", EVERYTHING, client="https://id.example|console|alice")
QUERY = "ab" * 32


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def refused(code, readings, *values):
    with pytest.raises(TsmError) as refusal:
        readings.record(OFFICER, *values)
    assert refusal.value.code == code


def test_one_event_tells_who_read_whose_data_why_and_with_which_query(world):
    position = Readings(world.tsm).record(
        OFFICER, "5f3a", "complaint 12", QUERY, ["subject-2", "subject-1", "subject-2"]
    )
    [event] = world.tsm.history(stream("5f3a"))
    assert event.fact == DataAccessed(purpose="complaint 12", query_sha256=QUERY, subjects=("subject-1", "subject-2"))
    assert (event.position, event.context.actor, event.context.role) == (
        position,
        "security-officer:alice",
        "security-officer",
    )
    assert (event.context.request, event.context.tenant) == ("5f3a", "tsm-server")


def test_what_a_person_of_a_party_reads_belongs_to_that_party(world):
    auditor = Caller("JPKI0001", "auditor", "JPKI0001", person="bob")
    Readings(world.tsm).record(auditor, "1", "audit", QUERY, ["s"])
    [event] = world.tsm.history(stream("1"))
    assert (event.context.actor, event.context.tenant) == ("auditor:JPKI0001/bob", "JPKI0001")


def test_a_reading_without_purpose_query_or_subject_is_none(world):
    readings, before = Readings(world.tsm), world.tsm.position
    for purpose in ("", "  ", "x" * 201, "a\nb"):
        refused(ErrorCode.INVALID_INPUT, readings, "1", purpose, QUERY, ["s"])
    for query in ("", "zz", QUERY[:-2]):
        refused(ErrorCode.INVALID_INPUT, readings, "1", "audit", query, ["s"])
    refused(ErrorCode.INVALID_INPUT, readings, "1", "audit", QUERY, [])
    assert world.tsm.position == before


def test_a_request_is_recorded_once(world):
    readings = Readings(world.tsm)
    readings.record(OFFICER, "1", "audit", QUERY, ["s"])
    refused(ErrorCode.CONFLICT, readings, "1", "audit", QUERY, ["s"])
