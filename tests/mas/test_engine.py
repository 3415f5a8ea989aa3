"""The conversation as a table: every way through it, and everything that has no place in it."""

from itertools import pairwise

import pytest

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.responses import InitializeUpdateResponse
from tsm.mas.engine import TRANSITIONS, Step, authenticate_card, delegable, expect, next_step, refusal
from tsm.mas.messages import Process, Return
from tsm.mas.status import Status

CONVERSATION = [  # figure 1-4
    (Process.START, Return.CONNECT),
    (Process.CONNECT_RESULT, Return.COMMAND),
    (Process.RESPONSE, Return.COMMAND),
    (Process.RESPONSE, Return.COMMAND),
    (Process.RESPONSE, Return.DISCONNECT),
    (Process.DISCONNECT_RESULT, Return.END),
]


def test_the_conversation_of_the_standard_is_possible():
    answered = None
    for process, answer in CONVERSATION:
        assert answer in expect(answered, process)
        answered = answer
    assert TRANSITIONS[answered] == {}


def test_each_answer_leads_to_exactly_one_message():
    assert all(len(TRANSITIONS[answer]) == (0 if answer is Return.END else 1) for answer in (None, *Return))


@pytest.mark.parametrize("answered", [None, *Return])
@pytest.mark.parametrize("process", list(Process))
def test_whatever_is_not_in_the_table_is_out_of_order(answered, process):
    if process in TRANSITIONS[answered]:
        assert expect(answered, process)
        return
    with pytest.raises(TsmError) as refused:
        expect(answered, process)
    assert refused.value.code == ErrorCode.WRONG_ORDER


def test_the_channel_is_opened_before_the_first_delegated_command():
    steps = [(Step.SELECT, 0)]
    while (following := next_step(*steps[-1], commands=2)) is not None:
        steps.append(following)
    assert steps == [
        (Step.SELECT, 0),
        (Step.INITIALIZE_UPDATE, 0),
        (Step.EXTERNAL_AUTHENTICATE, 0),
        (Step.COMMAND, 1),
        (Step.COMMAND, 2),
    ]
    assert all(later != earlier for earlier, later in pairwise(steps))


INSTALL_FOR_INSTALL = (
    "80E60C001D" + "07A0000001515350" + "08A000000151535041" + "05A000000001" + "0180" + "02C900" + "00"
)


@pytest.mark.parametrize(
    "apdu",
    [
        "80E2000001AA",
        "80CA0066",
        "80CA006600",
        "00B0000000",
        "8010000000",
        "80F24002024F00",
        INSTALL_FOR_INSTALL + "00",
        "80E608000C" + "0000" + "05A000000001" + "0100" + "0000" + "00",
        "80E40080084F06A00000000101",  # DELETE with related objects
        "80F0408006A00000000101",  # SET STATUS: lock
    ],
)
def test_a_plain_command_may_be_delegated(apdu):
    assert delegable(bytes.fromhex(apdu), 239) == CommandApdu.parse(bytes.fromhex(apdu))


@pytest.mark.parametrize(
    "apdu",
    [
        "",
        "80E200",
        "80E2000005AA",
        "84E2000001AA",  # secure messaging is the server's
        "81E2000001AA",  # another logical channel
        "00A4040000",  # SELECT would end the channel
        "8050000008" + "00" * 8,
        "8482330010" + "00" * 16,
        "8082330010" + "00" * 16,
        "0070000001",
        "80E20000F0" + "00" * 240,  # no room for secure messaging
        "80E4000003D00101",  # DELETE of a key
        "80F0807F08A000000151000000",  # SET STATUS of the card
        "80F0400004A0000000",  # SET STATUS of no AID
        "80EA000000",  # MANAGE ELF UPGRADE
        "80E6100000",  # INSTALL [for extradition]
        "80E6400000",  # INSTALL [for registry update]
        "80E60E0000",  # INSTALL [for load, install and make selectable]
        INSTALL_FOR_INSTALL.replace("80E60C001D", "80E60C001E") + "AA",  # more than its fields
        INSTALL_FOR_INSTALL.replace("80E6", "00E6", 1) + "00",  # a card may take it, our record would not
        "80E2900001AA",  # STORE DATA in TLV
        "80D8010100",  # PUT KEY without a key
    ],
)
def test_any_other_is_refused(apdu):
    with pytest.raises(TsmError) as refused:
        delegable(bytes.fromhex(apdu), 239)
    assert refused.value.code == ErrorCode.INVALID_INPUT


CARD = InitializeUpdateResponse(bytes(10), 1, 3, 0x70, bytes(8), b"\x01" * 8, bytes(3))


def test_the_card_that_is_expected_and_proves_its_keys_is_let_in():
    authenticate_card(CARD, bytes(10), 1, b"\x01" * 8)


@pytest.mark.parametrize(
    ("diversification", "key_version", "cryptogram", "code"),
    [
        (b"\x01" * 10, 1, b"\x01" * 8, ErrorCode.WRONG_CARD),
        (b"\x01" * 10, 2, b"\x02" * 8, ErrorCode.WRONG_CARD),
        (bytes(10), 2, b"\x01" * 8, ErrorCode.CARD_AUTHENTICATION_FAILED),
        (bytes(10), 1, b"\x02" * 8, ErrorCode.CARD_AUTHENTICATION_FAILED),
    ],
)
def test_another_card_and_a_card_with_other_keys_are_told_apart(diversification, key_version, cryptogram, code):
    with pytest.raises(TsmError) as refused:
        authenticate_card(CARD, diversification, key_version, cryptogram)
    assert refused.value.code == code


def test_lack_of_memory_has_a_status_of_its_own():
    assert refusal(0x6A84) is Status.CARD_OUT_OF_MEMORY
    assert refusal(0x6985) is Status.CARD_REFUSED
