"""The Mobile Access Server's story: a party delegates commands, the phone carries them to the card one by one.

`delegate` is interface 2 of MC-05, `link` is interface 3. Each exchange of a session is one commit: what came back,
what it means for the card, and what goes out next (`tsm.flows.exchange`). Nothing else is remembered, so the next
request may arrive at another process.

A session is bound by a cookie, `<spId>.<rcptNum>.<step>.<token>`. The step says which of our answers the phone holds. A
request for the step before the last is a repetition, for the phone did not hear our answer: with the same content it
gets the same bytes, and the card gets nothing twice. Any other step is out of order.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import NamedTuple

import msgspec

from tsm.application import Change, Loaded, Tsm, decided
from tsm.channels.scp03 import max_command_data
from tsm.errors import ErrorCode, TsmError
from tsm.flows.domain_keys import refuse_destroyed_keys, refuse_lost_keys, refuse_other_keys
from tsm.flows.exchange import LEVEL, Exchange, Random, command_name
from tsm.flows.notification import notification_payload
from tsm.flows.on_hold import asked_by, refuse_on_hold
from tsm.globalplatform.apdu import CommandApdu
from tsm.keys.vault import SoftwareVault, verify_signature
from tsm.mas.engine import delegable
from tsm.mas.launch import signed_return_url
from tsm.mas.messages import (
    DATE_FORMAT,
    DelegationRequest,
    DelegationResponse,
    LinkRequest,
    LinkResponse,
    Process,
    Return,
)
from tsm.mas.status import Status
from tsm.model import card as cards
from tsm.model import credential as credentials
from tsm.model import delegation as delegations
from tsm.model import operator as operators
from tsm.model import service_provider as providers
from tsm.model import session as sessions
from tsm.model.card import Card
from tsm.model.delegation import DelegatedCommand, Delegation, DelegationAccepted
from tsm.model.event import Context
from tsm.model.party import WITHDRAWN
from tsm.model.session import Session, SessionStarted
from tsm.model.standing import Use, UseRefused

FIRST_POLL, LONGEST_POLL = 0.005, 0.04  # seconds between looks for acknowledgements: doubled each time
TOKEN_SIZE = 16  # octets
BRINGS_KEYS = ("d8", "e2")  # INS: PUT KEY, STORE DATA
ANSWER = "answer"  # the payload that holds a session's last answer

Clock = Callable[[], datetime]
log = logging.getLogger(__name__)


class Limits(msgspec.Struct, frozen=True):
    """How long the server waits for others."""

    delegation_seconds: float = 900.0  # for START after DELEGATE
    session_idle_seconds: float = 60.0  # for the phone's next message
    notify_limit_seconds: float = 5.0  # for the last NOTIFY-ACK before END


class Party(NamedTuple):
    """Whoever may delegate: an operator or a service provider."""

    id: str
    role: str
    public_key: bytes
    return_urls: tuple[str, ...]
    domain: str  # AID of a provider's security domain; empty for an operator, whose domain is the issuer's

    def domain_on(self, card: Card) -> str:
        """The party's own domain on a card; FORBIDDEN for the card of another operator, or the issuer's domain."""
        if self.role == "operator" and card.operator != self.id:
            raise TsmError(ErrorCode.FORBIDDEN, "another operator's card")
        if self.domain == card.isd:
            raise TsmError(ErrorCode.FORBIDDEN, "the issuer's domain is the operator's")
        return self.domain or card.isd


class Cookie(NamedTuple):
    """What binds the requests of one session."""

    provider: str
    reception: str
    step: int
    token: str

    def encode(self) -> str:
        return f"{self.provider}.{self.reception}.{self.step}.{self.token}"

    @classmethod
    def parse(cls, text: str) -> "Cookie":
        """UNKNOWN_SESSION for anything that this server never handed out."""
        try:
            provider, reception, step, token = text.split(".")
            return cls(provider, reception, int(step), token)
        except ValueError:
            raise TsmError(ErrorCode.UNKNOWN_SESSION, "no session cookie") from None


class Answer(NamedTuple):
    """What goes back to the phone."""

    body: bytes
    cookie: str  # empty with END: the session is over
    return_url: str = ""  # with END: where the browser may go, for the party signed it


class KeptAnswer(msgspec.Struct, frozen=True):
    """The last answer of a session, as a repeated request must get it; lies sealed beside the log."""

    request_sha256: str
    body: bytes
    cookie: str


class SessionService:
    """Interfaces 2 and 3 of MC-05 over the log and the vault."""

    def __init__(
        self,
        tsm: Tsm,
        vault: SoftwareVault,
        mas_url: str,
        clock: Clock,
        random: Random,
        limits: Limits = Limits(),  # noqa: B008  frozen
    ) -> None:
        """`mas_url` is our own address of interface 3, as parties put it into LAUNCH and sign it."""
        self.mas_url = mas_url
        self._tsm = tsm
        self._vault = vault
        self._clock = clock
        self._random = random
        self._limits = limits
        self._idle = timedelta(seconds=limits.session_idle_seconds)

    # Interface 2

    def delegate(
        self, request: DelegationRequest, *, party: str, iccid: str, correlation: str = "", request_id: str = ""
    ) -> DelegationResponse:
        """DELEGATE: accept a script of `party` for a card. The same request again gets the same answer.

        Errors: FORBIDDEN for another party's spId or card, RECEPTION_REUSED, UNKNOWN_SERVICE_PROVIDER, UNKNOWN_CARD,
        UNKNOWN_SECURITY_DOMAIN, UNKNOWN_KEY when the vault lacks the domain's keys or those that PUT KEY brings,
        KEY_REFUSED when it has others, CARD_AUTHENTICATION_EXHAUSTED, CARD_ON_HOLD for a provider, INVALID_INPUT for a
        command that may not be delegated, and WRONG_ORDER in the story of a credential that is closed.
        """
        if request.provider != party:
            raise TsmError(ErrorCode.FORBIDDEN, "another party's spId")
        return decided(lambda: self._delegate(request, iccid, correlation, request_id))

    def _delegate(
        self, request: DelegationRequest, iccid: str, correlation: str, request_id: str
    ) -> DelegationResponse:
        stream = delegations.stream(request.provider, request.reception)
        loaded = self._tsm.load(stream, delegations.evolve)
        content_index = self._content_index(request, iccid)
        if loaded.state is not None:
            return acceptance(loaded.state.refuse_other_content(content_index).accepted)
        now, party, card = self._clock(), self._party(request.provider), self._tsm.card_of(iccid)
        commands = [delegable(apdu, max_command_data(LEVEL)) for apdu in request.commands]
        domain = card.domain(party.domain_on(card))
        card.refuse_exhausted(domain.aid)
        refuse_lost_keys(self._vault, domain)
        refuse_other_keys(self._vault, card, domain, commands)
        asked = UseRefused(use=Use.DELEGATE, provider=party.id)
        free = self._free(party, iccid, asked, asked_by(party.id, request_id))
        rests_on = [*self._open_story(request.provider, correlation), *free]
        accepted = DelegationAccepted(
            provider=request.provider,
            operator=card.operator,
            reception=request.reception,
            iccid=iccid,
            domain=domain.aid,
            correlation=correlation or f"{request.provider}-{request.reception}",
            generated_at=request.generated_at,
            received_at=now.replace(microsecond=0),
            commands=tuple(
                DelegatedCommand(order=order, header=command.header.hex(), length=len(command.data))
                for order, command in enumerate(commands, 1)
            ),
            content_index=content_index,
            expires_at=now + timedelta(seconds=self._limits.delegation_seconds),
        )
        self._tsm.commit(
            Change(stream, loaded.version, [accepted]),
            *rests_on,
            context=context_of(accepted, f"{party.role}:{party.id}", party.role, request_id),
            occurred_at=now,
            put_payloads={(stream, command_name(order)): apdu for order, apdu in enumerate(request.commands, 1)},
        )
        return acceptance(accepted)

    def _open_story(self, provider: str, story: str) -> list[Change]:
        """What delegations of a credential's provider in its story rest on; WRONG_ORDER once it is closed."""
        stream = credentials.stream(story)
        loaded = self._tsm.state_at(stream, credentials.evolve, unseals={})
        if loaded.state is None or loaded.state.applied.provider != provider:
            return []
        loaded.state.refuse_closed()
        return [Change(stream, loaded.version, [])]

    def _free(self, party: Party, iccid: str, asked: UseRefused, by: Context) -> list[Change]:
        """On what it rests that a party may have this card: CARD_ON_HOLD. Its operator, who locks and deletes, may."""
        return [] if party.role == "operator" else [refuse_on_hold(self._tsm, iccid, asked, by)]

    def _content_index(self, request: DelegationRequest, iccid: str) -> str:
        parts = (iccid.encode(), request.generated_at.encode(), *request.commands)
        content = sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).hexdigest()
        return self._vault.blind_index("delegation", content)

    # Interface 3

    def link(self, request: LinkRequest, cookie: str = "", request_id: str = "") -> Answer:
        """Answer one message of the common app.

        Errors leave the session as it was. At START: UNKNOWN_SERVICE_PROVIDER, UNKNOWN_RECEPTION, BAD_SIGNATURE,
        RECEPTION_CLOSED, WRONG_ORDER, CARD_AUTHENTICATION_EXHAUSTED, CARD_ON_HOLD. Later: UNKNOWN_SESSION,
        SESSION_EXPIRED, WRONG_ORDER, INVALID_INPUT. Whatever goes wrong with the card is no error here: DISCONNECT and
        END follow, and the signed status says what it was. So it is with a hold that comes later.
        """
        content = content_sha256(request)
        if request.process is Process.START:
            return decided(lambda: self._start(request, content, request_id))
        return decided(lambda: self._continue(request, content, cookie, request_id))

    async def acknowledgements(self, request: LinkRequest, cookie: str) -> None:
        """Before END: wait until the party has acknowledged all results, `notify_limit_seconds` at most.

        Nobody but the session's own phone can make the server wait: UNKNOWN_SESSION.
        """
        bound = Cookie.parse(cookie)
        self._bound_session(bound, request)
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._limits.notify_limit_seconds, FIRST_POLL
        while self._awaits_acknowledgements(bound) and loop.time() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)

    def under_way(self, cookie: str) -> tuple[Session, datetime]:
        """The session that a phone's cookie opens, and when it was answered last.

        UNKNOWN_SESSION; SESSION_EXPIRED; WRONG_ORDER for an older cookie, or when the session has ended.
        """
        bound = Cookie.parse(cookie)
        _, session = self._bound_session(bound, LinkRequest(Process.RESPONSE))
        if session.expired or self._clock() >= session.expires_at:
            raise TsmError(ErrorCode.SESSION_EXPIRED, "silent for too long")
        if session.over or bound.step != session.answers:
            raise TsmError(ErrorCode.WRONG_ORDER, f"step {bound.step} of {session.answers}")
        return session, session.expires_at - self._idle

    def _awaits_acknowledgements(self, bound: Cookie) -> bool:
        session, delegation = self._session(bound).state, self._delegation(bound).state
        if session is None or delegation is None or session.answered != Return.DISCONNECT.name or session.failed:
            return False
        return len(delegation.notified) < session.executed

    def _start(self, request: LinkRequest, content: str, request_id: str) -> Answer:
        """START: the party's signature opens the session (MC-05 2.3, authentication of the service provider)."""
        party = self._party(request.provider)
        bound = Cookie(request.provider, request.reception, 0, self._random(TOKEN_SIZE).hex())
        found, loaded, now = self._delegation(bound), self._session(bound), self._clock()
        delegation = found.state
        if delegation is None:
            raise TsmError(ErrorCode.UNKNOWN_RECEPTION, request.reception)
        verify = partial(verify_signature, party.public_key)
        return_url = signed_return_url(
            verify, party.id, request.reception, party.return_urls, self.mas_url, request.signature
        )
        if loaded.state is not None and loaded.state.answers == 1 and not loaded.state.over:
            return self._repeated(loaded.state, bound, content)
        accepted = delegation.refuse_unless_open(now).accepted
        if loaded.state is not None:
            raise TsmError(ErrorCode.WRONG_ORDER, "the session has started")
        story = self._open_story(request.provider, accepted.correlation)
        context = context_of(accepted, "phone", "phone", request_id, step=0)
        asked = UseRefused(use=Use.START, provider=party.id, reception=request.reception)
        free = self._free(party, accepted.iccid, asked, context)
        record = self._tsm.load(cards.stream(accepted.iccid), cards.evolve)
        assert record.state is not None  # noqa: S101  DELEGATE found it
        domain = record.state.refuse_exhausted(accepted.domain).domain(accepted.domain)
        if domain.aid == record.state.isd:  # a provider that shared other keys since may share again
            refuse_destroyed_keys(self._vault, record.state, domain.aid, self._commands_with_keys(bound, delegation))
        started = SessionStarted(
            provider=request.provider,
            reception=request.reception,
            iccid=accepted.iccid,
            domain=accepted.domain,
            key=domain.key,
            key_version=domain.key_version,
            return_url=return_url,
            token_sha256=token_sha256(bound.token),
            expires_at=now + self._idle,
        )
        answer = kept_answer(content, bound, LinkResponse(Return.CONNECT))
        stream = sessions.stream(bound.provider, bound.reception)
        self._tsm.commit(
            Change(stream, loaded.version, [started]),
            Change(delegations.stream(bound.provider, bound.reception), found.version, []),  # still open
            Change(cards.stream(accepted.iccid), record.version, []),
            *story,
            *free,
            context=context,
            occurred_at=now,
            put_payloads={(stream, ANSWER): msgspec.msgpack.encode(answer)},
        )
        return Answer(answer.body, answer.cookie)

    def _commands_with_keys(self, bound: Cookie, delegation: Delegation) -> list[CommandApdu]:
        """The script, if it may bring keys; most bring none, and are not read for that."""
        commands = delegation.accepted.commands
        if not any(command.header[2:4] in BRINGS_KEYS for command in commands):
            return []
        stream = delegations.stream(bound.provider, bound.reception)
        apdus = (self._tsm.payload(stream, command_name(command.order)) for command in commands)
        return [CommandApdu.parse(apdu) for apdu in apdus if apdu is not None]

    def _continue(self, request: LinkRequest, content: str, cookie: str, request_id: str) -> Answer:
        bound = Cookie.parse(cookie)
        loaded, session = self._bound_session(bound, request)
        if bound.step == session.answers - 1:
            return self._repeated(session, bound, content)
        now = self._clock()
        if session.expired or now >= session.expires_at:
            raise TsmError(ErrorCode.SESSION_EXPIRED, "silent for too long")
        if bound.step != session.answers:
            raise TsmError(ErrorCode.WRONG_ORDER, f"step {bound.step} of {session.answers}")
        delegation = self._delegation(bound)
        assert delegation.state is not None  # noqa: S101  START found it
        exchange = Exchange(
            self._tsm,
            self._vault,
            self._random,
            self._idle,
            request,
            content,
            now,
            session,
            delegation.state,
        )
        response = exchange.answer()
        answer = kept_answer(content, bound, response)
        self._commit(exchange, loaded, delegation, answer, request_id)
        if response.process is Return.END:
            return Answer(answer.body, "", session.started.return_url)
        return Answer(answer.body, answer.cookie)

    def _commit(
        self,
        exchange: Exchange,
        session: Loaded[Session],
        delegation: Loaded[Delegation],
        answer: KeptAnswer,
        request_id: str,
    ) -> None:
        """All that one exchange changes, at once."""
        started, accepted = exchange.session.started, exchange.delegation.accepted
        stream = sessions.stream(started.provider, started.reception)
        changes = [Change(stream, session.version, exchange.facts), *exchange.rests_on]
        if exchange.delegation_facts:
            of_delegation = delegations.stream(started.provider, started.reception)
            changes.append(Change(of_delegation, delegation.version, exchange.delegation_facts))
        if exchange.card_facts and started.domain in exchange.card.domains:  # else it was deleted meanwhile
            changes.append(Change(cards.stream(started.iccid), exchange.card_record.version, exchange.card_facts))
        if stream not in exchange.drop:
            exchange.put[(stream, ANSWER)] = msgspec.msgpack.encode(answer)
        self._tsm.commit(
            *changes,
            context=context_of(accepted, "phone", "phone", request_id, step=exchange.session.answers),
            occurred_at=exchange.at,
            put_payloads=exchange.put,
            drop_payloads=exchange.drop,
        )

    def _bound_session(self, bound: Cookie, request: LinkRequest) -> tuple[Loaded[Session], Session]:
        """The session that the cookie opens; the token is compared in constant time."""
        if request.provider not in ("", bound.provider) or request.reception not in ("", bound.reception):
            raise TsmError(ErrorCode.UNKNOWN_SESSION, "the cookie is of another session")
        loaded = self._session(bound)
        if loaded.state is None:
            raise TsmError(ErrorCode.UNKNOWN_SESSION, "never started")
        if not hmac.compare_digest(loaded.state.started.token_sha256, token_sha256(bound.token)):
            raise TsmError(ErrorCode.UNKNOWN_SESSION, "another token")
        return loaded, loaded.state

    def _repeated(self, session: Session, bound: Cookie, content: str) -> Answer:
        """The answer that was given before; WRONG_ORDER when the request was another."""
        if session.ended is not None:
            if session.ended.request_sha256 == content:
                body = LinkResponse(Return.END, mas_sign=session.ended.mas_sign).encode()
                return Answer(body, "", session.started.return_url)
            raise TsmError(ErrorCode.WRONG_ORDER, "the session has ended")
        if session.expired:
            raise TsmError(ErrorCode.SESSION_EXPIRED, "silent for too long")
        payload = self._tsm.payload(sessions.stream(bound.provider, bound.reception), ANSWER)
        kept = msgspec.msgpack.decode(payload, type=KeptAnswer) if payload else None
        if kept is None or kept.request_sha256 != content:
            raise TsmError(ErrorCode.WRONG_ORDER, "answered already, with other content")
        return Answer(kept.body, kept.cookie)

    # Expiry

    def expire(self, provider: str, reception: str) -> datetime | None:
        """End what nobody continued in time; returns when to look again, or None when it is over.

        A session ends as SESSION_EXPIRED, and its party is told; one that had failed before keeps that status, which
        its party knows. A delegation that was never started just ends.
        """
        return decided(lambda: self._expire(Cookie(provider, reception, 0, "")))

    def _expire(self, bound: Cookie) -> datetime | None:
        session, delegation, now = self._session(bound), self._delegation(bound), self._clock()
        if delegation.state is None or delegation.state.ended is not None:
            return None
        accepted = delegation.state.accepted
        deadline = session.state.expires_at if session.state else accepted.expires_at
        if now < deadline:
            return deadline
        of_session = sessions.stream(bound.provider, bound.reception)
        of_delegation = delegations.stream(bound.provider, bound.reception)
        status, executed, expired, put = Status.SESSION_EXPIRED, 0, [], {}
        if session.state is not None:
            expired, executed = sessions.expire(session.state), session.state.executed
            if session.state.failed is not None:
                status = Status(session.state.failed.status)
            else:
                put = notification_payload(accepted, delegations.FAILURE_NOTICE, status)
        self._tsm.commit(
            Change(of_session, session.version, expired),
            *self._left_with_card(session.state),
            Change(of_delegation, delegation.version, delegations.end(delegation.state, status, executed)),
            context=context_of(accepted, "system:expiry", "system"),
            occurred_at=now,
            put_payloads=put,
            drop_payloads=[of_delegation, of_session],
        )
        return None

    def _left_with_card(self, session: Session | None) -> list[Change]:
        """The card's record says that a command was sent to it whose answer never came."""
        if session is None:
            return []
        started = session.started
        card = self._tsm.load(cards.stream(started.iccid), cards.evolve)
        facts = cards.unanswered(started.domain, session.unanswered)
        is_there = card.state is not None and started.domain in card.state.domains
        return [Change(cards.stream(started.iccid), card.version, facts)] if facts and is_there else []

    # What is loaded

    def _session(self, bound: Cookie) -> Loaded[Session]:
        return self._tsm.load(sessions.stream(bound.provider, bound.reception), sessions.evolve)

    def _delegation(self, bound: Cookie) -> Loaded[Delegation]:
        return self._tsm.load(delegations.stream(bound.provider, bound.reception), delegations.evolve)

    def _party(self, party: str) -> Party:
        """UNKNOWN_SERVICE_PROVIDER for a party that is not enrolled, or not any more: nothing of it starts then."""
        provider = self._tsm.load(providers.stream(party), providers.evolve).state
        if provider is not None and provider.certificate_fingerprint != WITHDRAWN:
            key = bytes.fromhex(provider.public_key)
            return Party(party, "provider", key, provider.return_urls, provider.domain)
        operator = self._tsm.load(operators.stream(party), operators.evolve).state
        if operator is not None and operator.certificate_fingerprint != WITHDRAWN:
            return Party(party, "operator", bytes.fromhex(operator.public_key), operator.return_urls, "")
        raise TsmError(ErrorCode.UNKNOWN_SERVICE_PROVIDER, party)


def acceptance(accepted: DelegationAccepted) -> DelegationResponse:
    """The answer to DELEGATE: the first and every later one."""
    return DelegationResponse(Status.OK, "", accepted.received_at.strftime(DATE_FORMAT))


def kept_answer(content: str, bound: Cookie, response: LinkResponse) -> KeptAnswer:
    """An answer with the cookie that the next request brings."""
    return KeptAnswer(content, response.encode(), bound._replace(step=bound.step + 1).encode())


def context_of(
    accepted: DelegationAccepted, actor: str, role: str, request_id: str = "", step: int | None = None
) -> Context:
    """Who acts, for whom: the party owns what happens, and it concerns the card's operator."""
    command = f"{accepted.provider}/{accepted.reception}"
    return Context(
        actor=actor,
        role=role,
        tenant=accepted.provider,
        tenants=() if accepted.operator == accepted.provider else (accepted.operator,),
        correlation=accepted.correlation,
        request=request_id,
        command=command if step is None else f"{command}/{step}",
    )


def content_sha256(request: LinkRequest) -> str:
    """What makes two requests the same: their content, however they were written."""
    return sha256(request.encode()).hexdigest()


def token_sha256(token: str) -> str:
    return sha256(token.encode()).hexdigest()
