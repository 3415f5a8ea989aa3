"""One family of errors: a code to act on, a safe message for the outside, details for the log.

A code exists when a caller would act differently because of it. Codes are part of the API contract: add, never rename.
`TsmError.message` may cross any edge; `TsmError.detail` goes to the log only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class ErrorCode(StrEnum):
    """What a caller can act on."""

    # the message
    INVALID_INPUT = "INVALID_INPUT"
    MALFORMED_MESSAGE = "MALFORMED_MESSAGE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    MESSAGE_INCOMPLETE = "MESSAGE_INCOMPLETE"
    WRONG_ORDER = "WRONG_ORDER"
    # who is asking
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    # parties and things
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    UNKNOWN_SERVICE_PROVIDER = "UNKNOWN_SERVICE_PROVIDER"
    UNKNOWN_CARD = "UNKNOWN_CARD"
    UNKNOWN_SECURITY_DOMAIN = "UNKNOWN_SECURITY_DOMAIN"
    UNKNOWN_RECEPTION = "UNKNOWN_RECEPTION"
    RECEPTION_REUSED = "RECEPTION_REUSED"
    RECEPTION_CLOSED = "RECEPTION_CLOSED"
    CONFLICT = "CONFLICT"
    # the session with the card
    UNKNOWN_SESSION = "UNKNOWN_SESSION"
    SESSION_EXPIRED = "SESSION_EXPIRED"
    CONNECT_FAILED = "CONNECT_FAILED"
    WRONG_CARD = "WRONG_CARD"
    CARD_ON_HOLD = "CARD_ON_HOLD"
    CARD_AUTHENTICATION_FAILED = "CARD_AUTHENTICATION_FAILED"
    CARD_AUTHENTICATION_EXHAUSTED = "CARD_AUTHENTICATION_EXHAUSTED"
    KEYS_REPLACED = "KEYS_REPLACED"
    CARD_REFUSED = "CARD_REFUSED"
    CARD_OUT_OF_MEMORY = "CARD_OUT_OF_MEMORY"
    SECURE_CHANNEL_BROKEN = "SECURE_CHANNEL_BROKEN"
    # the application and the credential
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_REVOKED = "CERTIFICATE_REVOKED"
    REVOCATION_UNKNOWN = "REVOCATION_UNKNOWN"
    ACCESS_CODE_REFUSED = "ACCESS_CODE_REFUSED"
    ACCESS_CODE_EXPIRED = "ACCESS_CODE_EXPIRED"
    ACCESS_CODE_LOCKED = "ACCESS_CODE_LOCKED"
    # keys and the store
    UNKNOWN_KEY = "UNKNOWN_KEY"
    KEY_REFUSED = "KEY_REFUSED"
    KEY_ENCRYPTION_KEY_EXPOSED = "KEY_ENCRYPTION_KEY_EXPOSED"
    STORE_FORMAT = "STORE_FORMAT"
    STORE_CORRUPT = "STORE_CORRUPT"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_BUSY = "STORE_BUSY"
    COMMAND_REUSED = "COMMAND_REUSED"
    TOO_MANY_SIGNALS = "TOO_MANY_SIGNALS"
    READ_MODEL_BEHIND = "READ_MODEL_BEHIND"
    # the outside
    RATE_LIMITED = "RATE_LIMITED"
    TIMEOUT = "TIMEOUT"
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    INTERNAL = "INTERNAL"


MESSAGES: dict[ErrorCode, str] = {
    ErrorCode.INVALID_INPUT: "a value is missing or not as specified",
    ErrorCode.MALFORMED_MESSAGE: "the message is not well formed",
    ErrorCode.MESSAGE_TOO_LARGE: "the message is larger than allowed",
    ErrorCode.MESSAGE_INCOMPLETE: "the message did not arrive as a whole in time",
    ErrorCode.WRONG_ORDER: "this message is not expected now",
    ErrorCode.UNAUTHENTICATED: "a known client certificate or a valid token is needed",
    ErrorCode.FORBIDDEN: "this party may not do that",
    ErrorCode.BAD_SIGNATURE: "the signature does not verify",
    ErrorCode.NOT_FOUND: "there is no such thing",
    ErrorCode.ALREADY_EXISTS: "it exists already, with other content",
    ErrorCode.UNKNOWN_SERVICE_PROVIDER: "the service provider is not enrolled",
    ErrorCode.UNKNOWN_CARD: "the card is not registered",
    ErrorCode.UNKNOWN_SECURITY_DOMAIN: "the card has no such security domain",
    ErrorCode.UNKNOWN_RECEPTION: "no delegation has this reception number",
    ErrorCode.RECEPTION_REUSED: "this reception number was used before, with other content",
    ErrorCode.RECEPTION_CLOSED: "the delegation with this reception number has ended",
    ErrorCode.CONFLICT: "somebody else changed it meanwhile: load again and repeat",
    ErrorCode.UNKNOWN_SESSION: "there is no such session",
    ErrorCode.SESSION_EXPIRED: "the session has expired",
    ErrorCode.CONNECT_FAILED: "the phone could not connect to the card",
    ErrorCode.WRONG_CARD: "another card answers than the one expected",
    ErrorCode.CARD_ON_HOLD: "the card is on hold: a SIM swap or a loss is suspected",
    ErrorCode.CARD_AUTHENTICATION_FAILED: "the card could not prove its keys",
    ErrorCode.CARD_AUTHENTICATION_EXHAUSTED: "too many failed authentications: the security domain is protected",
    ErrorCode.KEYS_REPLACED: "the security domain has later keys than the record said: begin anew",
    ErrorCode.CARD_REFUSED: "the card refused a command",
    ErrorCode.CARD_OUT_OF_MEMORY: "the card has not enough memory",
    ErrorCode.SECURE_CHANNEL_BROKEN: "the card's answer does not verify",
    ErrorCode.CERTIFICATE_INVALID: "the certificate or its chain does not verify",
    ErrorCode.CERTIFICATE_EXPIRED: "the certificate is outside its validity period",
    ErrorCode.CERTIFICATE_REVOKED: "the certificate is revoked",
    ErrorCode.REVOCATION_UNKNOWN: "the revocation status cannot be established",
    ErrorCode.ACCESS_CODE_REFUSED: "access code or password is wrong",
    ErrorCode.ACCESS_CODE_EXPIRED: "the access code has expired",
    ErrorCode.ACCESS_CODE_LOCKED: "the access code is locked after too many tries",
    ErrorCode.UNKNOWN_KEY: "the vault has no such key",
    ErrorCode.KEY_REFUSED: "the key cannot be used for this",
    ErrorCode.KEY_ENCRYPTION_KEY_EXPOSED: "the key-encryption key lies in the data folder, or others can read it",
    ErrorCode.STORE_FORMAT: "the store has another format than this program",
    ErrorCode.STORE_CORRUPT: "the store holds something that does not decode",
    ErrorCode.STORE_UNAVAILABLE: "the store cannot be reached or has no room: ask again",
    ErrorCode.STORE_BUSY: "too many requests wait for the store: nothing was recorded, ask again",
    ErrorCode.COMMAND_REUSED: "this idempotency key was used before, with other content",
    ErrorCode.TOO_MANY_SIGNALS: "this source has told as much of this line, or of this card, as it may",
    ErrorCode.READ_MODEL_BEHIND: "the read models have not come to that position yet: ask again",
    ErrorCode.RATE_LIMITED: "this client has asked for too much: ask again later",
    ErrorCode.TIMEOUT: "the answer took longer than allowed",
    ErrorCode.UPSTREAM_UNAVAILABLE: "a party that is needed does not answer",
    ErrorCode.INTERNAL: "an internal error, recorded under the request id",
}


class TsmError(Exception):
    """A refusal that a caller can meet."""

    def __init__(self, code: ErrorCode, detail: str = "", field: tuple[str, ...] = ()) -> None:
        """`field` is the path of what is wrong in what was asked, where one value is."""
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = code
        self.detail = detail
        self.field = field

    @property
    def message(self) -> str:
        """What may be told outside: never holds data of the request."""
        return MESSAGES[self.code]


@contextmanager
def within(*place: str) -> Iterator[None]:
    """Whatever is refused in this block is refused for something at this place of what was asked."""
    try:
        yield
    except TsmError as error:
        error.field = (*place, *error.field)
        raise
