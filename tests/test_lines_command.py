"""`tsm lines import`, against a server over TLS, with the operator's certificate."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api import cli, lines_client
from api.lines_client import PART, LinesClient, json_rows, read_rows
from api.rest.feed import LONGEST_LINE
from tests.api.admin_world import ICCIDS, OPERATOR, OTHER_ICCID, World
from tests.api.https import serving, started
from tests.line_samples import NUMBER, OTHER_NUMBER, OTHER_PHONE, PHONE
from tsm.errors import ErrorCode, TsmError

Line = dict[str, Any]
BOUND = {"id": "a", "kind": "OBSERVED", "occurred_at": "2026-11-20T09:00:00Z", "msisdn": NUMBER, "imei": PHONE}
OTHER = BOUND | {"id": "b", "msisdn": OTHER_NUMBER, "imei": OTHER_PHONE}


@dataclass
class Operator:
    """At a terminal, with a certificate."""

    world: World
    folder: Path
    url: str
    capsys: pytest.CaptureFixture[str]
    ca: Path | None = None

    def __post_init__(self) -> None:
        self.ca = self.world.parts.settings.tls.party_ca
        self.certificate = self.folder / OPERATOR / "cert.pem"
        shown = x509.load_der_x509_certificate(self.world.certificates[OPERATOR])
        self.certificate.write_bytes(shown.public_bytes(Encoding.PEM))

    def write(self, name: str, *lines: Line | bytes) -> Path:
        file = self.folder / name
        told = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        file.write_bytes(b"\n".join(told))
        return file

    def write_csv(self, *lines: Line) -> Path:
        text = io.StringIO()
        heading = list(dict.fromkeys(name for line in lines for name in line))
        writer = csv.DictWriter(text, heading)
        writer.writeheader()
        writer.writerows(lines)
        return self.write("signals.csv", text.getvalue().encode())

    def run(self, file: Path, *words: str) -> tuple[int, str, str]:
        """Exit code, what it printed, and what it complained of."""
        shown = [*(["--ca", self.ca] if self.ca else []), "--certificate", self.certificate]
        key = self.folder / OPERATOR / "key.pem"
        command = ["lines", "import", "--server", self.url, *shown, "--key", key, *words, file]
        given = cli.parser().parse_args([str(word) for word in command])
        code = given.run(given)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def report(self, file: Path) -> Line:
        code, out, _ = self.run(file, "--json")
        report = json.loads(out)
        assert code == bool(report["refused"])
        return dict(report)

    def known(self, number: str = NUMBER) -> list[str]:
        return [one.signal.id for one in self.world.parts.lines.history(msisdn=number).signals]


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.setattr(lines_client, "PAUSE", 0.0)
    with closing(World(tmp_path)) as world, serving(started(world.app), world.parts.settings.tls) as url:
        yield Operator(world, tmp_path, url, capsys)


def test_a_file_of_json_lines_is_recorded_and_counted(operator: Operator) -> None:
    renewal = {"OldSecureElement": {"ICCID": ICCIDS[0]}, "NewSecureElement": {"ICCID": ICCIDS[1]}}
    notification = {"id": "c", "occurred_at": "2026-11-20T10:00:00Z", "HandleSERenewalNotification": renewal}
    file = operator.write("signals.jsonl", BOUND, b"", OTHER, notification)
    assert operator.run(file) == (0, "3 recorded, 0 known before, 0 refused\n", "")
    assert (operator.known(), operator.known(OTHER_NUMBER)) == (["a"], ["b"])


def test_a_csv_file_says_the_same_and_an_empty_cell_nothing(operator: Operator) -> None:
    announced = {"id": "c", "kind": "MODEL_CHANGE_ANNOUNCED", "until": "2026-11-22T00:00:00+09:00", "iccid": ICCIDS[0]}
    file = operator.write_csv(BOUND, OTHER, {**announced, "occurred_at": "2026-11-20T09:00:00+09:00"})
    assert operator.report(file) == {"file": str(file), "recorded": 3, "repeated": 0, "refused": []}
    file = operator.write("again.jsonl", BOUND)
    assert operator.report(file)["repeated"] == 1


@pytest.mark.parametrize("blank", [b",,,,", b",", b"\r"])
def test_a_row_of_empty_cells_is_a_blank_line(blank: bytes) -> None:
    text = b"id,kind,occurred_at,msisdn,imei\n%s\na,LOST,2026-11-20T09:00:00Z,%s,\n%s\n" % (
        blank, NUMBER.encode(), blank,
    )  # fmt: skip
    [row] = read_rows(Path("signals.csv"), io.BytesIO(text))
    assert (row.line, json.loads(row.text)["id"]) == (3, "a")


def test_csv_is_known_by_the_ending_of_its_name_however_that_is_written() -> None:
    text = b"id,kind,occurred_at,iccid\na,LOST,2026-11-20T09:00:00Z,%s\n" % ICCIDS[0].encode()
    [row] = read_rows(Path("SIGNALS.CSV"), io.BytesIO(text))
    assert json.loads(row.text)["kind"] == "LOST"


def test_the_same_file_again_records_nothing(operator: Operator) -> None:
    file = operator.write("signals.jsonl", BOUND, OTHER)
    operator.run(file)
    before = operator.world.position
    assert operator.run(file) == (0, "0 recorded, 2 known before, 0 refused\n", "")
    assert operator.world.position == before


def test_lines_that_are_refused_are_listed_by_their_place_in_the_file_and_the_others_recorded(
    operator: Operator,
) -> None:
    foreign = BOUND | {"id": "x", "iccid": OTHER_ICCID}
    file = operator.write("signals.jsonl", b"", foreign, BOUND, b"{", b"x" * (LONGEST_LINE + 1), OTHER | {"imei": "1"})
    code, out, err = operator.run(file)
    assert (code, out) == (1, "1 recorded, 0 known before, 4 refused\n")
    assert [line.partition(" ")[0] for line in err.splitlines()] == [f"{file}:{line}:" for line in (2, 4, 5, 6)]
    assert "FORBIDDEN (iccid)" in err and "MESSAGE_TOO_LARGE" in err and "INVALID_INPUT (imei)" in err
    refused = operator.report(file)["refused"]
    assert [(one["line"], one["id"], one["code"]) for one in refused] == [
        (2, "x", "FORBIDDEN"),
        (4, "", "INVALID_INPUT"),
        (5, "", "MESSAGE_TOO_LARGE"),
        (6, "b", "INVALID_INPUT"),
    ]


def test_a_csv_row_with_too_many_cells_is_refused_by_its_line(operator: Operator) -> None:
    text = b'id,kind,occurred_at,msisdn\r\na,OBSERVED,2026-11-20T09:00:00Z,+447700900001,"two\r\nlines"\r\n'
    good = b"b,OBSERVED,2026-11-20T09:00:00Z,+447700900001\r\n"
    report = operator.report(operator.write("signals.csv", text + good))
    assert [(one["line"], one["id"]) for one in report["refused"]] == [(3, "a")]
    assert report["recorded"] == 1


@pytest.mark.parametrize(
    "heading",
    [b"", b"id,kind", b"id,kind,occurred_at,source", b"id,kind,occurred_at,id", b"id,kind,occurred_at,colour"],
)
def test_a_heading_that_is_none_is_refused_before_anything_is_sent(operator: Operator, heading: bytes) -> None:
    file = operator.write("signals.csv", heading, b"a,OBSERVED,2026-11-20T09:00:00Z,x")
    with pytest.raises(TsmError) as refused:
        operator.run(file)
    assert refused.value.code is ErrorCode.INVALID_INPUT


def test_a_file_of_many_parts_is_sent_part_by_part(operator: Operator) -> None:
    many = [BOUND | {"id": f"s-{n}"} for n in range(PART + 2)]
    assert operator.report(operator.write("signals.jsonl", *many))["recorded"] == PART + 2


def test_whoever_is_no_operator_of_this_server_is_told_so(operator: Operator) -> None:
    file = operator.write("signals.jsonl", BOUND)
    operator.world.person("administrator", "*", "root").done(
        "operatorEnrol", operator=OPERATOR, name=OPERATOR, certificateFingerprint="ab" * 32
    )
    with pytest.raises(TsmError) as refused:
        operator.run(file)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED


def test_a_file_that_is_not_there_is_refused(operator: Operator) -> None:
    with pytest.raises(TsmError) as refused:
        operator.run(operator.folder / "nowhere.csv")
    assert refused.value.code is ErrorCode.INVALID_INPUT


def test_a_server_whose_certificate_does_not_verify_is_left_at_once(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_client, "PAUSE", -1.0)  # to wait for a second attempt would be a ValueError
    operator.ca = None
    with pytest.raises(TsmError) as refused:
        operator.run(operator.write("signals.jsonl", BOUND))
    assert refused.value.code is ErrorCode.CERTIFICATE_INVALID and "--ca" in refused.value.detail
    assert operator.known() == []


@pytest.mark.parametrize("server", ["https://[::1", "https://server:https", "ftp://server", "server:8443", "https://"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(operator: Operator, server: str) -> None:
    operator.url = server
    with pytest.raises(TsmError) as refused:
        operator.run(operator.write("signals.jsonl", BOUND))
    assert (refused.value.code, refused.value.field) == (ErrorCode.INVALID_INPUT, ("server",))


# A server in trouble


def refusal(line: int, code: str) -> Line:
    return {"line": line, "id": "", "error": {"code": code, "message": "", "field": []}}


def taken(line: int) -> Line:
    return {"line": line, "id": "", "position": line, "repeated": False}


ENDED = {"error": {"code": "TIMEOUT", "message": "", "field": []}, "requestId": "r"}


def send(lines: int, *answers: Sequence[Line] | int | bytes) -> tuple[lines_client.Summary, list[int]]:
    """To a server that answers so; how many lines it was sent each time. A number is a status without an answer."""
    sent, left = list[int](), list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(len(request.content.splitlines()))
        said = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(said, int):
            return httpx.Response(said, json={"code": {503: "STORE_BUSY", 403: "FORBIDDEN"}[said]})
        if isinstance(said, bytes):
            return httpx.Response(200, content=said)
        return httpx.Response(200, content=b"".join(json.dumps(line).encode() + b"\n" for line in said))

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="https://server") as http:
        rows = json_rows(io.BytesIO(b"{}\n" * lines))
        return LinesClient(http, sleep=lambda _: None).send(rows, lambda _: None), sent


def test_what_could_not_be_taken_is_sent_again_and_nothing_else() -> None:
    first = [taken(1), refusal(2, "STORE_BUSY"), refusal(3, "INVALID_INPUT"), refusal(4, "CONFLICT")]
    summary, sent = send(4, 503, first, [taken(1), taken(2)])
    assert sent == [4, 4, 2]
    assert (summary.recorded, [one.line for one in summary.refused]) == (3, [3])


def test_a_feed_that_ends_early_goes_on_behind_its_last_answer() -> None:
    summary, sent = send(3, [taken(1)], [taken(1), taken(2)])
    assert (sent, summary.recorded) == ([3, 2], 3)


@pytest.mark.parametrize(
    "answer",
    [503, [taken(1), refusal(2, "STORE_BUSY")], [{**ENDED, "error": ENDED["error"] | {"code": "STORE_BUSY"}}]],
    ids=["all", "a line", "the rest"],
)
def test_a_server_that_takes_nothing_is_left_alone_in_the_end_with_what_it_said_last(answer: Any) -> None:
    with pytest.raises(TsmError) as refused:
        send(2, answer, *([answer] if answer == 503 else [[refusal(1, "STORE_BUSY")]]))
    assert refused.value.code is ErrorCode.STORE_BUSY and "import it again later" in refused.value.detail


def test_a_server_that_cannot_be_reached_is_said_to_be_so() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with (
        httpx.Client(transport=httpx.MockTransport(answer), base_url="https://server") as http,
        pytest.raises(TsmError) as refused,
    ):
        LinesClient(http, sleep=lambda _: None).send(json_rows(io.BytesIO(b"{}")), lambda _: None)
    assert refused.value.code is ErrorCode.UPSTREAM_UNAVAILABLE and "ConnectError" in refused.value.detail


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[]", b"null", b'"x"', b"1", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"line":1}',
        b'{"line":1,"id":"a"}', b'{"line":1,"id":"a","error":{}}', b'{"error":{}}', b"",
        b'{"line":"1","id":"a","position":4,"repeated":false}',
    ],
)  # fmt: skip
def test_an_answer_that_is_none_of_a_feed_is_that_of_no_server_of_ours(body: bytes) -> None:
    with pytest.raises(TsmError) as refused:
        send(2, body)
    assert refused.value.code is ErrorCode.UPSTREAM_UNAVAILABLE


def test_more_answers_than_lines_are_none_of_a_feed() -> None:
    with pytest.raises(TsmError) as refused:
        send(1, [taken(1), taken(2)])
    assert refused.value.code is ErrorCode.UPSTREAM_UNAVAILABLE


def test_what_no_repetition_will_change_is_raised_at_once() -> None:
    with pytest.raises(TsmError) as refused:
        send(2, 403)
    assert refused.value.code is ErrorCode.FORBIDDEN
    with pytest.raises(TsmError) as refused:
        send(2, [taken(1), {**ENDED, "error": ENDED["error"] | {"code": "INTERNAL"}}])
    assert refused.value.code is ErrorCode.INTERNAL


@pytest.mark.parametrize("text", [b'a,"OBSERVED,x\n' + b"b,OBSERVED,x\n" * 20_000, b"a\rb,OBSERVED,x\n", b'a,"b"c,x\n'])
def test_what_is_no_csv_is_refused_and_says_where(text: bytes) -> None:
    with pytest.raises(TsmError) as refused:
        list(read_rows(Path("signals.csv"), io.BytesIO(b"id,kind,occurred_at\n" + text)))
    assert refused.value.code is ErrorCode.INVALID_INPUT
    assert "before line" in refused.value.detail


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", b"id,kind,occurred_at\r\na,b,c\r\n"), ("a.jsonl", b'{"id": "a"}\r\n')]
)
def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_part_of_a_file(name: str, text: bytes) -> None:
    [row] = read_rows(Path(name), io.BytesIO(b"\xef\xbb\xbf" + text))
    assert json.loads(row.text)["id"] == "a"


def test_json_lines_are_what_has_no_other_name(tmp_path: Path) -> None:
    assert [row.text for row in read_rows(Path("signals.txt"), io.BytesIO(b"1\n\n2"))] == [b"1", b"2"]
