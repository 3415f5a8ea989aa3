"""A log in memory, and a short story in it: a card gets a domain, keys, an application and a credential."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model import access_code, card, credential, delegation, deployment, session
from tsm.model.event import Context, Event, Fact
from tsm.model.operator import MasterKeyImported
from tsm.store.log import NOTHING, Found, Page, Unreadable
from tsm.store.mapper import ERASED, SEALED, Unseals
from tsm.store.recorder import Heading

ICCID = "8981100000000000010"
OTHER_ICCID = "8981100000000000028"
ISD, DOMAIN = "A000000151000000", "A00000015100000001"
LOAD_FILE, MODULE, APPLICATION = "D392F0002601FF", "D392F0002601FF01", "D392F000260100000001"
CREDENTIAL = "7b2c7c5e-3d0a-4f8e-9a55-1d2f3a4b5c6d"
RECEPTION = "2026112100000001"
BEGIN = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
LATER = BEGIN + timedelta(days=365)
SECRETS = ("YAMADA TARO", "SERIAL-MAIN", "SERIAL-AUTHENTICATION", "SERIAL-SIGNATURE", "operator/MNO00001/isd")


class MemoryLog:
    """The log as read models see it; positions in `unreadable` do not decode, subjects in `erased` are forgotten."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.unreadable: set[int] = set()
        self.erased: set[str] = set()

    @property
    def position(self) -> int:
        return len(self.events)

    def add(self, stream: str, fact: Fact, correlation: str = "deployment-1", actor: str = "phone") -> Event:
        number = 1 + sum(event.originator_id == stream for event in self.events)
        context = Context(
            actor=actor, role="phone", tenant="JPKI0001", tenants=("MNO00001",), correlation=correlation, request="r-1"
        )
        event = Event(
            originator_id=stream,
            originator_version=number,
            occurred_at=BEGIN + timedelta(seconds=self.position),
            context=context,
            fact=fact,
            position=self.position + 1,
            recorded_at=BEGIN + timedelta(seconds=self.position, milliseconds=1),
        )
        self.events.append(event)
        return event

    def page(
        self,
        after: int,
        limit: int,
        topics: Sequence[str] = (),
        unseals: Unseals = NOTHING,
        *,
        headings: bool = False,
    ) -> Page:
        found: list[Found] = []
        for event in self.events[after : after + limit]:
            if not topics or event.topic in topics:
                found.append(self._found(event, unseals))
            elif headings:
                found.append(Heading(event.position, event.originator_id, event.originator_version, event.topic))
        return Page(found, max(after, min(after + limit, self.position)))

    def history(
        self, stream: str, *, position: int | None = None, recorded_at: datetime | None = None
    ) -> Iterator[Event]:
        for event in self.events:
            in_time = recorded_at is None or (event.recorded_at is not None and event.recorded_at <= recorded_at)
            if event.originator_id == stream and in_time and (position is None or event.position <= position):
                yield event

    def at(self, positions: Sequence[int], unseals: Unseals = NOTHING) -> list[Event | Unreadable]:
        return [self._found(self.events[position - 1], unseals) for position in sorted(positions)]

    def _found(self, event: Event, unseals: Unseals) -> Event | Unreadable:
        if event.position in self.unreadable:
            error = TsmError(ErrorCode.STORE_CORRUPT, "an event does not decode")
            return Unreadable(event.position, event.originator_id, event.originator_version, event.topic, error)
        fact = event.fact
        opened = set(unseals.get(fact.topic, ()))
        shown = {name: SEALED for name in fact.sealed if name not in opened}
        if fact.sealed and getattr(fact, "subject", "") in self.erased:
            shown |= dict.fromkeys(opened & set(fact.sealed), ERASED)
        return msgspec.structs.replace(event, fact=msgspec.structs.replace(fact, **shown)) if shown else event

    def wait(self, after: int, timeout: float) -> bool:
        return self.position > after


def registered(iccid: str = ICCID) -> card.CardRegistered:
    return card.CardRegistered(
        iccid=iccid,
        iin="42000001",
        cin="0000000000000001",
        operator="MNO00001",
        profile="DEMO-1",
        diversification="00" * 10,
        isd=ISD,
        key_set="isd",
        key_version=0x30,
        key="operator/MNO00001/isd?kdf3=" + "00" * 10,
    )


def domain_created() -> card.SecurityDomainCreated:
    return card.SecurityDomainCreated(domain=DOMAIN, parent=ISD, privileges="800000", life_cycle="SELECTABLE")


def keys_put(version: int, provisional: bool) -> card.KeysPut:
    return card.KeysPut(
        domain=DOMAIN,
        key_version=version,
        check_values=("aaaaaa", "bbbbbb", "cccccc"),
        provisional=provisional,
        key=f"card/{ICCID}/{DOMAIN}/{version:02x}",
    )


def load_file_loaded() -> card.LoadFileLoaded:
    return card.LoadFileLoaded(load_file=LOAD_FILE, domain=DOMAIN, sha256="cd" * 32, size=1234)


def application_installed() -> card.ApplicationInstalled:
    return card.ApplicationInstalled(
        application=APPLICATION,
        module=MODULE,
        load_file=LOAD_FILE,
        domain=DOMAIN,
        privileges="000000",
        life_cycle="SELECTABLE",
    )


def personalized() -> card.ApplicationPersonalized:
    return card.ApplicationPersonalized(application=APPLICATION, domain=DOMAIN)


def delegated() -> delegation.DelegationAccepted:
    return delegation.DelegationAccepted(
        provider="JPKI0001",
        operator="MNO00001",
        reception=RECEPTION,
        iccid=ICCID,
        domain=DOMAIN,
        correlation=CREDENTIAL,
        generated_at="20261121110000",
        received_at=BEGIN,
        commands=(delegation.DelegatedCommand(order=1, header="80E28800", length=240),),
        content_index="ef" * 32,
        expires_at=LATER,
    )


def session_started() -> session.SessionStarted:
    return session.SessionStarted(
        provider="JPKI0001",
        reception=RECEPTION,
        iccid=ICCID,
        domain=DOMAIN,
        key=f"card/{ICCID}/{DOMAIN}/02",
        key_version=2,
        return_url="https://provider.example/return",
        token_sha256="12" * 32,
        expires_at=LATER,
    )


def applied() -> credential.CredentialApplied:
    return credential.CredentialApplied(
        subject="subject-1",
        provider="JPKI0001",
        terminal="T-13101-01",
        municipality="13101",
        iccid=ICCID,
        applicant="YAMADA TARO",
        document_sha256="34" * 32,
    )


def issued() -> credential.CredentialIssued:
    return credential.CredentialIssued(
        subject="subject-1",
        authority="ca",
        authentication_serial="SERIAL-AUTHENTICATION",
        signature_serial="SERIAL-SIGNATURE",
        authentication_certificate_sha256="56" * 32,
        signature_certificate_sha256="78" * 32,
    )


def tell(log: MemoryLog) -> MemoryLog:
    """From the master key to the active credential; position 1 is the only event that concerns no card."""
    master_key = MasterKeyImported(
        operator="MNO00001",
        key_set="isd",
        key="operator/MNO00001/isd",
        derivation="kdf3",
        key_version=0x30,
        check_value="aabbcc",
    )
    log.add("operator-MNO00001", master_key)
    log.add(f"card-{ICCID}", registered())
    deployment_delegated = deployment.DeploymentDelegated(
        operator="MNO00001",
        provider="JPKI0001",
        reception=RECEPTION,
        iccid=ICCID,
        domain=DOMAIN,
        step="security-domain",
        return_url="https://provider.example/return",
    )
    log.add(f"deployment-{RECEPTION}", deployment_delegated)
    for fact in (domain_created(), keys_put(1, True), keys_put(2, False), load_file_loaded(), application_installed()):
        log.add(f"card-{ICCID}", fact)
    verified = credential.MainCertificateVerified(subject="subject-1", serial="SERIAL-MAIN", revocation_as_of=BEGIN)
    for about in (applied(), verified, issued(), credential.SlipHandedOut()):
        log.add(f"credential-{CREDENTIAL}", about, CREDENTIAL, "terminal:T-13101-01")
    code = access_code.AccessCodeHandedOut(credential=CREDENTIAL, expires_at=LATER, tries=5)
    log.add("access-code-0123", code, CREDENTIAL, "terminal:T-13101-01")
    log.add("access-code-0123", access_code.AccessCodeAccepted(), CREDENTIAL)
    log.add(f"delegation-JPKI0001-{RECEPTION}", delegated(), CREDENTIAL, "provider:JPKI0001")
    log.add(f"session-JPKI0001-{RECEPTION}", session_started(), CREDENTIAL)
    log.add(f"card-{ICCID}", personalized(), CREDENTIAL)
    log.add(f"credential-{CREDENTIAL}", credential.CredentialWritten(reception=RECEPTION), CREDENTIAL)
    for kind in (credential.AUTHENTICATION, credential.SIGNATURE):
        destroyed = credential.KeyCopyDestroyed(kind=kind, receipt_sha256="bc" * 32)
        log.add(f"credential-{CREDENTIAL}", destroyed, CREDENTIAL, "authority:ca")
    log.add(f"credential-{CREDENTIAL}", credential.CredentialActivated(), CREDENTIAL, "authority:ca")
    return log
