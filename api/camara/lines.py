"""Which line a request means: the number in it, or the one whose holder's token it is. Never both, never neither."""

from typing import Annotated, Protocol

import msgspec

from api.camara.answers import Code, Refused
from api.camara.tokens import Consumer

PhoneNumber = Annotated[str, msgspec.Meta(pattern=r"^\+[1-9][0-9]{4,14}\Z")]


class Lines(Protocol):
    """`tsm.flows.lines`."""

    def stream_of_number(self, msisdn: str) -> str | None: ...
    def stream_of_subject(self, issuer: str, sub: str) -> str | None: ...


def stream_of(lines: Lines, consumer: Consumer, number: str | None) -> str:
    """The line's stream. MISSING_IDENTIFIER, UNNECESSARY_IDENTIFIER; IDENTIFIER_NOT_FOUND for a number unknown here.

    A token of three legs whose holder's line nobody told us is no reason to believe the number in a request.
    """
    if consumer.subject:
        if number is not None:
            raise Refused(Code.UNNECESSARY_IDENTIFIER)
        stream = lines.stream_of_subject(consumer.issuer, consumer.subject)
        if stream is None:
            raise Refused(Code.MISSING_IDENTIFIER)
        return stream
    if number is None:
        raise Refused(Code.MISSING_IDENTIFIER)
    stream = lines.stream_of_number(number)
    if stream is None:
        raise Refused(Code.IDENTIFIER_NOT_FOUND)
    return stream
