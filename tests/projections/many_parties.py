"""Several parties in one log: two operators with a card each, two providers on both, two municipalities."""

import msgspec

from tests.projections.story import (
    CREDENTIAL,
    DOMAIN,
    ICCID,
    LATER,
    OTHER_ICCID,
    MemoryLog,
    applied,
    domain_created,
    keys_put,
    registered,
    session_started,
)
from tsm.model import access_code, card, credential, reading, session
from tsm.model.domain import DomainClaimed
from tsm.model.event import Event, Fact
from tsm.model.operator import OperatorEnrolled
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.terminal import TerminalEnrolled

SIBLING_DOMAIN = "A00000015100000002"


def tell_as(log: MemoryLog, stream: str, fact: Fact, tenant: str, *tenants: str, actor: str = "phone") -> Event:
    """An event in another context than the story's."""
    event = log.add(stream, fact, actor=actor)
    context = msgspec.structs.replace(event.context, tenant=tenant, tenants=tenants)
    log.events[-1] = msgspec.structs.replace(event, context=context)
    return log.events[-1]


def enrol(log: MemoryLog) -> None:
    """Two operators, two providers with their domains, two municipalities."""
    for party in ("MNO00001", "MNO00002"):
        fact: Fact = OperatorEnrolled(
            operator=party, name=party, certificate_fingerprint="ab" * 32, public_key="", signing_key="", return_urls=()
        )
        tell_as(log, f"operator-{party}", fact, "server")
    for party, domain in (("JPKI0001", DOMAIN), ("BANK0001", SIBLING_DOMAIN)):
        fact = ProviderEnrolled(
            provider=party, name=party, certificate_fingerprint="ab" * 32, public_key="", transport_key="",
            notify_url="", return_urls=(), domain=domain, authority="ca",
        )  # fmt: skip
        tell_as(log, f"provider-{party}", fact, "server")
        tell_as(log, f"domain-{domain}", DomainClaimed(domain=domain, provider=party), "server")
    for number, municipality in enumerate(("13101", "13102")):
        fact = TerminalEnrolled(terminal=f"T-{number}", municipality=municipality, certificate_fingerprint="ab" * 32)
        tell_as(log, f"terminal-T-{number}", fact, "server")


def tell_of_many(log: MemoryLog) -> MemoryLog:
    """Two operators with a card each, both providers on both, and a credential of each municipality."""
    enrol(log)
    for operator, iccid, municipality in (("MNO00001", ICCID, "13101"), ("MNO00002", OTHER_ICCID, "13102")):
        stream = card.stream(iccid)
        tell_as(log, stream, msgspec.structs.replace(registered(iccid), operator=operator), "server")
        for provider, domain in (("JPKI0001", DOMAIN), ("BANK0001", SIBLING_DOMAIN)):
            fact: Fact = msgspec.structs.replace(domain_created(), domain=domain)
            tell_as(log, stream, fact, operator)
            reception = f"{provider}-{operator}"
            fact = msgspec.structs.replace(session_started(), iccid=iccid, provider=provider, domain=domain)
            tell_as(log, f"session-{reception}", fact, provider, operator)
            tell_as(log, f"session-{reception}", session.CardConnected(), provider, operator)
            fact = msgspec.structs.replace(keys_put(2, False), domain=domain)
            tell_as(log, stream, fact, provider, operator)
            fact = session.SessionEnded(status="00", mas_sign="", request_sha256="")
            tell_as(log, f"session-{reception}", fact, provider, operator)
        number = f"{CREDENTIAL}-{municipality}"
        fact = msgspec.structs.replace(
            applied(), subject=f"subject-{municipality}", municipality=municipality, iccid=iccid
        )
        tell_as(log, f"credential-{number}", fact, municipality, "JPKI0001", operator)
        code = access_code.AccessCodeHandedOut(credential=number, expires_at=LATER, tries=5)
        tell_as(log, f"access-code-{municipality}", code, municipality, "JPKI0001", operator)
        tell_as(log, f"credential-{number}", credential.HolderAuthenticated(), "JPKI0001", municipality)
    read = reading.DataAccessed(purpose="a check", query_sha256="ab" * 32, subjects=("subject-13101", "subject-13102"))
    tell_as(log, "reading-r-1", read, "MNO00001", actor="auditor:MNO00001/alice")
    return log
