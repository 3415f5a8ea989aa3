"""Messages of interfaces 2, 3 and 4: to the letter of the tables, and hard against whatever else arrives."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import ReceptionNumber, SpId
from tsm.mas.messages import (
    MAX_DELEGATION,
    MAX_MESSAGE,
    DelegationRequest,
    DelegationResponse,
    LinkRequest,
    LinkResponse,
    NotificationRequest,
    NotificationResponse,
    Process,
    Return,
)

PROVIDER, RECEPTION = SpId("JPKI0001"), ReceptionNumber("2026112100000001")
HEAD = b'<?xml version="1.0" encoding="UTF-8" ?>\n'

WRITTEN = [
    (
        DelegationRequest(PROVIDER, RECEPTION, "20261121093000", (b"\x80\xe2\x00\x00", b"\x80\xe2\x80\x01")),
        "<request><strSpId>JPKI0001</strSpId><strRcptNum>2026112100000001</strRcptNum>"
        "<strApduGeneDate>20261121093000</strApduGeneDate><apduCmnds>"
        "<apduCmnd><iApduOrder>1</iApduOrder><byApduCmndAry>gOIAAA==</byApduCmndAry></apduCmnd>"
        "<apduCmnd><iApduOrder>2</iApduOrder><byApduCmndAry>gOKAAQ==</byApduCmndAry></apduCmnd>"
        "</apduCmnds></request>",
    ),
    (
        DelegationResponse("00", "", "20261121093001"),
        "<response><strProcStatus>00</strProcStatus><strErrInfo></strErrInfo>"
        "<strApduRcptDate>20261121093001</strApduRcptDate></response>",
    ),
    (
        LinkRequest(Process.START, "00", PROVIDER, RECEPTION, signature="c2ln"),
        "<request><strProcId>001</strProcId><strProcStatus>00</strProcStatus><strSpId>JPKI0001</strSpId>"
        "<strRcptNum>2026112100000001</strRcptNum><byRespSWAry></byRespSWAry><byRespApduDataAry></byRespApduDataAry>"
        "<strConnectCard></strConnectCard><strErrInfo></strErrInfo><strSpSign>c2ln</strSpSign></request>",
    ),
    (
        LinkRequest(Process.RESPONSE, "00", status_word=b"\x90\x00", data=b"\x01"),
        "<request><strProcId>003</strProcId><strProcStatus>00</strProcStatus><strSpId></strSpId>"
        "<strRcptNum></strRcptNum><byRespSWAry>kAA</byRespSWAry><byRespApduDataAry>AQ==</byRespApduDataAry>"
        "<strConnectCard></strConnectCard><strErrInfo></strErrInfo><strSpSign></strSpSign></request>",
    ),
    (
        LinkResponse(Return.COMMAND, b"\x84\xe2\x00\x00"),
        "<response><strProcIdRtn>102</strProcIdRtn><byApduAry>hOIAAA==</byApduAry><strMasSign></strMasSign></response>",
    ),
    (
        LinkResponse(Return.END, mas_sign="c2ln"),
        "<response><strProcIdRtn>104</strProcIdRtn><byApduAry></byApduAry><strMasSign>c2ln</strMasSign></response>",
    ),
    (
        NotificationRequest(RECEPTION, 1, 1, "00", b"\x90\x00", b"\x01"),
        "<request><strRcptNum>2026112100000001</strRcptNum><iApduOrder>1</iApduOrder><iRespApduNum>1</iRespApduNum>"
        "<byRespSWAry>kAA</byRespSWAry><byRespApduDataAry>AQ==</byRespApduDataAry><strProcStatus>00</strProcStatus>"
        "<strErrInfo></strErrInfo></request>",
    ),
    (NotificationResponse(True), "<response><strResult>true</strResult></response>"),
]


@pytest.mark.parametrize(("message", "expected"), WRITTEN)
def test_a_message_is_written_as_its_table_says_and_read_back(message, expected):
    assert message.encode() == HEAD + expected.encode() + b"\n"
    assert type(message).parse(message.encode()) == message


@given(st.lists(st.binary(min_size=1, max_size=260), min_size=1, max_size=20))
def test_any_script_comes_back_in_its_order(commands):
    request = DelegationRequest(PROVIDER, RECEPTION, "20261121093000", tuple(commands))
    assert DelegationRequest.parse(request.encode()) == request


@given(st.binary(max_size=256), st.binary(min_size=2, max_size=2))
def test_any_response_comes_back(data, status_word):
    request = LinkRequest(Process.RESPONSE, "00", status_word=status_word, data=data)
    assert LinkRequest.parse(request.encode()) == request


def test_orders_may_stand_in_any_sequence():
    first = DelegationRequest(PROVIDER, RECEPTION, "20261121093000", (b"\x01" * 4, b"\x02" * 4))
    swapped = first.encode().replace(b">1<", b">x<").replace(b">2<", b">1<").replace(b">x<", b">2<")
    assert DelegationRequest.parse(swapped).commands == (b"\x02" * 4, b"\x01" * 4)


def test_the_sample_of_table_1_14_is_read_too():
    body = "<response><strProcIdRtn>104</strProcIdRtn><byApduAry></byApduAry><byApduAry>c2ln</byApduAry></response>"
    assert LinkResponse.parse(body.encode()) == LinkResponse(Return.END, mas_sign="c2ln")


def test_a_padded_status_word_is_read_too():
    body = LinkRequest(Process.RESPONSE, "00", status_word=b"\x90\x00").encode().replace(b"kAA<", b"kAA=<")
    assert LinkRequest.parse(body).status_word == b"\x90\x00"


def test_unset_elements_may_be_missing():
    body = b"<request><strProcId>004</strProcId><strProcStatus>00</strProcStatus></request>"
    assert LinkRequest.parse(body) == LinkRequest(Process.DISCONNECT_RESULT, "00")


LINK = WRITTEN[3][0].encode()
BOMB = b'<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><request>&b;</request>'
MALFORMED = [
    b"",
    b"\x00",
    b"no xml",
    b"<request>",
    b"<request></response>",
    LINK.replace(b"request>", b"response>"),
    LINK.replace(b"<strErrInfo>", b"<strErrInfo><b/>"),
    LINK.replace(b"<strErrInfo>", b'<strErrInfo a="1">'),
    LINK.replace(b"<request>", b'<request a="1">'),
    LINK.replace(b"<request>", b"<request><unknown/>"),
    LINK.replace(b"<request>", b"<request><strProcId>003</strProcId>"),
    LINK.replace(b"<request>", b"<request>&xxe;"),
    LINK.replace(b"<request>", b"<request><!-- a comment -->"),
    LINK.replace(b"<strErrInfo>", b"<strErrInfo><![CDATA[x]]>"),
    b'<!DOCTYPE request SYSTEM "file:///etc/passwd">' + LINK.removeprefix(HEAD),
    HEAD + b'<!DOCTYPE request [<!ENTITY xxe SYSTEM "file:///etc/passwd">]><request>&xxe;</request>',
    HEAD + b'<!DOCTYPE request [<!ENTITY % p SYSTEM "http://127.0.0.1:9/">%p;]><request/>',
    HEAD + BOMB,
    LINK.decode().encode("utf-16"),
    LINK.decode().replace("UTF-8", "UTF-16").encode("utf-16"),
    b"<request>" + b"<a>" * 500 + b"</a>" * 500 + b"</request>",
]


@pytest.mark.parametrize("body", MALFORMED)
def test_a_malformed_message_is_refused(body):
    with pytest.raises(TsmError) as refused:
        LinkRequest.parse(body)
    assert refused.value.code == ErrorCode.MALFORMED_MESSAGE


def test_the_sample_of_table_1_6_with_its_spaces_in_end_tags_is_not_xml():
    body = WRITTEN[0][0].encode().replace(b"</strApduGeneDate>", b"</ strApduGeneDate >")
    with pytest.raises(TsmError) as refused:
        DelegationRequest.parse(body)
    assert refused.value.code == ErrorCode.MALFORMED_MESSAGE


@pytest.mark.parametrize(
    ("parse", "limit"), [(LinkRequest.parse, MAX_MESSAGE), (DelegationRequest.parse, MAX_DELEGATION)]
)
def test_an_oversized_message_is_refused_before_it_is_parsed(parse, limit):
    with pytest.raises(TsmError) as refused:
        parse(b"<request>" + b"<a/>" * limit + b"</request>")
    assert refused.value.code == ErrorCode.MESSAGE_TOO_LARGE


def test_the_largest_flat_document_costs_no_time_worth_naming():
    body = b"<request><apduCmnds>" + b"<a/>" * ((MAX_DELEGATION - 50) // 4) + b"</apduCmnds></request>"
    started = time.process_time()
    with pytest.raises(TsmError):
        DelegationRequest.parse(body)
    assert time.process_time() - started < 1


INVALID = [
    LINK.replace(b"003", b"005"),
    LINK.replace(b"<strProcStatus>00", b"<strProcStatus>0"),
    LINK.replace(b"<strProcStatus>00", b"<strProcStatus>000"),
    LINK.replace(b"kAA", b"kA"),
    LINK.replace(b"kAA", b"kAAA"),
    LINK.replace(b"kAA", b"k\xc3\xa4A"),
    LINK.replace(b"AQ==", b"AQ="),
    LINK.replace(b"AQ==", b" AQ=="),
    LINK.replace(b"<strErrInfo>", b"<strErrInfo>" + b"x" * 21),
    LINK.replace(b"<strConnectCard>", b"<strConnectCard>02"),
    LINK.replace(b"<strSpId>", b"<strSpId>jpki0001"),
    LINK.replace(b"<strRcptNum>", b"<strRcptNum>2026139900000001"),
    LINK.replace(b"<strSpSign>", b"<strSpSign>c2ln"),
    WRITTEN[2][0].encode().replace(b"c2ln", b""),
    WRITTEN[2][0].encode().replace(b"JPKI0001", b""),
    WRITTEN[2][0].encode().replace(b"c2ln", b"A" * 257),
]


@pytest.mark.parametrize("body", INVALID)
def test_a_value_that_is_not_as_specified_is_refused(body):
    with pytest.raises(TsmError) as refused:
        LinkRequest.parse(body)
    assert refused.value.code == ErrorCode.INVALID_INPUT


SCRIPT = WRITTEN[0][0].encode()


@pytest.mark.parametrize(
    "body",
    [
        SCRIPT.replace(b">2<", b">1<"),
        SCRIPT.replace(b">2<", b">3<"),
        SCRIPT.replace(b">1<", b">0<"),
        SCRIPT.replace(b">1<", b">1000<"),
        SCRIPT.replace(b">1<", b"><"),
        SCRIPT.replace(b"1</iApduOrder", "１</iApduOrder".encode()),
        SCRIPT.replace(b"20261121093000", b"20261121096000"),
        SCRIPT.replace(b"20261121093000", b"2026-11-21"),
        b"<request><strSpId>JPKI0001</strSpId><strRcptNum>2026112100000001</strRcptNum>"
        b"<strApduGeneDate>20261121093000</strApduGeneDate><apduCmnds></apduCmnds></request>",
    ],
)
def test_a_script_with_a_gap_a_twin_or_a_date_that_is_none_is_refused(body):
    with pytest.raises(TsmError) as refused:
        DelegationRequest.parse(body)
    assert refused.value.code == ErrorCode.INVALID_INPUT


@given(st.binary(max_size=300))
def test_whatever_arrives_is_read_or_refused_never_anything_else(noise):
    for parse in (LinkRequest.parse, DelegationRequest.parse, NotificationResponse.parse, LinkResponse.parse):
        with pytest.raises(TsmError):
            parse(noise)


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_a_damaged_message_is_read_or_refused_never_anything_else(place, noise):
    at = place % len(LINK)
    try:
        LinkRequest.parse(LINK[:at] + noise + LINK[at + len(noise) :])
    except TsmError as refused:
        assert refused.code in (ErrorCode.MALFORMED_MESSAGE, ErrorCode.INVALID_INPUT)
