"""The conversation of MC-05 interface 3 (its figure 1-4) as a table, and what the server does with the card within it.

    START -> CONNECT -> CONNECT result -> (COMMAND -> RESPONSE)* -> DISCONNECT -> DISCONNECT result -> END

Within the brackets the server first opens the channel by itself, SELECT, INITIALIZE UPDATE, EXTERNAL AUTHENTICATE, then
come the delegated commands. Nothing here reads, writes, waits or knows a key.
"""

import hmac
from enum import StrEnum

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import SHORT_LE, CommandApdu, StatusWord
from tsm.globalplatform.commands import SetStatus, parse_command
from tsm.globalplatform.responses import InitializeUpdateResponse
from tsm.mas.messages import Process, Return
from tsm.mas.status import Status

TRANSITIONS: dict[Return | None, dict[Process, frozenset[Return]]] = {
    # what was answered last: {what may come now: {what may be answered}}
    None: {Process.START: frozenset({Return.CONNECT})},
    Return.CONNECT: {Process.CONNECT_RESULT: frozenset({Return.COMMAND, Return.END})},
    Return.COMMAND: {Process.RESPONSE: frozenset({Return.COMMAND, Return.DISCONNECT})},
    Return.DISCONNECT: {Process.DISCONNECT_RESULT: frozenset({Return.END})},
    Return.END: {},
}


class Step(StrEnum):
    """Which command lies with the card."""

    SELECT = "SELECT"
    INITIALIZE_UPDATE = "INITIALIZE UPDATE"
    EXTERNAL_AUTHENTICATE = "EXTERNAL AUTHENTICATE"
    COMMAND = "COMMAND"


AFTER = {
    Step.SELECT: Step.INITIALIZE_UPDATE,
    Step.INITIALIZE_UPDATE: Step.EXTERNAL_AUTHENTICATE,
    Step.EXTERNAL_AUTHENTICATE: Step.COMMAND,
    Step.COMMAND: Step.COMMAND,
}


def expect(answered: Return | None, process: Process) -> frozenset[Return]:
    """What may be answered to `process` after `answered`; WRONG_ORDER when it may not come now."""
    possible = TRANSITIONS[answered].get(process)
    if possible is None:
        raise TsmError(ErrorCode.WRONG_ORDER, f"{process.name} after {answered.name if answered else 'nothing'}")
    return possible


def next_step(step: Step, order: int, commands: int) -> tuple[Step, int] | None:
    """What goes to the card after `step` (and delegated command `order`) was acknowledged; None when all is done."""
    following = AFTER[step]
    if following is not Step.COMMAND:
        return following, 0
    return (Step.COMMAND, order + 1) if order < commands else None


RESERVED = {0xA4: "SELECT", 0x70: "MANAGE CHANNEL", 0x50: "INITIALIZE UPDATE", 0x82: "EXTERNAL AUTHENTICATE"}
RECORDED = {  # the record follows
    0xE6: "INSTALL", 0xE8: "LOAD", 0xD8: "PUT KEY", 0xE2: "STORE DATA", 0xE4: "DELETE", 0xF0: "SET STATUS",
}  # fmt: skip
UNRECORDED = {0xEA: "MANAGE ELF UPGRADE"}  # it would not
CARD = 0x80  # scope of SET STATUS: the card's own life cycle, some of whose states are for ever


def delegable(apdu: bytes, most_data: int) -> CommandApdu:
    """A command that a party may delegate: plain, on the basic channel, with at most `most_data` octets of data for
    secure messaging to fit around, and none of those by which the server opens the channel. INVALID_INPUT otherwise.

    A command that changes the card's content is refused too unless the card's record can follow: once the card has
    acknowledged it, it is too late.
    """
    command = CommandApdu.parse(apdu)
    if command.cla not in (0x00, 0x80):
        raise TsmError(ErrorCode.INVALID_INPUT, f"CLA {command.cla:02X}: plain commands on the basic channel only")
    if command.ins in RESERVED:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{RESERVED[command.ins]} is the server's")
    if command.ins in UNRECORDED:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{UNRECORDED[command.ins]}: the card's record could not follow")
    if command.ins in RECORDED:
        refuse_unless_understood(command)
    if len(command.data) > most_data or (command.le or 0) > SHORT_LE:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{len(command.data)} octets of data, at most {most_data}")
    return command


def refuse_unless_understood(command: CommandApdu) -> None:
    """INVALID_INPUT for a kind of these commands of which the card's record makes nothing.

    INSTALL has kinds for extradition and registry update; STORE DATA may be in TLV, which says nothing of keys; DELETE
    may be of keys, and SET STATUS of the card as a whole.
    """
    parsed = parse_command(command)
    if isinstance(parsed, SetStatus) and parsed.scope == CARD:
        raise TsmError(ErrorCode.INVALID_INPUT, "SET STATUS of the card: no script may lock or terminate it")


def authenticate_card(
    response: InitializeUpdateResponse, diversification: bytes, key_version: int, cryptogram: bytes
) -> None:
    """The card's answer to INITIALIZE UPDATE, before anything is sent under its keys (GPC Amendment D 6.2.2).

    WRONG_CARD when its key diversification data is another's. CARD_AUTHENTICATION_FAILED when it has other keys than
    the record says; EXTERNAL AUTHENTICATE must not follow, for a wrong one counts against the card.
    """
    if response.key_diversification != diversification:
        raise TsmError(ErrorCode.WRONG_CARD, "other key diversification data")
    if response.key_version != key_version:
        raise TsmError(ErrorCode.CARD_AUTHENTICATION_FAILED, f"key version {response.key_version:02X}")
    if not hmac.compare_digest(response.card_cryptogram, cryptogram):
        raise TsmError(ErrorCode.CARD_AUTHENTICATION_FAILED, "card cryptogram")


def refusal(status_word: int) -> Status:
    """The status for a command that the card did not acknowledge with 9000."""
    return Status.CARD_OUT_OF_MEMORY if status_word == StatusWord.NOT_ENOUGH_MEMORY else Status.CARD_REFUSED
