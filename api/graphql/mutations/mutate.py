"""What all mutations share: an idempotency key, the answer as data, and a thread of their own.

A client names each mutation by a key of its choice. The key, scoped by the client, lies beside the log with a digest of
what was asked, written in the transaction of the events that came of it. So the same again, be it at the same moment or
to another server, is done once and answered as at first; something else under the same key is refused. A mutation that
is refused leaves nothing behind, not even its key; but where an operation turns out to be over when somebody comes to
bring it to a phone or to take it back, that is recorded, for it is true without the mutation.

Faults of the caller are part of the answer (`userErrors`). Faults of the server are errors of the request: nothing is
known to have been done, and the same key may be sent again.

Deciding and committing blocks, and some mutations make keys or fold hundreds of streams: so each runs in a thread, and
the event loop goes on with others.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import uuid4

import strawberry
from strawberry.utils.str_converters import to_camel_case

from api.access import Caller
from api.bootstrap import Parts
from api.errors import BAD_REQUEST, HTTP_STATUS, SERVER_FAULT
from api.graphql.context import Context
from api.graphql.types.scalars import Position
from tsm.application import decided
from tsm.errors import ErrorCode, TsmError
from tsm.model import event
from tsm.model.checks import check_text, refusal
from tsm.model.event import Event
from tsm.model.production import ProductionFileRefused
from tsm.store.loop import aside
from tsm.store.recorder import Command, Recorded

IDEMPOTENCY_DAYS = 30  # for which a key is remembered
KEY = re.compile(r"[!-~]{1,255}", re.ASCII)  # without a space, which stands between client and key
THREADS = ThreadPoolExecutor(8, thread_name_prefix="mutation")
WRONG_FIELD: Mapping[ErrorCode, tuple[str, ...]] = {  # for refusals that do not say it themselves
    ErrorCode.COMMAND_REUSED: ("idempotency_key",),
    ErrorCode.UNKNOWN_CARD: ("iccid",),
    ErrorCode.UNKNOWN_SECURITY_DOMAIN: ("domain",),
    ErrorCode.UNKNOWN_SERVICE_PROVIDER: ("provider",),
}
log = logging.getLogger(__name__)


@strawberry.type(description="Why a mutation was refused, in words that a program can act on.")
class UserError:
    code: str = strawberry.field(description="One of the codes of the API, such as `UNKNOWN_CARD`.")
    message: str = strawberry.field(description="The same for people. Never holds what was sent.")
    field: list[str] | None = strawberry.field(
        description="Where in `input` it is wrong, from the outside in (`rows`, `3`, `iccid`); null for all of it."
    )


@strawberry.interface(description="What every mutation answers: what came of it, or why it was refused.")
class MutationPayload:
    log_position: Position | None = strawberry.field(
        description="The position of the last event that came of it, or where the log ended when nothing had to change:"
        " a `minPosition` to read with. Null when it was refused."
    )
    repeated: bool = strawberry.field(
        description="Whether this idempotency key was answered before: nothing was done now, and this is what came of"
        " it at first."
    )
    user_errors: list[UserError] = strawberry.field(
        description="Why it was refused: then nothing was done, and the key may be used again. Nothing was recorded,"
        " either, unless `operationContact` or `operationCancel` found that the operation is over: it is DONE or FAILED"
        " then. Empty otherwise."
    )
    came: strawberry.Private[tuple[Any, Recorded] | None]  # of the input


@dataclass(frozen=True, slots=True)
class Act:
    """One mutation under way: who asks for it, under which command, and with which parts it is done."""

    context: Context
    command: Command

    @property
    def parts(self) -> Parts:
        return self.context.parts

    @property
    def caller(self) -> Caller:
        return self.context.caller

    def of(self, tenant: str, reason: str = "") -> event.Context:
        """What its events say of who acted, for whom and why. A reason that is given must be readable."""
        if reason:
            check_text(reason, "reason")
        return event.Context(
            actor=self.caller.actor,
            role=self.caller.role,
            tenant=tenant,
            correlation=uuid4().hex,
            request=self.context.request_id,
            command=self.command.id,
            reason=reason,
            person=self.caller.identity,
        )


Work = Callable[[Act, Any], object]


def mutate(context: Context, name: str, given: Any, work: Work) -> Recorded | list[UserError]:
    """Do it once, or tell what came of it at first; or why the caller is refused. Faults of the server are raised."""
    try:
        return aside(THREADS, _done, context, name, given, work)
    except TsmError as error:
        if HTTP_STATUS.get(error.code, BAD_REQUEST) >= SERVER_FAULT:
            raise
        log.info("%s %s: %s", context.request_id, name, error)
        return list(user_errors(error, given))


def _done(context: Context, name: str, given: Any, work: Work) -> Recorded:
    tsm, command = context.log, command_of(context, name, given)
    if (known := tsm.answered(command)) is not None:
        return known
    try:
        decided(partial(work, Act(context, command), given))
    except TsmError:
        # Refused, perhaps because the same was done under this key meanwhile.
        if (known := tsm.answered(command)) is not None:
            return known
        raise
    recorded = tsm.answered(command)
    if recorded is None:
        raise TsmError(ErrorCode.INTERNAL, f"{name} was done without its key")
    return recorded._replace(repeated=not _is_of(context, recorded))


def _is_of(context: Context, recorded: Recorded) -> bool:
    """Whether this request did it, and not another one under the same key at the same moment."""
    events = context.log.at(recorded.positions[:1])
    return all(isinstance(one, Event) and one.context.request == context.request_id for one in events)


def command_of(context: Context, name: str, given: Any) -> Command:
    """The key, and the digest of what is asked under it and for whom: a person may be of several tenants.

    INVALID_INPUT for a key that is none, or a text that is not printable.
    """
    values = asdict(given)
    key = values.pop("idempotency_key")
    if not KEY.fullmatch(key):
        raise refusal("idempotency_key", "not 1 to 255 visible ASCII characters")
    refuse_unprintable(values)
    named = [name, context.viewer, values]
    content = json.dumps(named, sort_keys=True, separators=(",", ":"), default=datetime.isoformat)
    keep_until = context.log.now() + timedelta(days=IDEMPOTENCY_DAYS)
    return Command(f"{context.caller.client} {key}", sha256(content.encode()).hexdigest(), keep_until)


def refuse_unprintable(value: Any, *place: str) -> None:
    """INVALID_INPUT for control characters, lone surrogates and the like, wherever they stand."""
    match value:
        case str() if not value.isprintable():
            raise TsmError(ErrorCode.INVALID_INPUT, f"{'.'.join(place)}: not printable", place)
        case dict():
            for name, each in value.items():
                refuse_unprintable(each, *place, name)
        case list():
            for number, each in enumerate(value):
                refuse_unprintable(each, *place, str(number))


def user_errors(error: TsmError, given: Any) -> Iterator[UserError]:
    """What the caller may know of his fault."""
    if isinstance(error, ProductionFileRefused):
        for fault in error.faults:
            place = (*error.field, str(fault.line), fault.column)
            yield UserError(code=error.code, message=fault.why, field=field_of(place))
    else:
        place = error.field or tuple(name for name in WRONG_FIELD.get(error.code, ()) if hasattr(given, name))
        yield UserError(code=error.code, message=error.message, field=field_of(place))


def field_of(place: tuple[str, ...]) -> list[str] | None:
    """As the schema writes it: `key_set` in Python is `keySet` in the input."""
    return [to_camel_case(name) for name in place] or None
