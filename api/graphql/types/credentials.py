"""Credentials. Whose they are is sealed: a pseudonym, unless somebody may unseal it and says what for."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import strawberry
from strawberry.types import Info
from strawberry.utils.str_converters import to_camel_case

from api.graphql.context import Context
from api.graphql.types.events import Event, history, selected
from api.graphql.types.lists import Registered, kept_in
from api.graphql.types.paging import Connection
from api.graphql.types.scalars import Position, refuse
from projections.event_batches import pages
from projections.event_index import EventFilter
from projections.registry.book import ERASED as CLOSED_BY_ERASURE
from projections.registry.lists import CREDENTIALS
from tsm.model.credential import CredentialApplied, CredentialIssued, MainCertificateVerified
from tsm.model.event import Event as Recorded
from tsm.store.log import Unreadable
from tsm.store.mapper import ERASED, SEALED, Unseals

MAX_PURPOSE = 200  # characters
PERSONAL = {  # by topic: the sealed fields, and what they are called here
    CredentialApplied.topic: {"applicant": "applicant", "iccid": "iccid"},
    MainCertificateVerified.topic: {"serial": "main_certificate_serial"},
    CredentialIssued.topic: {
        "authentication_serial": "authentication_serial",
        "signature_serial": "signature_serial",
    },
}

Purpose = Annotated[
    str,
    strawberry.argument(
        description=f"Why it is read, {MAX_PURPOSE} characters at most: it stays in the log, under the caller's name."
        " One request has one purpose."
    ),
]


@strawberry.type(
    description="Who a credential is for. All of it is null once the person's erasure is ordered. Whoever reads it is"
    " recorded before the answer leaves."
)
class PersonalData:
    subject: str = strawberry.field(description="The person's pseudonym, which is in all events.")
    applicant: str | None = strawberry.field(description="The applicant's name.")
    iccid: str | None = strawberry.field(description="The card that the application was for.")
    main_certificate_serial: str | None = strawberry.field(
        description="Serial number of the My Number card's certificate that the application was signed with."
    )
    authentication_serial: str | None = strawberry.field(
        description="Serial number of the certificate for authentication; null before it is issued."
    )
    signature_serial: str | None = strawberry.field(
        description="Serial number of the certificate for signatures; null before it is issued."
    )


def personal_data(found: strawberry.Parent[Any], info: Info[Context, None], purpose: Purpose) -> PersonalData:
    """From the credential's own events, read at once for a whole page. Only what is selected is unsealed."""
    context, purpose = info.context, read_purpose(purpose)
    if found.closed == CLOSED_BY_ERASURE:  # from the order on: the key may outlast it, if only by a crash
        return shown(found.subject, {})
    context.unsealed.add(found.subject, purpose)
    what = ("personal data", info.path.key)  # the path: two aliases may have two selections
    told = found.siblings.once(what, lambda rows: unsealed(info, [row.credential for row in rows]))
    values: dict[str, str] = {}
    for event in told[found.credential]:
        if isinstance(event, Unreadable):
            raise event.error
        values |= personal_values(event)
    return shown(found.subject, values)


def read_purpose(given: str) -> str:
    """INVALID_INPUT for one that tells nothing."""
    purpose = given.strip()
    if not purpose or len(purpose) > MAX_PURPOSE or not purpose.isprintable():
        raise refuse(f"a purpose is a readable text of 1 to {MAX_PURPOSE} characters")
    return purpose


def shown(subject: str, known: Mapping[str, str]) -> PersonalData:
    return PersonalData(
        subject=subject,
        applicant=known.get("applicant"),
        iccid=known.get("iccid"),
        main_certificate_serial=known.get("main_certificate_serial"),
        authentication_serial=known.get("authentication_serial"),
        signature_serial=known.get("signature_serial"),
    )


def unsealed(info: Info[Context, None], credentials: Sequence[str]) -> dict[str, list[Recorded | Unreadable]]:
    """By credential, those of its events that hold what is selected, unsealed."""
    context, fields = info.context, sealed_fields(selected(info))
    told: dict[str, list[Recorded | Unreadable]] = {each: [] for each in credentials}
    if not fields:
        return told
    wanted = [EventFilter(credential=each, topics=tuple(fields)) for each in credentials]
    found = pages(context.views, context.viewer, wanted, 0, None, len(fields))
    owners = {row.position: row.credential for rows in found for row in rows}
    for event in context.log.at(list(owners), fields):
        told[owners[event.position]].append(event)
    return told


def sealed_fields(wanted: Collection[str]) -> Unseals:
    """By topic, what has to be unsealed for these fields."""
    found = {
        topic: [sealed for sealed, name in names.items() if to_camel_case(name) in wanted]
        for topic, names in PERSONAL.items()
    }
    return {topic: sealed for topic, sealed in found.items() if sealed}


def personal_values(event: Recorded) -> dict[str, str]:
    """What the event tells, by the names that it has here."""
    told = {name: getattr(event.fact, sealed) for sealed, name in PERSONAL[event.topic].items()}
    return {name: value for name, value in told.items() if value not in (ERASED, SEALED)}


@kept_in(CREDENTIALS)
@strawberry.type(description="A credential: two certificates with their keys, from the application to their use.")
class Credential(Registered):
    credential: str = strawberry.field(description="Its id (UUID).")
    provider: str = strawberry.field(description="The service provider whose credential it is.")
    municipality: str = strawberry.field(description="Where it was applied for.")
    terminal: str = strawberry.field(description="At which terminal.")
    authority: str | None = strawberry.field(description="The authority that issued it; null before that.")
    subject: str = strawberry.field(description="The person, by pseudonym: one person's tenure of this credential.")
    stage: str = strawberry.field(
        description="How far it came: APPLIED, MAIN_CERTIFICATE_VERIFIED, ISSUED, HANDED_OUT, HOLDER_AUTHENTICATED,"
        " DELEGATED, WRITTEN or ACTIVE."
    )
    hold: str | None = strawberry.field(
        description="Whether both certificates are on hold for the card's standing: ORDERED, HELD (the authority has"
        " acknowledged it), RELEASE_ORDERED; null when they are not. A revocation ends it."
    )
    closed: str | None = strawberry.field(
        description="Why it is over: refused, revoking (ordered, and not acknowledged by the authority yet), revoked or"
        " erased; null before."
    )
    iccid: str | None = strawberry.field(description="The card that it is for; null once the person is erased.")
    position: Position = strawberry.field(description="Position of its application.")
    changed: Position = strawberry.field(description="Position of the last event that changed it.")
    personal_data: PersonalData = strawberry.field(
        resolver=personal_data, description="Who it is for, unsealed for a purpose that is recorded."
    )
    issuance_history: Connection[Event] = history(
        "Every event of its issuance, oldest first: application, access code, delegation, session.",
        credential="credential",
    )


@strawberry.input(description="Which credentials.")
class CredentialsFilter:
    provider: str | None = strawberry.field(default=None, description="Of this provider.")
    municipality: str | None = strawberry.field(default=None, description="Applied for in this municipality.")
    terminal: str | None = strawberry.field(default=None, description="Applied for at this terminal.")
    authority: str | None = strawberry.field(default=None, description="Issued by this authority.")
    iccid: str | None = strawberry.field(default=None, description="For this card.")
    subject: str | None = strawberry.field(default=None, description="Of this person, by pseudonym.")
    stage: str | None = strawberry.field(default=None, description="That came so far, and no further.")
    hold: str | None = strawberry.field(default=None, description="Whose hold stands so.")
    closed: str | None = strawberry.field(default=None, description="That are over for this reason.")
