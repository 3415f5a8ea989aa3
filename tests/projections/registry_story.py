"""What the tests of the registry tell: two operators and two providers, and what is and happens on their cards."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec

from tests.projections.story import BEGIN, LATER, MemoryLog
from tsm.model import (
    authority,
    card,
    catalogue,
    credential,
    delegation,
    domain,
    line,
    operation,
    operator,
    party,
    service_provider,
    session,
    standing,
    terminal,
)
from tsm.model.event import Context, Fact
from tsm.model.swap_policy import Level

MNO, OTHER_MNO = "MNO00001", "MNO00002"
JPKI, BANK = "JPKI0001", "BANK0001"
MUNICIPALITY, TERMINAL = "13101", "T-13101-01"
CARD, OTHER_CARD, THIRD_CARD = "8981100000000000010", "8981100000000000028", "8981100000000000036"
ISD = "A000000151000000"
JPKI_DOMAIN, BANK_DOMAIN = "A0000001514A504B49", "A00000015142414E4B"
LOAD_FILE, MODULE, APPLICATION = "D392F0002601FF", "D392F0002601FF01", "D392F000260100000001"
ALERT, OTHER_ALERT, THIRD_ALERT = "a1" * 16, "b2" * 16, "c3" * 16  # on these cards
LINE, NUMBER = "5f0c7c5e-3d0a-4f8e-9a55-1d2f3a4b5c6d", "+447700900001"  # a fictional number
CREDENTIAL, SUBJECT = "7b2c7c5e-3d0a-4f8e-9a55-1d2f3a4b5c6d", "subject-1"
SECRETS = (
    "YAMADA TARO", "SERIAL-MAIN", "SERIAL-AUTHENTICATION", "SERIAL-SIGNATURE", "operator/MNO00001/isd", "card/8981",
    "12" * 32, NUMBER, "https://", "signature of the server", "ab" * 16,
)  # fmt: skip


class Story(MemoryLog):
    """A log to which a test adds what it needs; whoever acts is said with it."""

    def __init__(self) -> None:
        super().__init__()
        self.receptions = 0  # numbers of the sessions so far

    def tell(
        self,
        stream: str,
        *facts: Fact,
        actor: str = "administrator:console",
        tenant: str = "",
        correlation: str = "story-1",
        causation: str = "",
        command: str = "",
    ) -> None:
        for fact in facts:
            event = self.add(stream, fact)
            context = Context(
                actor=actor,
                role=actor.partition(":")[0],
                tenant=tenant,
                correlation=correlation,
                causation=causation,
                command=command,
            )
            self.events[-1] = msgspec.structs.replace(event, context=context)

    # Parties

    def operator(self, name: str = MNO) -> None:
        enrolled = operator.OperatorEnrolled(
            operator=name,
            name=f"Operator {name}",
            certificate_fingerprint="0a" * 32,
            public_key="00",
            signing_key=f"operator/{name}/signing",
            return_urls=("https://operator.example/return",),
        )
        self.tell(operator.stream(name), enrolled)

    def provider(self, name: str = JPKI, aid: str = JPKI_DOMAIN) -> None:
        enrolled = service_provider.ProviderEnrolled(
            provider=name,
            name=f"Provider {name}",
            certificate_fingerprint="0b" * 32,
            public_key="00",
            transport_key="00",
            notify_url="https://provider.example/notify",
            return_urls=("https://provider.example/return",),
            domain=aid,
            authority="jpki-ca",
        )
        self.tell(service_provider.stream(name), enrolled)
        self.claim(aid, name)

    def claim(self, aid: str, name: str) -> None:
        self.tell(domain.stream(aid), domain.DomainClaimed(domain=aid, provider=name))

    def terminal(self, name: str = TERMINAL, municipality: str = MUNICIPALITY) -> None:
        enrolled = terminal.TerminalEnrolled(
            terminal=name, municipality=municipality, certificate_fingerprint="0c" * 32
        )
        self.tell(terminal.stream(name), enrolled)

    def authority(self) -> None:
        enrolled = authority.AuthorityEnrolled(
            authority="jpki-ca",
            name="Authority",
            certificate_fingerprint="0d" * 32,
            url="https://authority.example",
            signature_ca="00",
            authentication_ca="00",
            signature_crl_url="https://authority.example/signature.crl",
            authentication_crl_url="https://authority.example/authentication.crl",
        )
        self.tell(authority.stream("jpki-ca"), enrolled)

    def withdraw(self, stream: str) -> None:
        self.tell(stream, party.CertificateWithdrawn(certificate_fingerprint="0a" * 32))

    def register_load_file(self, version: str = "1.0", provider: str = JPKI) -> None:
        registered = catalogue.LoadFileRegistered(
            load_file=LOAD_FILE,
            provider=provider,
            version=version,
            sha256="ef" * 32,
            size=1234,
            module=MODULE,
            application=APPLICATION,
        )
        self.tell(catalogue.stream(LOAD_FILE), registered)

    # Cards

    def card(self, iccid: str = CARD, of: str = MNO, profile: str = "DEMO-1") -> None:
        registered = card.CardRegistered(
            iccid=iccid,
            iin="42000001",
            cin="0000000000000001",
            operator=of,
            profile=profile,
            diversification="00" * 10,
            isd=ISD,
            key_set="isd",
            key_version=0x30,
            key=f"operator/{of}/isd?kdf3=00",
        )
        self.tell(card.stream(iccid), registered)

    def on_card(self, *facts: Fact, iccid: str = CARD, command: str = "", correlation: str = "story-1") -> None:
        self.tell(card.stream(iccid), *facts, actor="phone", command=command, correlation=correlation)

    def domain(self, aid: str = JPKI_DOMAIN, iccid: str = CARD) -> None:
        created = card.SecurityDomainCreated(domain=aid, parent=ISD, privileges="800000", life_cycle="SELECTABLE")
        self.on_card(created, iccid=iccid)

    def keys(
        self,
        version: int,
        aid: str = JPKI_DOMAIN,
        iccid: str = CARD,
        command: str = "",
        *,
        provisional: bool = False,
        correlation: str = "story-1",
    ) -> None:
        values = (f"{version:02x}aaaa", f"{version:02x}bbbb", f"{version:02x}cccc")
        put = card.KeysPut(
            domain=aid,
            key_version=version,
            check_values=values,
            provisional=provisional,
            key=f"card/{iccid}/{aid}/{version:02x}",
        )
        self.on_card(put, iccid=iccid, command=command, correlation=correlation)

    def content(self, aid: str = JPKI_DOMAIN, iccid: str = CARD) -> None:
        self.on_card(
            card.LoadFileLoaded(load_file=LOAD_FILE, domain=aid, sha256="ef" * 32, size=1234),
            card.ApplicationInstalled(
                application=APPLICATION,
                module=MODULE,
                load_file=LOAD_FILE,
                domain=aid,
                privileges="000000",
                life_cycle="SELECTABLE",
            ),
            card.ApplicationPersonalized(application=APPLICATION, domain=aid),
            iccid=iccid,
        )

    def deleted(self, target: str, *with_it: str, domain: str = JPKI_DOMAIN, iccid: str = CARD) -> None:
        self.on_card(card.ContentDeleted(target=target, domain=domain, deleted=(target, *with_it)), iccid=iccid)

    # Sessions

    def session(
        self,
        by: str = JPKI,
        aid: str = JPKI_DOMAIN,
        iccid: str = CARD,
        of: str = MNO,
        correlation: str = "story-1",
        *,
        ended: bool = True,
    ) -> None:
        """A delegation and its session, under the next reception number."""
        self.receptions += 1
        reception = reception_of(self.receptions)
        accepted = delegation.DelegationAccepted(
            provider=by,
            operator=of,
            reception=reception,
            iccid=iccid,
            domain=aid,
            correlation=correlation,
            generated_at="20261121110000",
            received_at=BEGIN,
            commands=(delegation.DelegatedCommand(order=1, header="80E28800", length=240),),
            content_index="ef" * 32,
            expires_at=LATER,
        )
        started = session.SessionStarted(
            provider=by,
            reception=reception,
            iccid=iccid,
            domain=aid,
            key=f"card/{iccid}/{aid}/01",
            key_version=1,
            return_url="https://provider.example/return",
            token_sha256="12" * 32,
            expires_at=BEGIN + timedelta(minutes=1),
        )
        said = {"tenant": by, "correlation": correlation, "command": f"{by}/{reception}"}
        self.tell(delegation.stream(by, reception), accepted, actor=f"provider:{by}", **said)
        self.tell(session.stream(by, reception), started, *exchanged(), actor="phone", **said)
        if ended:
            gone = session.Disconnected()
            end = session.SessionEnded(status="00", mas_sign="signature of the server", request_sha256="34" * 32)
            self.tell(session.stream(by, reception), gone, end, actor="phone", **said)
            done = delegation.DelegationEnded(status="00", executed=1)
            self.tell(delegation.stream(by, reception), done, actor="phone", **said)

    # Credentials

    def applied(
        self, identity: str = CREDENTIAL, iccid: str = CARD, provider: str = JPKI, municipality: str = MUNICIPALITY
    ) -> None:
        applied = credential.CredentialApplied(
            subject=SUBJECT if identity == CREDENTIAL else f"subject of {identity}",
            provider=provider,
            terminal=TERMINAL,
            municipality=municipality,
            iccid=iccid,
            applicant="YAMADA TARO",
            document_sha256="34" * 32,
        )
        self.on_credential(applied, identity=identity)

    def issued(self, identity: str = CREDENTIAL) -> None:
        verified = credential.MainCertificateVerified(subject=SUBJECT, serial="SERIAL-MAIN", revocation_as_of=BEGIN)
        issued = credential.CredentialIssued(
            subject=SUBJECT,
            authority="jpki-ca",
            authentication_serial="SERIAL-AUTHENTICATION",
            signature_serial="SERIAL-SIGNATURE",
            authentication_certificate_sha256="56" * 32,
            signature_certificate_sha256="78" * 32,
        )
        self.on_credential(verified, issued, credential.SlipHandedOut(), identity=identity)

    def on_credential(self, *facts: Fact, identity: str = CREDENTIAL) -> None:
        self.tell(credential.stream(identity), *facts, actor=f"terminal:{TERMINAL}", correlation=identity)

    def erase(self, identity: str = CREDENTIAL) -> None:
        """The order, and the key destroyed."""
        subject = SUBJECT if identity == CREDENTIAL else f"subject of {identity}"
        self.on_credential(credential.ErasureOrdered(subject=subject, in_use=False), identity=identity)
        self.erased.add(subject)

    # Standings

    def signal(self, iccid: str = CARD, of: str = MNO) -> int:
        """The position of a signal about the card."""
        recorded = line.SignalRecorded(
            subject="tenure-1",
            signal=f"signal-{len(self.events)}",
            source=f"operator:{of}",
            kind="DEVICE_CHANGED",
            msisdn=NUMBER,
            iccid=iccid,
        )
        self.tell(line.stream(LINE), recorded, actor=f"operator:{of}", tenant=of)
        return len(self.events)

    def on_standing(
        self, *facts: Fact, iccid: str = CARD, of: str = MNO, actor: str = "system:detection", causation: str = ""
    ) -> None:
        stream = standing.stream(iccid)
        self.tell(stream, *facts, actor=actor, tenant=of, correlation=stream, causation=causation)

    def suspect(
        self, alert: str = ALERT, iccid: str = CARD, of: str = MNO, level: Level = Level.HOLD, **values: Any
    ) -> None:
        """A suspicion, and the level that follows."""
        raised = standing.SuspicionRaised(
            **{
                "suspicion": alert,
                "rule": "another-device",
                "condition": "DEVICE_CHANGED",
                "level": level.value,
                "policy": 1,
                "since": BEGIN,
                "evidence": (self.signal(iccid, of),),
                **values,
            }
        )
        self.on_standing(raised, iccid=iccid, of=of)
        self.level(level, iccid, of)

    def level(self, level: Level, iccid: str = CARD, of: str = MNO) -> None:
        self.on_standing(standing.LevelChanged(level=level.value), iccid=iccid, of=of)

    # Operations

    def request(
        self,
        identity: str,
        kind: operation.OperationKind,
        target: str,
        *,
        iccid: str = CARD,
        of: str = MNO,
        provider: str = "",
        needs_approval: bool = True,
        correlation: str = "story-1",
    ) -> None:
        requested = operation.OperationRequested(
            operation=identity,
            kind=kind,
            target=target,
            reason="the contract ended",
            requested_by=f"operator:{of}",
            needs_approval=needs_approval,
            expires_at=LATER,
            iccid=iccid,
            operator=of,
            provider=provider,
            domain=target if iccid else "",
        )
        self.on_operation(identity, requested, correlation=correlation)

    def on_operation(self, identity: str, *facts: Fact, correlation: str = "story-1") -> None:
        self.tell(operation.stream(identity), *facts, actor=f"operator:{MNO}", correlation=correlation)


def reception_of(number: int) -> str:
    return f"20261121{number:08}"


def exchanged() -> Iterator[Fact]:
    """From CONNECT to the last answer, so far as a session's rows tell of it."""
    steps = (("SELECT", 0), ("INITIALIZE UPDATE", 0), ("EXTERNAL AUTHENTICATE", 0), ("COMMAND", 1))
    yield session.CardConnected()
    for step, order in steps:
        yield session.CommandSent(
            step=step,
            order=order,
            header="80e28800",
            length=20,
            wire_sha256="12" * 32,
            expires_at=BEGIN + timedelta(minutes=2),
            chaining="ab" * 16,
        )
        yield session.ResponseReceived(step=step, order=order, status_word="9000", length=2, wire_sha256="12" * 32)
    yield session.DisconnectSent(expires_at=BEGIN + timedelta(minutes=3))


def tell_all(story: Story) -> Story:
    """Something of everything, for every table a row."""
    for name in (MNO, OTHER_MNO):
        story.operator(name)
    story.authority()
    story.provider(JPKI, JPKI_DOMAIN)
    story.provider(BANK, BANK_DOMAIN)
    story.terminal()
    story.terminal("T-27100-01", "27100")
    story.register_load_file()
    for iccid, of in ((CARD, MNO), (OTHER_CARD, OTHER_MNO), (THIRD_CARD, MNO)):
        story.card(iccid, of)
        story.session(of, ISD, iccid, of)
        story.domain(JPKI_DOMAIN, iccid)
        story.keys(1, iccid=iccid, command=f"{of}/{reception_of(story.receptions)}/5", provisional=True)
        story.content(iccid=iccid)
    story.domain(BANK_DOMAIN, CARD)
    story.on_card(card.ProvisionalKeysHandedOut(domain=JPKI_DOMAIN, key_version=1, provider=JPKI))
    shared = card.KeysShared(domain=JPKI_DOMAIN, key_version=2, check_values=("02aaaa", "02bbbb"), provider=JPKI)
    story.on_card(shared)
    story.session()
    story.keys(2, command=f"{JPKI}/{reception_of(story.receptions)}/4")
    gone = card.ProvisionalKeysDestroyed(domain=JPKI_DOMAIN, key_version=1, key=f"card/{CARD}/{JPKI_DOMAIN}/01")
    story.on_card(gone)
    failed = card.CardAuthenticationFailed(domain=JPKI_DOMAIN, key_version=2, failures=2)
    story.on_card(failed)
    story.applied()
    story.issued()
    story.session(correlation=CREDENTIAL)
    story.applied("other-credential", OTHER_CARD, municipality="27100")
    story.applied("bank-credential", THIRD_CARD, provider=BANK)
    story.session(OTHER_MNO, ISD, OTHER_CARD, OTHER_MNO, ended=False)
    story.request("op-1", operation.OperationKind.LOCK, ISD, needs_approval=False)
    story.request("op-2", operation.OperationKind.DELETE, JPKI_DOMAIN, provider=JPKI)
    story.on_operation("op-2", operation.OperationApproved(approved_by="operator:second"))
    story.on_operation("op-2", operation.OperationDelegated(reception="2026112199999999"))
    story.request("op-3", operation.OperationKind.WITHDRAW_PARTY, f"provider/{BANK}", iccid="", of="")
    story.request("op-4", operation.OperationKind.LOCK, ISD, iccid=OTHER_CARD, of=OTHER_MNO)
    story.on_operation("op-4", operation.OperationEnded(state="CANCELLED", ended_by="operator:x", reason="not needed"))
    story.suspect()
    story.suspect(OTHER_ALERT, OTHER_CARD, OTHER_MNO, condition="LOST", rule="lost", level=Level.LOCK)
    story.suspect(THIRD_ALERT, THIRD_CARD)
    story.on_standing(standing.SuspicionWithdrawn(suspicion=THIRD_ALERT), iccid=THIRD_CARD)
    story.level(Level.NONE, THIRD_CARD)
    story.withdraw(service_provider.stream(BANK))
    return story
