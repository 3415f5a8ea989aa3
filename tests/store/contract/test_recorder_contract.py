"""What every recorder does, whatever engine keeps the log."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from uuid import uuid4

import pytest
from engines import NOON, TOPIC, Engine, Entry, entries, stored, whole_log
from eventsourcing.persistence import IntegrityError

from tsm.errors import ErrorCode, TsmError
from tsm.store.recorder import Append, Command, Heading, IndexRow, Recorded, Recorder

FAR = datetime(2999, 1, 1, tzinfo=UTC)
ORDER = Command("client-1:key-1", "digest-1", FAR)


def refused_with(code: ErrorCode, outcome: object) -> bool:
    return isinstance(outcome, TsmError) and outcome.code is code


# --- streams and positions ---


def test_positions_begin_at_one_and_have_no_gap(recorder: Recorder) -> None:
    assert recorder.max_notification_id() is None
    assert recorder.insert_events([stored("a", 1), stored("a", 2), stored("b", 1)]) == [1, 2, 3]
    assert recorder.insert_events([stored("b", 2)]) == [4]
    assert recorder.max_notification_id() == 4
    assert entries(whole_log(recorder)) == [
        Entry(1, "a", 1, b"{}"), Entry(2, "a", 2, b"{}"), Entry(3, "b", 1, b"{}"), Entry(4, "b", 2, b"{}"),
    ]  # fmt: skip


def test_a_version_that_is_taken_is_refused(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", 1)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored("a", 1, b"another")])
    assert entries(whole_log(recorder)) == [Entry(1, "a", 1, b"{}")]


@pytest.mark.parametrize(
    "versions", [[2], [0], [1, 3], [1, 1], [2, 1], [1, 2, 2]], ids=lambda versions: f"versions {versions}"
)
def test_a_stream_has_no_gap_and_begins_at_one(versions: Sequence[int], recorder: Recorder) -> None:
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored("a", version) for version in versions])
    assert whole_log(recorder) == []


def test_a_refusal_leaves_no_gap_and_nothing_half_done(recorder: Recorder, engine: Engine) -> None:
    recorder.insert_events([stored("a", 1)], put_payloads={("a", "kept"): b"1"}, put_index=[IndexRow("v", "a", "x")])
    before = engine.everything()
    with pytest.raises(IntegrityError):
        recorder.insert_events(
            [stored("b", 1), stored("a", 1)],
            put_payloads={("b", "answer"): b"new"},
            drop_payloads=["a"],
            put_index=[IndexRow("w", "b", "y")],
            drop_index=["x"],
            command=ORDER,
        )
    assert engine.everything() == before
    assert recorder.insert_events([stored("a", 2)]) == [2]


def test_streams_that_should_be_unchanged_are(recorder: Recorder, engine: Engine) -> None:
    recorder.insert_events([stored("a", 1)])
    before = engine.everything()
    for unchanged in ({"a": 0}, {"a": 2}, {"a": 1, "c": 1}):
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored("b", 1)], unchanged=unchanged, put_payloads={("b", "answer"): b"new"})
        with pytest.raises(IntegrityError):
            recorder.insert_events([], unchanged=unchanged)
    assert engine.everything() == before
    assert recorder.insert_events([stored("b", 1)], unchanged={"a": 1, "c": 0}) == [2]
    assert recorder.insert_events([], unchanged={"b": 1}) == []


def test_a_stream_may_have_news_and_be_said_to_have_been_as_it_was(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", 1)])
    for said in (0, 2, 3):
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored("a", 2), stored("a", 3)], unchanged={"a": said})
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored("a", 3)], unchanged={"a": 1})
    assert recorder.insert_events([stored("a", 2), stored("a", 3)], unchanged={"a": 1}) == [2, 3]


def test_bytes_and_names_come_back_as_they_were(recorder: Recorder) -> None:
    state, stream, topic = bytes(range(256)) * 300, "カード-①-🂡-' \"%s\\", "見本.出来事"
    recorder.insert_events([stored(stream, 1, state, topic), stored(stream, 2, b"")])
    [first, second] = recorder.select_events(stream)
    assert (first.state, first.originator_id, first.topic, second.state) == (state, stream, topic, b"")
    assert recorder.select_notifications(1, 10, topics=[topic]) == [first]


def test_a_stream_may_be_named_by_a_uuid(recorder: Recorder) -> None:
    name = uuid4()
    recorder.insert_events([stored(name, 1)])  # type: ignore[arg-type]
    assert [e.originator_id for e in recorder.select_events(name)] == [str(name)]


def test_names_that_differ_in_case_or_accent_differ(recorder: Recorder) -> None:
    names = ["a", "A", "á", "a ", "ａ"]
    recorder.insert_events([stored(name, 1) for name in names])
    assert [len(recorder.select_events(name)) for name in names] == [1] * 5


# --- batches ---


def test_a_batch_refuses_each_alone(recorder: Recorder) -> None:
    recorder.insert_events([stored("old", 1)])
    outcomes = recorder.append(
        [
            Append([stored("a", 1), stored("b", 1)]),
            Append([stored("old", 1)], put_payloads={("old", "answer"): b"not this"}),
            Append([stored("c", 2)]),
            Append([stored("d", 1)], unchanged={"e": 1}),
            Append([], unchanged={"f": 0}),
            Append([stored("g", 1)], put_payloads={("g", "answer"): b"this"}),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [
        Recorded, IntegrityError, IntegrityError, IntegrityError, Recorded, Recorded,
    ]  # fmt: skip
    assert [outcomes[n] for n in (0, 4, 5)] == [
        Recorded(range(2, 4), 3), Recorded(range(4, 4), 3), Recorded(range(4, 5), 4),
    ]  # fmt: skip
    assert [e[1] for e in entries(whole_log(recorder))] == ["old", "a", "b", "g"]
    assert (recorder.payload("old", "answer"), recorder.payload("g", "answer")) == (None, b"this")


def test_an_empty_batch_and_an_empty_append_are_recorded_as_nothing(recorder: Recorder) -> None:
    assert recorder.append([]) == []
    assert recorder.append([Append()]) == [Recorded(range(1, 1), 0)]
    assert recorder.insert_events([]) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Append([stored("a", 1)]), Append([stored("a", 2)])),
        (Append([stored("a", 1)]), Append([stored("b", 1)], unchanged={"a": 0})),
        (Append([stored("b", 1)], unchanged={"a": 0}), Append([stored("a", 1)])),
        (Append(put_payloads={("a", "x"): b""}), Append(drop_payloads=["a"])),
        (Append(command=ORDER), Append(command=ORDER)),
        (Append(put_index=[IndexRow("v", "a", "x")]), Append(drop_index=["x"])),
        (Append(put_index=[IndexRow("v", "a", "x")]), Append(put_index=[IndexRow("v", "a", "y")])),
    ],
    ids=["events", "unchanged after", "unchanged before", "payloads", "commands", "subjects", "index rows"],
)
def test_appends_that_touch_the_same_do_not_go_into_one_batch(first: Append, second: Append, engine: Engine) -> None:
    recorder = engine.open()
    before = engine.everything()
    with pytest.raises(TsmError) as refusal:
        recorder.append([Append([stored("z", 1)]), first, second])
    assert refusal.value.code is ErrorCode.INTERNAL
    assert engine.everything() == before


def test_several_may_rest_on_one_stream_that_nobody_changes(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", 1)])
    batch = [Append([stored(name, 1)], unchanged={"a": 1}) for name in "bcd"]
    assert [o.positions for o in recorder.append(batch)] == [range(2, 3), range(3, 4), range(4, 5)]  # type: ignore[union-attr]


def test_a_large_batch_is_recorded_in_order(recorder: Recorder) -> None:
    batch = [Append([stored(f"s-{n}", v) for v in range(1, 1 + n % 4)]) for n in range(700)]
    expected = [(f"s-{n}", v) for n in range(700) for v in range(1, 1 + n % 4)]
    outcomes = recorder.append(batch)
    assert [p for o in outcomes for p in o.positions] == list(range(1, 1 + len(expected)))  # type: ignore[union-attr]
    assert [(e.stream, e.version) for e in entries(whole_log(recorder))] == expected


def test_those_who_wait_hear_of_a_commit(recorder: Recorder) -> None:
    with recorder.committed:
        told = []
        recorder.committed.notify_all = lambda: told.append(True)  # type: ignore[method-assign]
        recorder.insert_events([stored("a", 1)])
    assert told


# --- reading ---


def test_a_stream_is_read_in_parts_and_backwards(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", n) for n in range(1, 6)] + [stored("b", 1)])

    def versions(**how: int | bool | None) -> list[int]:
        return [e.originator_version for e in recorder.select_events("a", **how)]  # type: ignore[arg-type]

    assert versions() == [1, 2, 3, 4, 5]
    assert versions(gt=1, lte=4) == [2, 3, 4]
    assert versions(gt=0) == [1, 2, 3, 4, 5]
    assert versions(gt=5) == versions(lte=0) == versions(gt=3, lte=3) == versions(limit=0) == []
    assert versions(lte=9, limit=2) == [1, 2]
    assert versions(desc=True) == [5, 4, 3, 2, 1]
    assert versions(desc=True, limit=2) == [5, 4]
    assert versions(desc=True, gt=1, lte=4, limit=1) == [4]
    assert [e.id for e in recorder.select_events("a", gt=4)] == [5]
    assert recorder.select_events("nobody") == []


def test_the_log_is_read_in_parts_and_by_topics(recorder: Recorder) -> None:
    topics = ["t1", "t2", "t3", "t1", "t2"]
    recorder.insert_events([stored("a", n, topic=topic) for n, topic in enumerate(topics, 1)])

    def positions(*which: object, **how: object) -> list[int]:
        return [e.id for e in recorder.select_notifications(*which, **how)]  # type: ignore[arg-type]

    assert positions(None, 10) == positions(0, 10) == positions(1, 10) == [1, 2, 3, 4, 5]
    assert positions(2, 2) == [2, 3]
    assert positions(2, 2, inclusive_of_start=False) == [3, 4]
    assert positions(0, 2, inclusive_of_start=False) == [1, 2]
    assert positions(None, 10, 3) == [1, 2, 3]
    assert positions(2, 10, 3) == [2, 3]
    assert positions(4, 10, 3) == positions(6, 10) == positions(None, 0) == positions(None, 10, 0) == []
    assert positions(None, 10, topics=["t1"]) == [1, 4]
    assert positions(2, 2, topics=["t1", "t3"]) == [3, 4]
    assert positions(None, 10, 4, ["t2", "t1"], inclusive_of_start=False) == [1, 2, 4]
    assert positions(None, 10, topics=["nothing"]) == []


def test_the_headings_of_a_stretch_are_those_of_all_its_events(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", 1, b"x" * 5000, "t1"), stored("b", 1, topic="t2"), stored("a", 2, topic="t3")])
    second, third = Heading(2, "b", 1, "t2"), Heading(3, "a", 2, "t3")
    assert recorder.select_headings(0, 3) == [Heading(1, "a", 1, "t1"), second, third]
    assert recorder.select_headings(1, 9) == [second, third]
    assert recorder.select_headings(1, 2) == [second]
    assert recorder.select_headings(2, 2) == recorder.select_headings(3, 9) == recorder.select_headings(5, 2) == []


def test_what_one_recorder_has_committed_another_reads_at_once(shared: Engine) -> None:
    first, second = shared.open(), shared.open()
    for version in range(1, 20):
        writer, reader = (first, second) if version % 2 else (second, first)
        writer.insert_events([stored("a", version)])
        assert reader.max_notification_id() == version
        assert len(reader.select_events("a")) == version


def test_a_conflict_between_two_recorders_is_seen(shared: Engine) -> None:
    first, second = shared.open(), shared.open()
    first.insert_events([stored("a", 1)])
    with pytest.raises(IntegrityError):
        second.insert_events([stored("a", 1)])
    assert second.insert_events([stored("a", 2)]) == [2]


def test_the_log_reopens_where_it_was(shared: Engine) -> None:
    first = shared.open()
    first.insert_events([stored("a", 1)], put_payloads={("a", "answer"): b"again"}, command=ORDER)
    before = whole_log(first)
    first.close()
    second = shared.open()
    assert whole_log(second) == before
    assert (second.payload("a", "answer"), second.answered(ORDER)) == (b"again", Recorded(range(1, 2), 1, True))
    assert second.last_recorded_at == before[0].recorded_at
    assert second.insert_events([stored("a", 2)]) == [2]


# --- time ---


def test_recorded_at_is_the_writers_clock_in_utc(engine: Engine) -> None:
    engine.clock.now = (NOON + timedelta(microseconds=5)).astimezone(timezone(timedelta(hours=9)))
    recorder = engine.open()
    assert recorder.last_recorded_at is None
    recorder.insert_events([stored()])
    [recorded] = whole_log(recorder)
    assert recorded.recorded_at == NOON + timedelta(microseconds=5) == recorder.last_recorded_at
    assert recorded.recorded_at.utcoffset() == timedelta(0)


def test_a_clock_that_jumps_back_is_held_counted_and_reported(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    recorder = engine.open()
    jumps = [0, -3600, -1800, 1, 1, -1]
    for version, seconds in enumerate(jumps, 1):
        engine.clock.now = NOON + timedelta(seconds=seconds)
        recorder.insert_events([stored(version=version)])
    recorded = [(e.recorded_at - NOON).total_seconds() for e in whole_log(recorder)]
    assert recorded == [0, 0, 0, 1, 1, 1]
    assert recorder.held == 3
    assert caplog.text.count("time is held") == 2  # two jumps, two reports


def test_a_clock_far_in_the_future_holds_all_that_comes_after(engine: Engine) -> None:
    recorder = engine.open()
    for version, now in enumerate((FAR, NOON), 1):
        engine.clock.now = now
        recorder.insert_events([stored(version=version)])
    assert [e.recorded_at for e in whole_log(recorder)] == [FAR, FAR]


def test_a_clock_behind_that_of_another_process_is_held_too(shared: Engine) -> None:
    ahead, behind = shared.open(), shared.open()
    shared.clock.now = NOON
    ahead.insert_events([stored(version=1)])
    shared.clock.now = NOON - timedelta(days=1)
    behind.insert_events([stored(version=2)])
    assert [e.recorded_at for e in whole_log(behind)] == [NOON, NOON]
    assert (ahead.held, behind.held) == (0, 1)


def test_a_past_time_leads_to_the_position_that_the_log_had_then(engine: Engine) -> None:
    recorder = engine.open()
    assert recorder.position_at(NOON) == 0
    for version, minutes in enumerate([0, 1, 1, 1, 5, 9, 9], 1):
        engine.clock.now = NOON + timedelta(minutes=minutes)
        recorder.insert_events([stored(version=version)])
    asked = {-1: 0, 0: 1, 0.9: 1, 1: 4, 4.9: 4, 5: 5, 8: 5, 9: 7, 10**6: 7}
    assert {m: recorder.position_at(NOON + timedelta(minutes=m)) for m in asked} == asked
    tokyo = (NOON + timedelta(minutes=1)).astimezone(timezone(timedelta(hours=9)))
    assert recorder.position_at(tokyo) == 4


# --- commands ---


def test_a_command_that_is_known_is_answered_as_at_first(recorder: Recorder, engine: Engine) -> None:
    recorder.insert_events([stored("a", 1)])
    assert recorder.answered(ORDER) is None
    append = Append([stored("b", 1), stored("c", 1)], put_payloads={("b", "x"): b"1"}, command=ORDER)
    assert recorder.append([append]) == [Recorded(range(2, 4), 3)]
    recorder.insert_events([stored("a", 2)])
    before = engine.everything()
    again = Recorded(range(2, 4), 3, repeated=True)
    assert recorder.append([append]) == [again]
    other_events = Append([stored("a", 3)], put_payloads={("b", "x"): b"2"}, drop_payloads=["b"], command=ORDER)
    assert recorder.append([other_events]) == [again]
    assert recorder.append([Append([stored("a", 9), stored("a", 11)], command=ORDER)]) == [again]
    assert recorder.answered(ORDER) == again
    assert engine.everything() == before


def test_a_command_with_another_digest_is_refused(recorder: Recorder, engine: Engine) -> None:
    recorder.insert_events([stored("a", 1)], command=ORDER)
    before = engine.everything()
    other = ORDER._replace(digest="digest-2")
    [outcome] = recorder.append([Append([stored("a", 2)], command=other)])
    assert refused_with(ErrorCode.COMMAND_REUSED, outcome)
    with pytest.raises(TsmError) as refusal:
        recorder.answered(other)
    assert refusal.value.code is ErrorCode.COMMAND_REUSED
    assert engine.everything() == before


def test_known_and_reused_commands_do_no_harm_to_others_of_their_batch(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", 1)], command=ORDER)
    second = Command("client-1:key-2", "digest-1", FAR)
    recorder.insert_events([stored("b", 1)], command=second)
    outcomes = recorder.append(
        [
            Append([stored("c", 1)]),
            Append([stored("d", 1)], command=ORDER),
            Append([stored("e", 1)], command=second._replace(digest="other")),
            Append([stored("f", 1)], command=Command("client-2:key-1", "digest-1", FAR)),
        ]
    )
    assert outcomes[0] == Recorded(range(3, 4), 3)
    assert outcomes[1] == Recorded(range(1, 2), 1, repeated=True)
    assert refused_with(ErrorCode.COMMAND_REUSED, outcomes[2])
    assert outcomes[3] == Recorded(range(4, 5), 4)


def test_a_command_that_was_refused_is_not_known(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", 1)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored("a", 1)], command=ORDER)
    assert recorder.answered(ORDER) is None
    assert recorder.insert_events([stored("a", 2)], command=ORDER) == [2]


def test_a_command_without_events_is_remembered_too(recorder: Recorder) -> None:
    recorder.insert_events([stored("a", 1)])
    assert recorder.append([Append(command=ORDER)]) == [Recorded(range(2, 2), 1)]
    recorder.insert_events([stored("a", 2)])
    assert recorder.append([Append(command=ORDER)]) == [Recorded(range(2, 2), 1, repeated=True)]


def test_commands_of_one_batch_remember_their_own_positions(recorder: Recorder) -> None:
    commands = [Command(f"key-{n}", "digest", FAR) for n in range(4)]
    batch = [Append([stored(f"s-{n}", v) for v in range(1, n + 1)], command=commands[n]) for n in range(4)]
    first = recorder.append(batch)
    assert first == [
        Recorded(range(1, 1), 0), Recorded(range(1, 2), 1), Recorded(range(2, 4), 3), Recorded(range(4, 7), 6),
    ]  # fmt: skip
    assert recorder.append(batch) == [o._replace(repeated=True) for o in first if isinstance(o, Recorded)]


def test_a_command_without_events_remembers_its_turn_within_its_batch(recorder: Recorder) -> None:
    batch = [Append([stored("a", 1)]), Append(command=ORDER), Append([stored("b", 1)])]
    assert recorder.append(batch)[1] == Recorded(range(2, 2), 1)
    assert recorder.answered(ORDER) == Recorded(range(2, 2), 1, repeated=True)


def test_commands_are_forgotten_when_their_time_is_over(recorder: Recorder) -> None:
    for hours in (1, 2, 3):
        recorder.insert_events([], command=Command(f"key-{hours}", "d", NOON + timedelta(hours=hours)))
    assert recorder.prune(NOON) == 0
    assert recorder.prune(NOON + timedelta(hours=2)) == 1
    assert recorder.prune(NOON + timedelta(hours=2, microseconds=1)) == 1
    assert [recorder.answered(Command(f"key-{n}", "d", FAR)) is None for n in (1, 2, 3)] == [True, True, False]
    assert recorder.append([Append(command=Command("key-1", "another", FAR))]) == [Recorded(range(1, 1), 0)]


# --- payloads and index rows ---


def test_payloads_come_change_and_go_with_the_events(recorder: Recorder) -> None:
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "answer"): b"one", ("s", "commands"): b"\x00"})
    assert (recorder.payload("s", "answer"), recorder.payload("s", "commands")) == (b"one", b"\x00")
    recorder.insert_events([stored("s", 2)], put_payloads={("s", "answer"): b"two"})
    assert (recorder.payload("s", "answer"), recorder.payload("s", "commands")) == (b"two", b"\x00")
    recorder.insert_events([stored("s", 3)], drop_payloads=["s"])
    assert (recorder.payload("s", "answer"), recorder.payload("s", "commands")) == (None, None)
    assert recorder.payload("elsewhere", "answer") is None


def test_one_append_may_drop_all_payloads_of_a_stream_and_put_a_last_one(recorder: Recorder) -> None:
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "commands"): b"1", ("s", "answer"): b"1"})
    recorder.insert_events([], drop_payloads=["s"], put_payloads={("s", "answer"): b"last"})
    assert (recorder.payload("s", "commands"), recorder.payload("s", "answer")) == (None, b"last")


def test_a_payload_opens_only_in_its_own_place(sealing: Engine) -> None:
    recorder = sealing.open()
    recorder.insert_events([stored("s", 1)], put_payloads={("s", "a"): b"1", ("s", "b"): b"2"})
    assert (recorder.payload("s", "a"), recorder.payload("s", "b")) == (b"1", b"2")
    sealing.exchange_payloads()
    for name in ("a", "b"):
        with pytest.raises(TsmError) as refusal:
            recorder.payload("s", name)
        assert refusal.value.code is ErrorCode.KEY_REFUSED
    sealing.exchange_payloads()
    assert recorder.payload("s", "a") == b"1"


def test_no_payload_lies_open_in_the_store(sealing: Engine) -> None:
    secret = b"80E2B800-plain-command-data"
    sealing.open().insert_events([stored("s", 1)], put_payloads={("s", "commands"): secret})
    [(stream, name, sealed)] = sealing.rows("payload")
    assert (stream, name) == ("s", "commands")
    assert isinstance(sealed, bytes) and secret not in sealed


def test_index_rows_lead_to_streams_and_go_with_their_subject(recorder: Recorder) -> None:
    rows = [IndexRow("v1", "b", "yuki"), IndexRow("v1", "a", "ken"), IndexRow("v2", "a", "yuki")]
    recorder.insert_events([stored("a", 1)], put_index=rows)
    assert recorder.indexed("v1") == [rows[1], rows[0]]  # in order of their streams
    recorder.insert_events([], put_index=[IndexRow("v1", "a", "yuki")])  # the place is taken over
    assert recorder.indexed("v1") == [IndexRow("v1", "a", "yuki"), rows[0]]
    recorder.insert_events([stored("a", 2)], drop_index=["yuki"], put_index=[IndexRow("v3", "c", "yuki")])
    assert (recorder.indexed("v1"), recorder.indexed("v2")) == ([], [])
    assert recorder.indexed("v3") == [IndexRow("v3", "c", "yuki")]


def test_many_indexes_and_streams_are_read_at_once(recorder: Recorder) -> None:
    rows = [IndexRow("v1", "a", "yuki"), IndexRow("v1", "b", "ken"), IndexRow("v2", "a", "yuki")]
    recorder.insert_events([stored("a", 1), stored("b", 1), stored("a", 2), stored("c", 1)], put_index=rows)
    assert recorder.indexed_many(["v2", "v1", "v2", "unheard-of"]) == rows
    assert recorder.indexed_many([]) == []
    found = recorder.select_streams(["b", "a", "a", "unheard-of"])
    assert [(e.originator_id, e.originator_version, e.id) for e in found] == [("a", 1, 1), ("a", 2, 3), ("b", 1, 2)]
    assert [e.id for e in recorder.select_streams(["a", "c"], lte=1)] == [1, 4]
    assert list(recorder.select_streams([])) == []


def test_an_index_row_that_is_named_twice_is_one(recorder: Recorder) -> None:
    row = IndexRow("v", "a", "x")
    recorder.insert_events([stored("a", 1)], put_index=[row, row._replace(subject="y"), row])
    assert recorder.indexed("v") == [row]


def test_after_an_erasure_of_remains_everything_else_is_as_before(engine: Engine) -> None:
    recorder = engine.open()
    rows = [IndexRow(f"v{n}", "a", f"subject-{n}") for n in range(5)]
    recorder.insert_events([stored("a", 1)], put_index=rows, command=ORDER, put_payloads={("a", "x"): b"1"})
    recorder.insert_events([stored("a", 2)], drop_index=["subject-3"])
    before = engine.everything()
    recorder.erase_remains()
    assert engine.everything() == before
    assert recorder.insert_events([stored("a", 3)], put_index=[rows[3]]) == [3]
    assert recorder.indexed("v3") == [rows[3]]


def test_a_payload_that_cannot_be_sealed_leaves_nothing_recorded(
    recorder: Recorder, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise TsmError(ErrorCode.STORE_UNAVAILABLE, "the vault is away")

    monkeypatch.setattr(engine.sealer, "seal_payload", refuse)
    with pytest.raises(TsmError):
        recorder.append([Append([stored("a", 1)]), Append([stored("b", 1)], put_payloads={("b", "x"): b"1"})])
    assert recorder.max_notification_id() is None


def test_what_cannot_be_written_at_all_leaves_the_recorder_usable(recorder: Recorder, engine: Engine) -> None:
    before = engine.everything()
    if engine.name != "memory":  # which takes whatever it is given
        with pytest.raises(TsmError) as refusal:
            recorder.insert_events([stored("a", 1), stored("b", 1, SimpleNamespace())])  # type: ignore[arg-type]
        assert refusal.value.code is ErrorCode.STORE_CORRUPT
    assert engine.everything() == before
    assert recorder.insert_events([stored("a", 1, topic=TOPIC)]) == [1]
