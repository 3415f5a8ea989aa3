"""The XML messages of MC-05 interfaces 2, 3 and 4 (its tables 1-6 to 1-20), each with `encode` and `parse`.

Writing follows the tables to the letter, in their order. Where the tables contradict themselves, this is our reading:

* `byRespSWAry` is char 3: Base64 of SW1 SW2 without padding (`kAA` is 9000). Four characters are read as well.
* Table 1-14 prints `byApduAry` twice where table 1-15 has `strMasSign`. We write `strMasSign` and read either.
* `iApduOrder` and `iRespApduNum` are numbers as text, 1 to 999, without gaps. NOTIFY of a session's failure that
  belongs to no delegated command has order 0.
* "May be unset" is an element that is empty or missing.

Reading is strict and hardened. A message is bounded before it is parsed; there is no document type, no entity, no
attribute, no unknown element, and no element twice.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NoReturn
from xml.sax.saxutils import escape

from lxml import etree

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import ReceptionNumber, SpId

MAX_DELEGATION = 512 * 1024  # octets of interface 2: 999 commands of one load file
MAX_MESSAGE = 8 * 1024  # octets of every other message
MAX_COMMANDS = 999  # iApduOrder is varchar 3
DATE_FORMAT = "%Y%m%d%H%M%S"  # YYYYMMDDhhmmss


class Process(StrEnum):
    """strProcId: what the common app says (table 1-12)."""

    START = "001"
    CONNECT_RESULT = "002"
    RESPONSE = "003"
    DISCONNECT_RESULT = "004"


class Return(StrEnum):
    """strProcIdRtn: what the server says (table 1-16)."""

    CONNECT = "101"
    COMMAND = "102"
    DISCONNECT = "103"
    END = "104"


UICC = "01"  # strConnectCard, its only value (table 1-13)


@dataclass(frozen=True, slots=True)
class DelegationRequest:
    """DELEGATE (tables 1-6 and 1-7). `commands` are in the order of execution: iApduOrder 1, 2, 3 .."""

    provider: SpId
    reception: ReceptionNumber
    generated_at: str  # YYYYMMDDhhmmss, UTC
    commands: tuple[bytes, ...]

    def encode(self) -> bytes:
        commands = "".join(
            f"<apduCmnd>{element('iApduOrder', str(order))}{element('byApduCmndAry', base64_text(apdu))}</apduCmnd>"
            for order, apdu in enumerate(self.commands, 1)
        )
        return document(
            "request",
            element("strSpId", self.provider),
            element("strRcptNum", self.reception),
            element("strApduGeneDate", self.generated_at),
            f"<apduCmnds>{commands}</apduCmnds>",
        )

    @classmethod
    def parse(cls, body: bytes) -> "DelegationRequest":
        """INVALID_INPUT unless the orders are 1 to n, each once; they may stand in any sequence."""
        root = parse_root(body, "request", MAX_DELEGATION)
        children = by_name(root, ("strSpId", "strRcptNum", "strApduGeneDate", "apduCmnds"))
        commands: dict[int, bytes] = {}
        for command in children.get("apduCmnds", ()):
            if command.tag != "apduCmnd" or command.attrib or len(commands) == MAX_COMMANDS:
                malformed("apduCmnds")
            values = texts(command, ("iApduOrder", "byApduCmndAry"))
            order = number(values.get("iApduOrder", ""))
            if order in commands:
                raise TsmError(ErrorCode.INVALID_INPUT, "an iApduOrder twice")
            commands[order] = octets(values.get("byApduCmndAry", ""))
        if not commands or set(commands) != set(range(1, len(commands) + 1)):
            raise TsmError(ErrorCode.INVALID_INPUT, "iApduOrder must be 1 to n")
        return cls(
            SpId(text(children.get("strSpId"))),
            ReceptionNumber(text(children.get("strRcptNum"))),
            date(text(children.get("strApduGeneDate"))),
            tuple(commands[order] for order in sorted(commands)),
        )


@dataclass(frozen=True, slots=True)
class DelegationResponse:
    """The answer to DELEGATE (tables 1-8 and 1-9)."""

    status: str
    error: str = ""
    received_at: str = ""  # YYYYMMDDhhmmss, UTC

    def encode(self) -> bytes:
        return document(
            "response",
            element("strProcStatus", self.status),
            element("strErrInfo", self.error),
            element("strApduRcptDate", self.received_at),
        )

    @classmethod
    def parse(cls, body: bytes) -> "DelegationResponse":
        root = parse_root(body, "response", MAX_MESSAGE)
        values = texts(root, ("strProcStatus", "strErrInfo", "strApduRcptDate"))
        received = values.get("strApduRcptDate", "")
        return cls(status(values), info(values), date(received) if received else "")


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """START, CONNECT result, RESPONSE or DISCONNECT result (tables 1-10 and 1-11)."""

    process: Process
    status: str = "00"
    provider: str = ""  # mandatory with START
    reception: str = ""  # mandatory with START
    status_word: bytes = b""  # SW1 SW2; with RESPONSE
    data: bytes = b""  # response data; with RESPONSE
    card: str = ""  # strConnectCard; with CONNECT result
    error: str = ""
    signature: str = ""  # strSpSign; with START

    def encode(self) -> bytes:
        return document(
            "request",
            element("strProcId", self.process),
            element("strProcStatus", self.status),
            element("strSpId", self.provider),
            element("strRcptNum", self.reception),
            element("byRespSWAry", status_word_text(self.status_word)),
            element("byRespApduDataAry", base64_text(self.data)),
            element("strConnectCard", self.card),
            element("strErrInfo", self.error),
            element("strSpSign", self.signature),
        )

    @classmethod
    def parse(cls, body: bytes) -> "LinkRequest":
        values = texts(parse_root(body, "request", MAX_MESSAGE), LINK_REQUEST)
        try:
            process = Process(values.get("strProcId", ""))
        except ValueError:
            raise TsmError(ErrorCode.INVALID_INPUT, "strProcId") from None
        provider, reception = values.get("strSpId", ""), values.get("strRcptNum", "")
        signature, card = values.get("strSpSign", ""), values.get("strConnectCard", "")
        if len(signature) > 256 or card not in ("", UICC) or bool(signature) != (process is Process.START):
            raise TsmError(ErrorCode.INVALID_INPUT, "strSpSign or strConnectCard")
        must_be_set = process is Process.START
        return cls(
            process,
            status(values),
            SpId(provider) if provider or must_be_set else "",
            ReceptionNumber(reception) if reception or must_be_set else "",
            status_word(values.get("byRespSWAry", "")),
            octets(values.get("byRespApduDataAry", "")),
            card,
            info(values),
            signature,
        )


LINK_REQUEST = (
    "strProcId",
    "strProcStatus",
    "strSpId",
    "strRcptNum",
    "byRespSWAry",
    "byRespApduDataAry",
    "strConnectCard",
    "strErrInfo",
    "strSpSign",
)


@dataclass(frozen=True, slots=True)
class LinkResponse:
    """CONNECT, COMMAND, DISCONNECT or END (tables 1-14 and 1-15)."""

    process: Return
    apdu: bytes = b""  # with COMMAND
    mas_sign: str = ""  # with END, Base64

    def encode(self) -> bytes:
        return document(
            "response",
            element("strProcIdRtn", self.process),
            element("byApduAry", base64_text(self.apdu)),
            element("strMasSign", self.mas_sign),
        )

    @classmethod
    def parse(cls, body: bytes) -> "LinkResponse":
        found: dict[str, list[str]] = {"strProcIdRtn": [], "byApduAry": [], "strMasSign": []}
        for child in parse_root(body, "response", MAX_MESSAGE):
            if child.tag not in found:
                malformed("an unknown element")
            found[str(child.tag)].append(text(child))
        apdus, mas_signs = found["byApduAry"], found["strMasSign"]
        if len(apdus) == 2 and not mas_signs:  # as table 1-14 prints it
            mas_signs.append(apdus.pop())
        if len(found["strProcIdRtn"]) != 1 or len(apdus) > 1 or len(mas_signs) > 1:
            malformed("an element missing or twice")
        try:
            process = Return(found["strProcIdRtn"][0])
        except ValueError:
            raise TsmError(ErrorCode.INVALID_INPUT, "strProcIdRtn") from None
        apdu, mas_sign = octets("".join(apdus)), "".join(mas_signs)
        if bool(apdu) != (process is Return.COMMAND) or bool(mas_sign) != (process is Return.END):
            raise TsmError(ErrorCode.INVALID_INPUT, "byApduAry goes with 102, strMasSign with 104")
        return cls(process, apdu, mas_sign)


@dataclass(frozen=True, slots=True)
class NotificationRequest:
    """NOTIFY (tables 1-17 and 1-18): the result of one delegated command, or of a session that failed (order 0)."""

    reception: str
    order: int
    response_number: int
    status: str
    status_word: bytes = b""
    data: bytes = b""
    error: str = ""

    def encode(self) -> bytes:
        return document(
            "request",
            element("strRcptNum", self.reception),
            element("iApduOrder", str(self.order)),
            element("iRespApduNum", str(self.response_number)),
            element("byRespSWAry", status_word_text(self.status_word)),
            element("byRespApduDataAry", base64_text(self.data)),
            element("strProcStatus", self.status),
            element("strErrInfo", self.error),
        )

    @classmethod
    def parse(cls, body: bytes) -> "NotificationRequest":
        values = texts(parse_root(body, "request", MAX_MESSAGE), NOTIFICATION_REQUEST)
        return cls(
            ReceptionNumber(values.get("strRcptNum", "")),
            number(values.get("iApduOrder", ""), least=0),
            number(values.get("iRespApduNum", ""), least=0),
            status(values),
            status_word(values.get("byRespSWAry", "")),
            octets(values.get("byRespApduDataAry", "")),
            info(values),
        )


NOTIFICATION_REQUEST = (
    "strRcptNum",
    "iApduOrder",
    "iRespApduNum",
    "byRespSWAry",
    "byRespApduDataAry",
    "strProcStatus",
    "strErrInfo",
)


@dataclass(frozen=True, slots=True)
class NotificationResponse:
    """NOTIFY-ACK (tables 1-19 and 1-20)."""

    result: bool

    def encode(self) -> bytes:
        return document("response", element("strResult", "true" if self.result else "false"))

    @classmethod
    def parse(cls, body: bytes) -> "NotificationResponse":
        result = texts(parse_root(body, "response", MAX_MESSAGE), ("strResult",)).get("strResult")
        if result not in ("true", "false"):
            raise TsmError(ErrorCode.INVALID_INPUT, "strResult")
        return cls(result == "true")


# Writing: the tables are flat, and all text but strErrInfo is digits or Base64.


def document(root: str, *children: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8" ?>\n<{root}>{"".join(children)}</{root}>\n'.encode()


def element(name: str, value: str) -> str:
    return f"<{name}>{escape(value) if '&' in value or '<' in value else value}</{name}>"


def base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def status_word_text(value: bytes) -> str:
    return base64_text(value).rstrip("=")


# Reading


def parse_root(body: bytes, name: str, limit: int) -> etree._Element:
    """The root of a message of at most `limit` octets; MESSAGE_TOO_LARGE or MALFORMED_MESSAGE."""
    if len(body) > limit:
        raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, f"{len(body)} octets")
    if b"<!" in body:  # no DOCTYPE, no entities, no CDATA; comments go with them
        malformed("a declaration")
    # A parser keeps state, so each message gets its own. `encoding` overrides what the document claims: in UTF-8, and
    # only there, the scan above sees every declaration.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        malformed("not well-formed XML")
    if root is None or root.tag != name or root.attrib or root.getroottree().docinfo.internalDTD is not None:
        malformed(f"the root must be {name}")
    return root


def by_name(parent: Iterable[etree._Element], allowed: tuple[str, ...]) -> dict[str, etree._Element]:
    """The children of a message by name; MALFORMED_MESSAGE for an unknown one, one twice, or an attribute."""
    found: dict[str, etree._Element] = {}
    for child in parent:
        if child.tag not in allowed or child.tag in found or child.attrib:
            malformed("an element that is unknown or stands twice")
        found[str(child.tag)] = child
    return found


def texts(parent: etree._Element, allowed: tuple[str, ...]) -> dict[str, str]:
    return {name: text(child) for name, child in by_name(parent, allowed).items()}


def text(element: etree._Element | None) -> str:
    """The text of an element without children; empty when it is missing."""
    if element is None:
        return ""
    if len(element) or element.attrib:
        malformed("text expected")
    return element.text or ""


def malformed(what: str) -> NoReturn:
    raise TsmError(ErrorCode.MALFORMED_MESSAGE, what)


def octets(value: str) -> bytes:
    """Base64 to octets; INVALID_INPUT for anything else."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise TsmError(ErrorCode.INVALID_INPUT, "not Base64") from None


def status_word(value: str) -> bytes:
    """byRespSWAry: empty, or SW1 SW2 in Base64 with or without its padding."""
    raw = octets(value + "=" if len(value) == 3 else value)
    if len(raw) not in (0, 2):
        raise TsmError(ErrorCode.INVALID_INPUT, "byRespSWAry")
    return raw


def checked(pattern: str) -> Callable[[str], str]:
    """A reader of one field: INVALID_INPUT unless the whole text matches."""
    compiled = re.compile(pattern, re.ASCII)

    def read(value: str) -> str:
        if not compiled.fullmatch(value):
            raise TsmError(ErrorCode.INVALID_INPUT, f"must be {pattern}")
        return value

    return read


digits = checked(r"[0-9]{1,3}")
two_characters = checked(r"[0-9A-Za-z]{2}")
error_text = checked(r"[ -~]{0,20}")
fourteen_digits = checked(r"[0-9]{14}")


def number(value: str, least: int = 1) -> int:
    """iApduOrder, iRespApduNum: `least` to 999."""
    order = int(digits(value))
    if order < least:
        raise TsmError(ErrorCode.INVALID_INPUT, "order")
    return order


def date(value: str) -> str:
    """YYYYMMDDhhmmss, a moment that exists."""
    try:
        datetime.strptime(fourteen_digits(value), DATE_FORMAT)
    except ValueError:
        raise TsmError(ErrorCode.INVALID_INPUT, "not a date") from None
    return value


def status(values: dict[str, str]) -> str:
    return two_characters(values.get("strProcStatus", ""))


def info(values: dict[str, str]) -> str:
    return error_text(values.get("strErrInfo", ""))
