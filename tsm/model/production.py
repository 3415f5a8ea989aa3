"""The production file: which cards left the factory, as their maker tells the operator.

CSV (RFC 4180) in UTF-8 with exactly this header; one card a line, ICCID and card number once each:

    iccid,iin,cin,key_set,profile
    8981100000000000010,8981100F,00000000000000000001,isd,uicc-128k

`iin` and `cin` are the octets, in hex, that GET DATA 42 and 45 answer. `key_set` names the operator's master key from
which the card's keys were derived. A file is taken whole or not at all, and every fault is named by line and column.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import NamedTuple

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, KeyRef
from tsm.model.card import DIVERSIFICATION_OCTETS, ISSUER_DOMAIN, CardRegistered
from tsm.model.checks import check_hex, check_name
from tsm.model.operator import Operator

COLUMNS = ("iccid", "iin", "cin", "key_set", "profile")


class ProductionRow(NamedTuple):
    """One card, as its line says it."""

    line: int
    iccid: str
    iin: str  # hex, upper case
    cin: str
    key_set: str
    profile: str

    @property
    def diversification(self) -> str:
        """Key diversification data: the last 10 octets of IIN and CIN, with zeros in front if they are fewer. Hex."""
        octets = bytes.fromhex(self.iin + self.cin)
        return octets[-DIVERSIFICATION_OCTETS:].rjust(DIVERSIFICATION_OCTETS, b"\x00").hex()


class Fault(NamedTuple):
    """What is wrong, and where. Values are not repeated: they may be anything."""

    line: int
    column: str  # empty when it is the line as a whole
    why: str

    def __str__(self) -> str:
        return f"line {self.line}{', ' if self.column else ''}{self.column}: {self.why}"


class ProductionFileRefused(TsmError):
    """INVALID_INPUT with every fault of the file, in order of lines."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(ErrorCode.INVALID_INPUT, "\n".join(str(fault) for fault in faults))
        self.faults = faults


def parse_production_file(content: bytes | str) -> tuple[ProductionRow, ...]:
    """All cards of the file. `ProductionFileRefused` when anything is wrong with any of them, or there is none."""
    rows = read_rows(_lines(_text(content)))
    if not rows:
        raise ProductionFileRefused((Fault(2, "", "no card"),))
    return rows


def read_rows(lines: Iterable[tuple[int, Sequence[str]]]) -> tuple[ProductionRow, ...]:
    """The cards of numbered lines with the values of `COLUMNS` each. `ProductionFileRefused` with all that is wrong."""
    rows: list[ProductionRow] = []
    faults: list[Fault] = []
    seen: dict[tuple[str, str], int] = {}
    try:
        for line, values in lines:
            found = list(_faults(line, values))
            if not found:
                iccid, iin, cin, key_set, profile = values
                rows.append(ProductionRow(line, iccid, iin.upper(), cin.upper(), key_set, profile))
                found = list(_repeated(rows[-1], seen))
            faults += found
    except ProductionFileRefused as unreadable:
        faults += unreadable.faults
    if faults:
        raise ProductionFileRefused(tuple(faults))
    return tuple(rows)


def registered(row: ProductionRow, owner: Operator) -> CardRegistered:
    """The fact that a row states. UNKNOWN_KEY, with the line, when its operator has no such key set."""
    try:
        master = owner.key_set(row.key_set)
    except TsmError as unknown:
        place = (str(row.line), "key_set")
        raise TsmError(unknown.code, f"line {row.line}, key_set: {unknown.detail}", place) from None
    return CardRegistered(
        iccid=row.iccid,
        iin=row.iin,
        cin=row.cin,
        operator=owner.operator,
        profile=row.profile,
        diversification=row.diversification,
        isd=ISSUER_DOMAIN,
        key_set=row.key_set,
        key_version=master.key_version,
        key=KeyRef(f"{master.key}?{master.derivation}={row.diversification}"),
    )


def _text(content: bytes | str) -> str:
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    try:
        return content.decode("utf-8-sig")  # spreadsheets like to begin with a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProductionFileRefused((Fault(line, "", "not UTF-8"),)) from None


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines after the header, numbered as an editor does."""
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise ProductionFileRefused((Fault(1, "", f"the header is not {','.join(COLUMNS)}"),))
        for values in reader:
            yield reader.line_num, values
    except csv.Error as error:
        raise ProductionFileRefused((Fault(reader.line_num, "", f"not CSV: {error}"),)) from None


def _faults(line: int, values: Sequence[str]) -> Iterator[Fault]:
    if len(values) != len(COLUMNS):
        yield Fault(line, "", f"{len(values)} values, not {len(COLUMNS)}")
        return
    for column, value in zip(COLUMNS, values, strict=True):
        try:
            _check(column, value)
        except TsmError as error:
            yield Fault(line, column, error.detail.removeprefix(f"{column}: "))


def _check(column: str, value: str) -> None:
    if column == "iccid":
        Iccid(value)
    elif column in ("iin", "cin"):
        check_hex(value, column)
    else:
        check_name(value, column)


def _repeated(row: ProductionRow, seen: dict[tuple[str, str], int]) -> Iterator[Fault]:
    """Two cards with one diversification would have the same keys."""
    for column, value in (("iccid", row.iccid), ("cin", row.diversification)):
        first = seen.setdefault((column, value), row.line)
        if first != row.line:
            yield Fault(row.line, column, f"the same as in line {first}")
