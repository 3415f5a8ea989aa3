"""The values of strProcStatus and strErrInfo, which MC-05 names but leaves open (its tables 1-9, 1-11 and 1-18).

| strProcStatus | strErrInfo           | meaning and what to do                                                       |
|---------------|----------------------|------------------------------------------------------------------------------|
| 00            | (empty)              | done                                                                         |
| 01            | NOT_ALL_ACKNOWLEDGED | the card did all; a NOTIFY was not acknowledged in time: tried for 24 hours  |
| 10            | MALFORMED_MESSAGE    | not the XML of the tables: mend the sender                                   |
| 11            | MESSAGE_TOO_LARGE    | larger than the limit of its interface                                       |
| 12            | INVALID_INPUT        | a value is missing or not as specified                                       |
| 13            | WRONG_ORDER          | this message is not expected now                                             |
| 20            | UNAUTHENTICATED      | no certificate of a known party                                              |
| 21            | FORBIDDEN            | the party may not do that                                                    |
| 22            | BAD_SIGNATURE        | spSign does not verify                                                       |
| 30            | UNKNOWN_PROVIDER     | the party is not enrolled                                                    |
| 31            | UNKNOWN_CARD         | the card is not registered                                                   |
| 32            | UNKNOWN_DOMAIN       | the card has no such security domain                                         |
| 33            | UNKNOWN_RECEPTION    | nothing was delegated under this reception number                            |
| 34            | RECEPTION_REUSED     | the reception number was used before, with other content: take a new one     |
| 35            | RECEPTION_CLOSED     | the delegation has ended or was not started in time: delegate anew           |
| 36            | KEYS_MISSING         | the server lacks the keys that the domain has or PUT KEY brings: share them  |
| 37            | KEYS_DIFFER          | PUT KEY brings other keys than those that were shared: share these           |
| 40            | UNKNOWN_SESSION      | no such session                                                              |
| 41            | SESSION_EXPIRED      | the phone was silent for too long; see NOTIFY for what the card acknowledged |
| 50            | CONNECT_FAILED       | the phone could not connect to the card                                      |
| 51            | WRONG_CARD           | another card answered than the one that was expected                         |
| 52            | CARD_AUTH_FAILED     | the card could not prove its keys; nothing was sent under them               |
| 53            | CARD_AUTH_EXHAUSTED  | too many of these: the domain is left alone until the operator releases it   |
| 54            | CARD_REFUSED         | a command was refused, or so the phone says; later ones were not sent        |
| 55            | CARD_OUT_OF_MEMORY   | the same, for lack of memory                                                 |
| 56            | CHANNEL_BROKEN       | a response does not verify; whether its command was executed is unknown      |
| 57            | KEYS_REPLACED        | the card has later keys than recorded, now known; nothing sent: begin anew   |
| 58            | CARD_ON_HOLD         | a SIM swap or a loss is suspected: nothing more is sent until it is released |
| 90            | TRY_AGAIN            | somebody else was faster: repeat the request                                 |
| 99            | INTERNAL             | a fault of the server, recorded under the request's id                       |

A repeated request with the same content never gets an error for being repeated: it gets the first answer.

54 and 55 rest on a status word that SCP03 does not protect (errors carry no R-MAC): a phone can pretend that a card
refused, also what it executed. It cannot pretend that a card executed anything. So after one of them, as after 41, 50
and 56, the commands up to the last acknowledged one were executed, and of the next one nothing is known. With 58 the
next one was not sent.
"""

from enum import StrEnum

from tsm.errors import ErrorCode


class Status(StrEnum):
    """strProcStatus (char 2)."""

    OK = "00"
    NOT_ALL_ACKNOWLEDGED = "01"
    MALFORMED_MESSAGE = "10"
    MESSAGE_TOO_LARGE = "11"
    INVALID_INPUT = "12"
    WRONG_ORDER = "13"
    UNAUTHENTICATED = "20"
    FORBIDDEN = "21"
    BAD_SIGNATURE = "22"
    UNKNOWN_PROVIDER = "30"
    UNKNOWN_CARD = "31"
    UNKNOWN_DOMAIN = "32"
    UNKNOWN_RECEPTION = "33"
    RECEPTION_REUSED = "34"
    RECEPTION_CLOSED = "35"
    KEYS_MISSING = "36"
    KEYS_DIFFER = "37"
    UNKNOWN_SESSION = "40"
    SESSION_EXPIRED = "41"
    CONNECT_FAILED = "50"
    WRONG_CARD = "51"
    CARD_AUTH_FAILED = "52"
    CARD_AUTH_EXHAUSTED = "53"
    CARD_REFUSED = "54"
    CARD_OUT_OF_MEMORY = "55"
    CHANNEL_BROKEN = "56"
    KEYS_REPLACED = "57"
    CARD_ON_HOLD = "58"
    TRY_AGAIN = "90"
    INTERNAL = "99"

    @property
    def info(self) -> str:
        """strErrInfo (varchar 20): the status as a word, empty when all is well."""
        return "" if self is Status.OK else self.name


FINAL_STATUSES: tuple[Status, ...] = (
    Status.OK,
    Status.NOT_ALL_ACKNOWLEDGED,
    Status.CONNECT_FAILED,
    Status.WRONG_CARD,
    Status.CARD_AUTH_FAILED,
    Status.CARD_AUTH_EXHAUSTED,
    Status.CARD_REFUSED,
    Status.CARD_OUT_OF_MEMORY,
    Status.CHANNEL_BROKEN,
    Status.KEYS_REPLACED,
    Status.CARD_ON_HOLD,
)
"""What END can say: RE-ACCESS carries no status, so the site finds it by the masSign that verifies."""

OF_ERROR: dict[ErrorCode, Status] = {
    ErrorCode.MALFORMED_MESSAGE: Status.MALFORMED_MESSAGE,
    ErrorCode.MESSAGE_TOO_LARGE: Status.MESSAGE_TOO_LARGE,
    ErrorCode.MESSAGE_INCOMPLETE: Status.MALFORMED_MESSAGE,
    ErrorCode.INVALID_INPUT: Status.INVALID_INPUT,
    ErrorCode.WRONG_ORDER: Status.WRONG_ORDER,
    ErrorCode.UNAUTHENTICATED: Status.UNAUTHENTICATED,
    ErrorCode.FORBIDDEN: Status.FORBIDDEN,
    ErrorCode.BAD_SIGNATURE: Status.BAD_SIGNATURE,
    ErrorCode.UNKNOWN_SERVICE_PROVIDER: Status.UNKNOWN_PROVIDER,
    ErrorCode.UNKNOWN_CARD: Status.UNKNOWN_CARD,
    ErrorCode.UNKNOWN_SECURITY_DOMAIN: Status.UNKNOWN_DOMAIN,
    ErrorCode.UNKNOWN_RECEPTION: Status.UNKNOWN_RECEPTION,
    ErrorCode.RECEPTION_REUSED: Status.RECEPTION_REUSED,
    ErrorCode.RECEPTION_CLOSED: Status.RECEPTION_CLOSED,
    ErrorCode.UNKNOWN_KEY: Status.KEYS_MISSING,
    ErrorCode.KEY_REFUSED: Status.KEYS_DIFFER,
    ErrorCode.UNKNOWN_SESSION: Status.UNKNOWN_SESSION,
    ErrorCode.SESSION_EXPIRED: Status.SESSION_EXPIRED,
    ErrorCode.CONNECT_FAILED: Status.CONNECT_FAILED,
    ErrorCode.WRONG_CARD: Status.WRONG_CARD,
    ErrorCode.CARD_AUTHENTICATION_FAILED: Status.CARD_AUTH_FAILED,
    ErrorCode.CARD_AUTHENTICATION_EXHAUSTED: Status.CARD_AUTH_EXHAUSTED,
    ErrorCode.CARD_REFUSED: Status.CARD_REFUSED,
    ErrorCode.CARD_OUT_OF_MEMORY: Status.CARD_OUT_OF_MEMORY,
    ErrorCode.SECURE_CHANNEL_BROKEN: Status.CHANNEL_BROKEN,
    ErrorCode.KEYS_REPLACED: Status.KEYS_REPLACED,
    ErrorCode.CARD_ON_HOLD: Status.CARD_ON_HOLD,
    ErrorCode.CONFLICT: Status.TRY_AGAIN,
    ErrorCode.STORE_BUSY: Status.TRY_AGAIN,
    ErrorCode.STORE_UNAVAILABLE: Status.TRY_AGAIN,
}


def status_of(code: ErrorCode) -> Status:
    """The status that tells a party of MC-05 about `code`; INTERNAL for whatever is none of its business."""
    return OF_ERROR.get(code, Status.INTERNAL)
