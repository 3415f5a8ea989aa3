"""Histories as the server would have recorded them, made in bulk: what a log of a year holds, in a minute.

A story is one card's: the production file, the provider's security domain, its keys and its application, and a
credential from the counter to its use. Streams, topics, sizes, contexts and what is recorded together are those of the
log that `make demo` leaves, some 210 events for each credential; many stories go on at once. All values are drawn from
a seed: the same seed tells the same history. Personal fields are sealed by a vault when a store is filled.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from random import Random
from typing import NamedTuple
from uuid import UUID

from rich.progress import Progress

from tsm.identifiers import luhn_digit
from tsm.keys.vault import SoftwareVault
from tsm.model import (
    access_code,
    authority,
    card,
    catalogue,
    credential,
    delegation,
    deployment,
    domain,
    operator,
    service_provider,
    session,
    terminal,
)
from tsm.model.deployment import DeploymentStep
from tsm.model.event import Context, Event, Fact
from tsm.model.topics import FACTS
from tsm.store.mapper import JsonMapper
from tsm.store.recorder import Append, IndexRow, Recorder

OPERATOR, PROVIDER, AUTHORITY, TERMINAL, MUNICIPALITY = "MNO00001", "JPKI0001", "jpki-ca", "T-13101-01", "13101"
ISD, DOMAIN = card.ISSUER_DOMAIN, "A0000001514A504B49"
LOAD_FILE, MODULE, APPLICATION = "D392F0002601FF", "D392F0002601FF01", "D392F000260100000001"
LOAD_FILE_SHA256, LOAD_FILE_SIZE = "83bc0466579b46b1436dcf699047008347ca2eb769a8e02b4c2360a377259441", 2166
KEY_SET, MASTER_KEY = "isd-2026", f"operator/{OPERATOR}/isd-2026"
RETURN_URL = "https://provider.example.jp/mobile/return"
BEGIN = datetime(2026, 11, 21, 2, 12, tzinfo=UTC)
TICK = timedelta(milliseconds=4)  # from one commit to the next
PATIENCE = timedelta(minutes=1)
AT_ONCE = 64  # stories that go on at the same time
BATCH = 2000  # events of one transaction when a store is filled
NOTICE_LAG = 2  # a result is notified while the card is at the second command after it

Commands = Sequence[tuple[str, int]]  # header and length of data
CREATE_DOMAIN: Commands = (("80e60c00", 33), ("80e62000", 15), ("80e28800", 108))
PUT_KEYS: Commands = (("80d80181", 70),)
INSTALL: Commands = (
    ("80e60200", 53),
    *((f"80e800{block:02x}", 239) for block in range(9)),
    ("80e88009", 19),
    ("80e60c00", 34),
)
PERSONALIZE: Commands = (
    ("80e62000", 16),
    *((f"80e268{block:02x}", 239) for block in range(26)),
    ("80e2e81a", 229),
)


class Told(NamedTuple):
    """What one commit records: facts with their streams, and why they came to be."""

    context: Context
    facts: Sequence[tuple[str, Fact]]


class Script(NamedTuple):
    """A delegation, and what its commands do to the card, by their order."""

    party: str
    reception: str
    correlation: str
    domain: str
    key: str
    key_version: int
    commands: Commands
    does: Mapping[int, Fact]


class Exchange(NamedTuple):
    """A command that goes to the card: what the session says of it."""

    step: str
    order: int
    header: str
    length: int  # of its data
    answer: int  # octets of the answer on the wire


OPENING = (  # of the secure channel
    Exchange("SELECT", 0, "00a40400", 8, 20),
    Exchange("INITIALIZE UPDATE", 0, "80500100", 8, 34),
    Exchange("EXTERNAL AUTHENTICATE", 0, "84823300", 16, 2),
)


class History:
    """An endless history."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - nothing secret is drawn
        self._versions: dict[str, int] = {}
        self._now = BEGIN

    def events(self) -> Iterator[Event]:
        """All events, in the order of the log."""
        for commit in self.commits():
            yield from commit

    def commits(self) -> Iterator[list[Event]]:
        """What is recorded together: first the parties, then the stories, many at once."""
        yield from self.parties()
        callers = self.callers(AT_ONCE)
        while True:
            yield next(callers[int(self._random.random() * AT_ONCE)])

    def parties(self) -> Iterator[list[Event]]:
        return map(self._placed, self._parties())

    def callers(self, number: int) -> list[Iterator[list[Event]]]:
        """As many as act at the same time, each in one story after the other."""
        stories = count()
        return [self._one_after_the_other(stories) for _ in range(number)]

    def _one_after_the_other(self, stories: Iterator[int]) -> Iterator[list[Event]]:
        for number in stories:
            yield from self.story(number)

    def story(self, number: int) -> Iterator[list[Event]]:
        """The commits of one story by itself."""
        return map(self._placed, self._story(number))

    def _placed(self, told: Told) -> list[Event]:
        self._now += TICK
        return [
            Event(
                originator_id=stream,
                originator_version=self._next_version(stream),
                occurred_at=self._now,
                context=told.context,
                fact=fact,
            )
            for stream, fact in told.facts
        ]

    def _next_version(self, stream: str) -> int:
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        return version

    def _hex(self, octets: int) -> str:
        return self._random.randbytes(octets).hex()

    # The parties

    def _parties(self) -> Iterator[Told]:
        """Each is enrolled once, before the first card; the provider's load file is in the catalogue."""
        enrolled = operator.OperatorEnrolled(
            operator=OPERATOR,
            name="Simulated Mobile",
            certificate_fingerprint=self._hex(32),
            public_key=self._hex(91),
            signing_key=f"operator/{OPERATOR}/signing",
            return_urls=("https://operator.example.jp/return",),
        )
        yield self._console("enrol operator", (operator.stream(OPERATOR), enrolled))
        yield self._console("enrol authority", (authority.stream(AUTHORITY), self._authority()))
        claimed = domain.DomainClaimed(domain=DOMAIN, provider=PROVIDER)
        provider = service_provider.stream(PROVIDER)
        yield self._console("enrol provider", (provider, self._provider()), (domain.stream(DOMAIN), claimed))
        counter = terminal.TerminalEnrolled(
            terminal=TERMINAL, municipality=MUNICIPALITY, certificate_fingerprint=self._hex(32)
        )
        yield self._console("enrol terminal", (terminal.stream(TERMINAL), counter))
        imported = operator.MasterKeyImported(
            operator=OPERATOR,
            key_set=KEY_SET,
            key=MASTER_KEY,
            derivation="kdf3",
            key_version=1,
            check_value=self._hex(3),
        )
        yield self._console("import master key", (operator.stream(OPERATOR), imported))
        registered = catalogue.LoadFileRegistered(
            load_file=LOAD_FILE,
            provider=PROVIDER,
            version="1.0",
            sha256=LOAD_FILE_SHA256,
            size=LOAD_FILE_SIZE,
            module=MODULE,
            application=APPLICATION,
        )
        yield self._console("register load file", (catalogue.stream(LOAD_FILE), registered))

    def _authority(self) -> authority.AuthorityEnrolled:
        return authority.AuthorityEnrolled(
            authority=AUTHORITY,
            name="Simulated JPKI",
            certificate_fingerprint=self._hex(32),
            url="https://authority.example.jp",
            signature_ca=self._hex(997),
            authentication_ca=self._hex(1001),
            signature_crl_url="https://authority.example.jp/crl/signature.crl",
            authentication_crl_url="https://authority.example.jp/crl/authentication.crl",
        )

    def _provider(self) -> service_provider.ProviderEnrolled:
        return service_provider.ProviderEnrolled(
            provider=PROVIDER,
            name="Simulated JPKI Issuer",
            certificate_fingerprint=self._hex(32),
            public_key=self._hex(91),
            transport_key=self._hex(422),
            notify_url="https://provider.example.jp/notify",
            return_urls=(RETURN_URL,),
            domain=DOMAIN,
            authority=AUTHORITY,
        )

    def _console(self, reason: str, *facts: tuple[str, Fact]) -> Told:
        context = Context(
            actor="administrator:console",
            role="administrator",
            tenant="tsm-server",
            correlation=self._hex(16),
            request=self._hex(16),
            reason=reason,
        )
        return Told(context, facts)

    # One story

    def _story(self, number: int) -> Iterator[Told]:
        iccid, story = iccid_of(number), self._hex(16)
        yield self._registered(iccid)
        yield from self._deployed(iccid, story, DeploymentStep.SECURITY_DOMAIN, 2 * number, CREATE_DOMAIN)
        yield from self._keys_rotated(iccid, story, 2 * number)
        yield from self._deployed(iccid, story, DeploymentStep.APPLICATION, 2 * number + 1, INSTALL)
        yield from self._issued(iccid, 2 * number + 1)

    def _registered(self, iccid: str) -> Told:
        return self._console("production file", (card.stream(iccid), registered(iccid)))

    def _deployed(
        self, iccid: str, story: str, step: DeploymentStep, number: int, commands: Commands
    ) -> Iterator[Told]:
        """One step of the operator, which the provider asked for."""
        reception = f"20261122{number:08}"
        does = self._creates(iccid) if step is DeploymentStep.SECURITY_DOMAIN else INSTALLS
        script = Script(OPERATOR, reception, story, ISD, _issuer_key(iccid), 1, commands, does)
        yield self._delegated(iccid, script)
        asked = deployment.DeploymentDelegated(
            operator=OPERATOR,
            provider=PROVIDER,
            reception=reception,
            iccid=iccid,
            domain=DOMAIN,
            step=step,
            return_url=RETURN_URL,
        )
        stream = deployment.stream(reception)
        yield self._told(f"provider:{PROVIDER}", story, OPERATOR, (PROVIDER,), (stream, asked))
        yield from self._session(iccid, script)
        back = deployment.DeploymentReturned(status="00")
        yield self._told("phone", story, OPERATOR, (PROVIDER,), (stream, back))

    def _creates(self, iccid: str) -> dict[int, Fact]:
        created = card.SecurityDomainCreated(domain=DOMAIN, parent=ISD, privileges="80", life_cycle="SELECTABLE")
        return {2: created, 3: self._put(iccid, 1, provisional=True)}

    def _put(self, iccid: str, key_version: int, *, provisional: bool = False) -> card.KeysPut:
        return card.KeysPut(
            domain=DOMAIN,
            key_version=key_version,
            check_values=(self._hex(3), self._hex(3), self._hex(3)),
            provisional=provisional,
            key=_domain_key(iccid, key_version),
        )

    def _keys_rotated(self, iccid: str, story: str, number: int) -> Iterator[Told]:
        """The provider replaces the provisional keys by its own."""
        stream, put = card.stream(iccid), self._put(iccid, 2)
        of_provider = f"provider:{PROVIDER}", story, PROVIDER, (OPERATOR,)
        handed_out = card.ProvisionalKeysHandedOut(domain=DOMAIN, key_version=1, provider=PROVIDER)
        yield self._told(*of_provider, (stream, handed_out))
        shared = card.KeysShared(domain=DOMAIN, key_version=2, check_values=put.check_values[:2], provider=PROVIDER)
        yield self._told(*of_provider, (stream, shared))
        provisional, reception = _domain_key(iccid, 1), f"20261121{number:08}"
        script = Script(PROVIDER, reception, story, DOMAIN, provisional, 1, PUT_KEYS, {1: put})
        yield self._delegated(iccid, script)
        yield from self._session(iccid, script)
        gone = card.ProvisionalKeysDestroyed(domain=DOMAIN, key_version=1, key=provisional)
        yield self._told("system:provisional-keys", story, PROVIDER, (OPERATOR,), (stream, gone))

    def _issued(self, iccid: str, number: int) -> Iterator[Told]:
        """From the application at the counter to the destruction of the authority's copies."""
        subject = str(UUID(bytes=self._random.randbytes(16), version=4))
        stream, code = credential.stream(subject), access_code.stream(self._hex(32))
        at_counter = f"terminal:{TERMINAL}", subject, MUNICIPALITY, (PROVIDER, OPERATOR)
        applied = credential.CredentialApplied(
            subject=subject,
            provider=PROVIDER,
            terminal=TERMINAL,
            municipality=MUNICIPALITY,
            iccid=iccid,
            applicant=f"公的 {number:06}",
            document_sha256=self._hex(32),
        )
        yield self._told(*at_counter, (stream, applied))
        verified = credential.MainCertificateVerified(subject=subject, serial=self._hex(20), revocation_as_of=self._now)
        yield self._told(*at_counter, (stream, verified))
        issued = credential.CredentialIssued(
            subject=subject,
            authority=AUTHORITY,
            authentication_serial=self._hex(20),
            signature_serial=self._hex(20),
            authentication_certificate_sha256=self._hex(32),
            signature_certificate_sha256=self._hex(32),
        )
        slip = access_code.AccessCodeHandedOut(credential=subject, expires_at=self._now + timedelta(days=1), tries=5)
        yield self._told(*at_counter, (stream, issued), (stream, credential.SlipHandedOut()), (code, slip))
        at_provider = f"provider:{PROVIDER}", subject, PROVIDER, (MUNICIPALITY,)
        accepted = access_code.AccessCodeAccepted()
        yield self._told(*at_provider, (code, accepted), (stream, credential.HolderAuthenticated()))
        yield from self._written(iccid, subject, stream, f"20261121{number:08}")
        copies = [
            credential.KeyCopyDestroyed(kind=kind, receipt_sha256=self._hex(32))
            for kind in (credential.SIGNATURE, credential.AUTHENTICATION)
        ]
        facts: list[Fact] = [*copies, credential.CredentialActivated()]
        of_authority = f"authority:{AUTHORITY}", subject, PROVIDER, (MUNICIPALITY,)
        yield self._told(*of_authority, *((stream, fact) for fact in facts))

    def _written(self, iccid: str, subject: str, stream: str, reception: str) -> Iterator[Told]:
        personalized = card.ApplicationPersonalized(application=APPLICATION, domain=DOMAIN)
        does = {len(PERSONALIZE): personalized}
        script = Script(PROVIDER, reception, subject, DOMAIN, _domain_key(iccid, 2), 2, PERSONALIZE, does)
        yield self._delegated(iccid, script)
        follower = "system:issuance", subject, PROVIDER, (MUNICIPALITY,)
        yield self._told(*follower, (stream, credential.PersonalizationDelegated(reception=reception)))
        yield from self._session(iccid, script)
        yield self._told(*follower, (stream, credential.CredentialWritten(reception=reception)))

    # One delegation

    def _delegated(self, iccid: str, script: Script) -> Told:
        accepted = delegation.DelegationAccepted(
            provider=script.party,
            operator=OPERATOR,
            reception=script.reception,
            iccid=iccid,
            domain=script.domain,
            correlation=script.correlation,
            generated_at=f"{self._now:%Y%m%d%H%M%S}",
            received_at=self._now.replace(microsecond=0),
            commands=tuple(
                delegation.DelegatedCommand(order=order, header=header, length=length)
                for order, (header, length) in enumerate(script.commands, 1)
            ),
            content_index=self._hex(32),
            expires_at=self._now + timedelta(minutes=15),
        )
        actor = f"operator:{OPERATOR}" if script.party == OPERATOR else f"provider:{PROVIDER}"
        stream = delegation.stream(script.party, script.reception)
        return self._in_script(script, actor, "", (stream, accepted))

    def _session(self, iccid: str, script: Script) -> Iterator[Told]:
        """START to END: each request brings an answer of the card and takes the next command along."""
        stream = session.stream(script.party, script.reception)
        started = session.SessionStarted(
            provider=script.party,
            reception=script.reception,
            iccid=iccid,
            domain=script.domain,
            key=script.key,
            key_version=script.key_version,
            return_url=RETURN_URL,
            token_sha256=self._hex(32),
            expires_at=self._now + PATIENCE,
        )
        yield self._in_script(script, "phone", "/0", (stream, started))
        requests, notified = count(1), 0
        answered: list[tuple[str, Fact]] = [(stream, session.CardConnected())]
        for exchange in _exchanges(script):
            sent = stream, self._sent(exchange)
            yield self._in_script(script, "phone", f"/{next(requests)}", *answered[:1], sent, *answered[1:])
            answered = [(stream, self._answer(exchange, script.key_version))]
            if exchange.order in script.does:
                answered.append((card.stream(iccid), script.does[exchange.order]))
            if exchange.order - NOTICE_LAG > notified:
                notified += 1
                yield self._notified(script, notified)
        gone = stream, session.DisconnectSent(expires_at=self._now + PATIENCE)
        yield self._in_script(script, "phone", f"/{next(requests)}", *answered[:1], gone, *answered[1:])
        for order in range(notified + 1, len(script.commands) + 1):
            yield self._notified(script, order)
        signature = base64.b64encode(self._random.randbytes(64)).decode()
        ended = session.SessionEnded(status="00", mas_sign=signature, request_sha256=self._hex(32))
        done = delegation.DelegationEnded(status="00", executed=len(script.commands))
        results = delegation.stream(script.party, script.reception)
        facts = (stream, session.Disconnected()), (stream, ended), (results, done)
        yield self._in_script(script, "phone", f"/{next(requests)}", *facts)

    def _sent(self, exchange: Exchange) -> session.CommandSent:
        secured = exchange.order > 0
        return session.CommandSent(
            step=exchange.step,
            order=exchange.order,
            header=exchange.header,
            length=exchange.length + (14 if secured else 6),
            wire_sha256=self._hex(32),
            expires_at=self._now + PATIENCE,
            host_challenge=self._hex(8) if exchange.header.startswith("8050") else "",
            counter=exchange.order,
            chaining=self._hex(16) if secured or exchange.header.startswith("8482") else "",
        )

    def _answer(self, exchange: Exchange, key_version: int) -> session.ResponseReceived:
        challenge = exchange.header.startswith("8050")
        return session.ResponseReceived(
            step=exchange.step,
            order=exchange.order,
            status_word="9000",
            length=exchange.answer,
            wire_sha256=self._hex(32),
            card_challenge=self._hex(8) if challenge else "",
            key_version=key_version if challenge else 0,
            verified=exchange.order > 0,
        )

    def _notified(self, script: Script, order: int) -> Told:
        stream = delegation.stream(script.party, script.reception)
        notified = delegation.ResultNotified(order=order, acknowledged=True, attempts=1)
        return self._in_script(script, "system:notification", "", (stream, notified))

    def _in_script(self, script: Script, actor: str, request: str, *facts: tuple[str, Fact]) -> Told:
        others = () if script.party == OPERATOR else (OPERATOR,)
        command = f"{script.party}/{script.reception}{request}"
        return self._told(actor, script.correlation, script.party, others, *facts, command=command)

    def _told(
        self,
        actor: str,
        story: str,
        tenant: str,
        tenants: tuple[str, ...],
        *facts: tuple[str, Fact],
        command: str = "",
    ) -> Told:
        """The role follows from the actor; what the system does by itself has no request."""
        role = actor.partition(":")[0]
        context = Context(
            actor=actor,
            role="clerk" if role == "terminal" else role,
            tenant=tenant,
            tenants=tenants,
            correlation=story,
            request="" if role == "system" else self._hex(8),
            command=command,
        )
        return Told(context, facts)


INSTALLS: Mapping[int, Fact] = {
    11: card.LoadFileLoaded(load_file=LOAD_FILE, domain=DOMAIN, sha256=LOAD_FILE_SHA256, size=LOAD_FILE_SIZE),
    12: card.ApplicationInstalled(
        application=APPLICATION,
        module=MODULE,
        load_file=LOAD_FILE,
        domain=DOMAIN,
        privileges="00",
        life_cycle="SELECTABLE",
    ),
}


def iccid_of(number: int) -> str:
    """The card of a story."""
    digits = f"898110{number:012}"
    return digits + luhn_digit(digits)


def registered(iccid: str) -> card.CardRegistered:
    """As the production file has it."""
    return card.CardRegistered(
        iccid=iccid,
        iin="8981100F",
        cin=f"0{iccid}",
        operator=OPERATOR,
        profile="uicc-128k",
        diversification=f"0{iccid}",
        isd=ISD,
        key_set=KEY_SET,
        key_version=1,
        key=_issuer_key(iccid),
    )


class Filler:
    """Records a history in large transactions; while one is written the next is made."""

    batch = BATCH

    def __init__(self, recorder: Recorder, vault: SoftwareVault, events: Iterator[Event]) -> None:
        self._recorder = recorder
        self._vault = vault
        self._mapper = JsonMapper(FACTS, vault)
        self._events = events

    def fill(self, number: int, progress: Progress) -> None:
        """The next `number` events."""
        task, left = progress.add_task("events", total=number), number
        with ThreadPoolExecutor(1) as writer:
            written: list[Future[Sequence[int]]] = []
            while left:
                append = self._next(min(self.batch, left))
                for before in written:
                    progress.advance(task, len(before.result()))
                written = [writer.submit(self._write, append)]
                left -= len(append.events)
            for last in written:
                progress.advance(task, len(last.result()))

    def _next(self, number: int) -> Append:
        return self._append(list(islice(self._events, number)))

    def _append(self, events: Sequence[Event]) -> Append:
        stored = [self._mapper.to_stored_event(event) for event in events]
        return Append(stored, put_index=[row for event in events for row in self._index_rows(event)])

    def _index_rows(self, event: Event) -> list[IndexRow]:
        """As the counter puts them: from card and main certificate to the credential."""
        match event.fact:
            case credential.CredentialApplied(subject=subject, iccid=iccid):
                value = self._vault.blind_index("iccid", iccid)
            case credential.MainCertificateVerified(subject=subject, serial=serial):
                value = self._vault.blind_index("main-certificate", serial)
            case _:
                return []
        return [IndexRow(value, event.originator_id, subject)]

    def _write(self, append: Append) -> Sequence[int]:
        return self._recorder.insert_events(append.events, put_index=append.put_index)


def _exchanges(script: Script) -> Iterator[Exchange]:
    yield from OPENING
    for order, (header, length) in enumerate(script.commands, 1):
        yield Exchange("COMMAND", order, header, length, 10 if header.startswith("80e2") and order > 1 else 26)


def _issuer_key(iccid: str) -> str:
    return f"{MASTER_KEY}?kdf3=0{iccid}"


def _domain_key(iccid: str, key_version: int) -> str:
    return f"card/{iccid}/{DOMAIN}/{key_version:02}"
