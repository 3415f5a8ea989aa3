"""The production file: taken whole or not at all, every fault named."""

import pytest
from samples import OPERATOR

from tsm.errors import ErrorCode, TsmError
from tsm.model import operator
from tsm.model.operator import MasterKeyImported
from tsm.model.production import ProductionFileRefused, ProductionRow, parse_production_file, registered

HEADER = "iccid,iin,cin,key_set,profile\n"
ONE = "8981100000000000010,8981100f,000000000001,isd,uicc-128k\n"
TWO = "8981100000000000028,8981100F,000000000002,isd,uicc-128k\n"
MASTER_KEY = MasterKeyImported(
    operator="MNO00001",
    key_set="isd",
    key="operator/MNO00001/isd",
    derivation="kdf3",
    key_version=1,
    check_value="0a1b2c",
)


def faults(content: str | bytes) -> list[str]:
    with pytest.raises(ProductionFileRefused) as refusal:
        parse_production_file(content)
    assert refusal.value.code is ErrorCode.INVALID_INPUT
    assert refusal.value.detail == "\n".join(str(fault) for fault in refusal.value.faults)
    return [str(fault) for fault in refusal.value.faults]


def test_each_line_is_a_card() -> None:
    assert parse_production_file(HEADER + ONE + TWO) == (
        ProductionRow(2, "8981100000000000010", "8981100F", "000000000001", "isd", "uicc-128k"),
        ProductionRow(3, "8981100000000000028", "8981100F", "000000000002", "isd", "uicc-128k"),
    )


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + ONE).encode(),
        (HEADER + ONE).replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + (HEADER + ONE).encode(),
        (HEADER + ONE).rstrip("\n"),
        HEADER + ONE.replace("isd", '"isd"'),
    ],
)
def test_spreadsheets_write_it_in_their_own_ways(content: str | bytes) -> None:
    assert len(parse_production_file(content)) == 1


@pytest.mark.parametrize(
    "content",
    ["", ONE, HEADER.upper() + ONE, HEADER.replace(",", ";") + ONE, "iin,iccid,cin,key_set,profile\n" + ONE],
)
def test_the_header_is_exact(content: str) -> None:
    assert faults(content) == ["line 1: the header is not iccid,iin,cin,key_set,profile"]


def test_a_file_without_cards_is_refused() -> None:
    assert faults(HEADER) == ["line 2: no card"]


def test_every_fault_is_named_by_line_and_column() -> None:
    bad = "898110000000000001,8,zz,a b,\n"
    assert faults(HEADER + ONE + bad + TWO + "x,y\n") == [
        "line 3, iccid: not a valid Iccid",
        "line 3, iin: not hex",
        "line 3, cin: not hex",
        "line 3, key_set: not a name",
        "line 3, profile: not a name",
        "line 5: 2 values, not 5",
    ]


def test_an_empty_line_is_a_fault() -> None:
    assert faults(HEADER + ONE + "\n" + TWO) == ["line 3: 0 values, not 5"]


def test_an_iccid_has_its_luhn_digit() -> None:
    assert faults(HEADER + ONE.replace("010,", "011,")) == ["line 2, iccid: not a valid Iccid"]


def test_a_card_stands_there_once() -> None:
    assert faults(HEADER + ONE + TWO + ONE) == [
        "line 4, iccid: the same as in line 2",
        "line 4, cin: the same as in line 2",
    ]


def test_two_cards_do_not_share_their_keys() -> None:
    assert faults(HEADER + ONE + TWO.replace("002,", "001,")) == ["line 3, cin: the same as in line 2"]


def test_a_file_that_is_no_csv_is_refused_with_what_was_found_before() -> None:
    found = faults(HEADER + "1,2,3\n" + '"8981"1,,,,\n' + ONE)
    assert found[0] == "line 2: 3 values, not 5"
    assert found[1].startswith("line 3: not CSV")


def test_a_file_that_is_no_utf_8_is_refused() -> None:
    assert faults((HEADER + ONE).encode() + b"\xff") == ["line 3: not UTF-8"]


@pytest.mark.parametrize(
    ("iin", "cin", "diversification"),
    [
        ("8981100F", "000000000001", "8981100f000000000001"),
        ("8981", "01", "00000000000000898101"),
        ("8981100F", "00112233445566778899", "00112233445566778899"),
    ],
)
def test_the_diversification_is_the_last_ten_octets(iin: str, cin: str, diversification: str) -> None:
    assert ProductionRow(2, "8981100000000000010", iin, cin, "isd", "p").diversification == diversification


def test_a_row_becomes_a_card_of_its_operator() -> None:
    owner = operator.evolve(operator.evolve(None, OPERATOR), MASTER_KEY)
    [row] = parse_production_file(HEADER + ONE)
    fact = registered(row, owner)
    assert (fact.operator, fact.isd, fact.key_version) == ("MNO00001", "A000000151000000", 1)
    assert fact.key == "operator/MNO00001/isd?kdf3=8981100f000000000001"


def test_a_key_set_that_the_operator_lacks_is_named_with_its_line() -> None:
    [row] = parse_production_file(HEADER + ONE)
    with pytest.raises(TsmError) as refusal:
        registered(row, operator.evolve(None, OPERATOR))
    assert refusal.value.code is ErrorCode.UNKNOWN_KEY
    assert refusal.value.detail == "line 2, key_set: MNO00001 has no key set isd"
