"""One exchange of a session: what came back from the phone, what it means, and what goes out next.

An exchange only collects: facts for the session, for the delegation and for the card, and the payloads to put and to
drop. `tsm.flows.session` commits them together or not at all. The order of the messages is the table of
`tsm.mas.engine`; here is what each of them does.

The channel is SCP03 at security level 0x33: commands and responses are encrypted and authenticated, so the phone
carries what it can neither read nor change. Its keys are derived anew in each exchange from what the facts say.
"""

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256

import msgspec

from tsm.application import Change, Loaded, Tsm
from tsm.channels.scp03 import FULL, Scp03Channel, carries_protection, external_authenticate
from tsm.errors import ErrorCode, TsmError
from tsm.flows import audit
from tsm.flows.content import card_facts, evolved
from tsm.flows.notification import notification_payload
from tsm.flows.on_hold import hold_of, is_on_hold, rests_on
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, StatusWord
from tsm.globalplatform.commands import InitializeUpdate, Select
from tsm.globalplatform.responses import InitializeUpdateResponse
from tsm.keys.primitives import SessionKeys
from tsm.keys.vault import SoftwareVault
from tsm.mas.engine import Step, authenticate_card, expect, next_step, refusal
from tsm.mas.launch import mas_signed
from tsm.mas.messages import UICC, LinkRequest, LinkResponse, Process, Return
from tsm.mas.signing import MAS_SIGNING_KEY
from tsm.mas.status import Status
from tsm.model import card as cards
from tsm.model import delegation as delegations
from tsm.model import session as sessions
from tsm.model.card import Card, KeysPut, key_reference
from tsm.model.delegation import Delegation
from tsm.model.event import Fact
from tsm.model.session import (
    CardConnected,
    CommandSent,
    Disconnected,
    DisconnectSent,
    ResponseReceived,
    Session,
    SessionEnded,
    SessionFailed,
    goes_on,
)

LEVEL = FULL  # C-MAC, C-DECRYPTION, R-MAC, R-ENCRYPTION: the phone can neither read nor change
LOAD, STORE_DATA, LAST_BLOCK = 0xE8, 0xE2, 0x80
CHALLENGE_SIZE = 8  # octets: SCP03 in S8 mode
LAST_KEY_VERSION = 0x7F  # GPCS v2.3.1 section 11.8.2.3

Random = Callable[[int], bytes]
log = logging.getLogger(__name__)


@dataclass
class Exchange:
    """One request to a session under way, and all that it changes."""

    tsm: Tsm
    vault: SoftwareVault
    random: Random
    idle: timedelta
    request: LinkRequest
    request_sha256: str
    at: datetime
    session: Session
    delegation: Delegation
    facts: list[Fact] = field(default_factory=list)  # the session's
    delegation_facts: list[Fact] = field(default_factory=list)
    card_facts: list[Fact] = field(default_factory=list)
    put: dict[tuple[str, str], bytes] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)
    rests_on: list[Change] = field(default_factory=list)

    def answer(self) -> LinkResponse:
        """Decide; WRONG_ORDER or INVALID_INPUT before anything is collected."""
        possible = expect(Return[self.session.answered], self.request.process)
        response = MESSAGES[self.request.process](self)
        assert response.process in possible  # noqa: S101  the handlers follow the table
        return response

    @cached_property
    def card_record(self) -> Loaded[Card]:
        """Loaded only by the exchanges that need it."""
        return self.tsm.load(cards.stream(self.session.started.iccid), cards.evolve)

    @property
    def card(self) -> Card:
        assert self.card_record.state is not None  # noqa: S101  DELEGATE found it
        return self.card_record.state

    # The phone's messages

    def connect_result(self) -> LinkResponse:
        if self.request.status != Status.OK or self.request.card != UICC:
            self.fail(Status.CONNECT_FAILED)
            return self.end(Status.CONNECT_FAILED)
        self.facts.append(CardConnected())
        command = Select(bytes.fromhex(self.session.started.domain)).apdu()
        return self.send(Step.SELECT, command, command)

    def response(self) -> LinkResponse:
        sent = self.sent
        if self.request.status != Status.OK:  # the phone lost its card, or never got an answer from it
            self.card_facts += cards.unanswered(self.session.started.domain, self.session.unanswered)
            return self.stop(Status.CONNECT_FAILED, sent.order)
        if not self.request.status_word:
            raise TsmError(ErrorCode.INVALID_INPUT, "byRespSWAry")
        wire = self.request.data + self.request.status_word
        response = ResponseApdu.parse(wire)
        self.facts.append(
            ResponseReceived(
                step=sent.step,
                order=sent.order,
                status_word=f"{response.sw:04x}",
                length=len(wire),
                wire_sha256=sha256(wire).hexdigest(),
            )
        )
        try:
            return RESPONSES[Step(sent.step)](self, response)
        except TsmError as error:
            if error.code is not ErrorCode.UNKNOWN_KEY:
                raise
            # The keys were replaced meanwhile, or went with their domain: nobody can read the answer any more.
            log.warning("%s-%s: %s", self.session.started.provider, self.session.started.reception, error)
            self.card_facts += cards.unanswered(self.session.started.domain, self.session.unanswered)
            return self.stop(Status.CHANNEL_BROKEN, sent.order)

    def disconnect_result(self) -> LinkResponse:
        """Whether or not the phone managed, the session is over."""
        if self.request.status == Status.OK:
            self.facts.append(Disconnected())
        if self.session.failed is not None:
            return self.end(Status(self.session.failed.status))
        complete = self.delegation.acknowledged >= set(range(1, self.session.executed + 1))
        return self.end(Status.OK if complete else Status.NOT_ALL_ACKNOWLEDGED)

    # The card's answers

    def selected(self, response: ResponseApdu) -> LinkResponse:
        if not response.ok:
            return self.refused(response)
        return self.initialize(self.key_versions()[0])

    def initialize(self, key_version: int) -> LinkResponse:
        """INITIALIZE UPDATE, while the domain has failures left: sessions that began before count as well."""
        if self.card.is_exhausted(self.session.started.domain):
            return self.stop(Status.CARD_AUTH_EXHAUSTED)
        challenge = self.random(CHALLENGE_SIZE)
        command = InitializeUpdate(challenge, key_version).apdu()
        return self.send(Step.INITIALIZE_UPDATE, command, command, host_challenge=challenge.hex())

    def key_versions(self) -> list[int]:
        """The key versions that the domain may have, the likeliest first.

        That is the recorded one, and any later one that lies in the vault to be put: its PUT KEY may have been executed
        without our hearing of it. After a command whose outcome is unknown those come first, for the card may have
        kept the old keys beside the new.
        """
        started, vault = self.session.started, self.vault
        recorded, later = [started.key_version], range(started.key_version + 1, LAST_KEY_VERSION + 1)
        doubtful = started.domain in self.card.doubtful
        if not doubtful and self.session.key_version == 0:
            return recorded  # as always, unless the card says that it has no such keys
        pending = [v for v in later if vault.has(key_reference(started.iccid, started.domain, v))]
        return pending + recorded if doubtful else recorded + pending

    def keys_missing(self, response: ResponseApdu) -> LinkResponse:
        """The card, or its phone, says that there is no such key version: another may be there."""
        versions, asked = self.key_versions(), self.session.key_version
        untried = versions[versions.index(asked) + 1 :] if asked in versions else []
        return self.initialize(untried[0]) if untried else self.refused(response)

    def initialized(self, response: ResponseApdu) -> LinkResponse:
        """The card proves its keys; only then do we prove ours (GPC Amendment D 6.2.2)."""
        if response.sw == StatusWord.REFERENCED_DATA_NOT_FOUND:
            return self.keys_missing(response)
        if not response.ok:
            return self.refused(response)
        started = self.session.started
        try:
            answer = InitializeUpdateResponse.parse(response.data)
        except TsmError:  # no card answers so: it is not the card's failure, and takes nothing from its budget
            return self.stop(Status.CARD_AUTH_FAILED)
        self.facts[-1] = msgspec.structs.replace(
            self.facts[-1], card_challenge=answer.card_challenge.hex(), key_version=answer.key_version
        )
        keys = self.keys(answer.card_challenge)
        diversification = bytes.fromhex(self.card.diversification)
        try:
            authenticate_card(answer, diversification, self.session.key_version, keys.card_cryptogram())
        except TsmError as error:
            log.warning("%s-%s: %s", started.provider, started.reception, error)
            return self.stop(Status.WRONG_CARD) if error.code is ErrorCode.WRONG_CARD else self.unproven()
        self.note_counter(answer)
        command, chaining = external_authenticate(keys, LEVEL)
        return self.send(Step.EXTERNAL_AUTHENTICATE, command, command, chaining=chaining.hex())

    def note_counter(self, answer: InitializeUpdateResponse) -> None:
        """Where the sequence counter of these keys is, and where it was: it lies beside the card's stream."""
        if not answer.sequence_counter:
            return
        place = cards.stream(self.session.started.iccid), counter_name(self.session.started.domain)
        version, before = bytes([answer.key_version]), self.tsm.payload(*place) or b""
        self.facts[-1] = msgspec.structs.replace(
            self.facts[-1],
            sequence_counter=answer.sequence_counter.hex(),
            counter_before=before[1:].hex() if before[:1] == version else "",
        )
        self.put[place] = version + answer.sequence_counter

    def authenticated(self, response: ResponseApdu) -> LinkResponse:
        domain, key_version = self.session.started.domain, self.session.key_version
        if not response.ok:
            return self.unproven()
        self.card_facts += cards.authenticated(self.card, domain, key_version)
        if key_version != self.session.started.key_version:
            return self.keys_found(domain, key_version)
        self.card_facts += cards.keys_proved(self.card, domain, key_version)
        return self.next(self.channel())

    def keys_found(self, domain: str, key_version: int) -> LinkResponse:
        """The card has proved keys of which we never heard that they were put.

        The script was made for others, and its content may lie under another DEK: the party delegates anew.
        """
        known = self.card.domains.get(domain)  # another session may have deleted it since START, or recorded the keys
        if known is not None and known.key_version != key_version:
            put = KeysPut(
                domain=domain,
                key_version=key_version,
                check_values=self.vault.check_values(self.key),
                provisional=False,
                key=self.key,
                found=True,
            )
            self.card_facts.append(put)
        return self.stop(Status.KEYS_REPLACED)

    def executed(self, response: ResponseApdu) -> LinkResponse:
        """The answer to a delegated command."""
        order, channel = self.sent.order, self.channel()
        try:
            plain = channel.unwrap(response)
        except TsmError as error:
            log.warning("%s-%s: %s", self.session.started.provider, self.session.started.reception, error)
            self.card_facts += cards.unanswered(self.session.started.domain, self.sent.header)
            self.notify(order, Status.CHANNEL_BROKEN, response.sw.to_bytes(2))
            return self.stop(Status.CHANNEL_BROKEN, order)
        # Errors carry no R-MAC (GPC Amendment D 6.2.5): they stop the script, but prove nothing.
        verified = carries_protection(plain.sw)
        self.facts[-1] = msgspec.structs.replace(self.facts[-1], verified=verified)
        answered = goes_on(self.sent.header, f"{plain.sw:04x}", verified)
        self.notify(order, Status.OK if answered else refusal(plain.sw), plain.sw.to_bytes(2), plain.data)
        if not answered:
            return self.refused(plain, verified)
        if self.is_latest():
            self.card_facts += self.learnt(order, plain)
        else:
            self.card_facts += cards.unanswered(self.session.started.domain, self.sent.header)
        return self.next(channel)

    def is_latest(self) -> bool:
        """Whether nothing was recorded of what is on the card since the command was sent.

        Else a phone may have held the answer back while another session changed the same thing, and nobody can tell
        which came first: the card has to be asked.
        """
        sent = self.sent.card_version
        if not sent or sent == self.card_record.version:
            return True
        since = self.tsm.history(cards.stream(self.card.iccid), version=sent)
        return all(isinstance(event.fact, cards.OF_KEYS_ONLY) for event in since)

    def learnt(self, order: int, answer: ResponseApdu) -> list[Fact]:
        """What a delegated command's answer says of the card."""
        command, domain = self.delegated(order), self.session.started.domain
        if command.ins != audit.GET_STATUS:
            return card_facts(
                lambda: self.card,
                domain,
                command,
                lambda: [self.delegated(earlier) for earlier in range(1, order)],
            )
        complete = answer.sw == StatusWord.OK and domain == self.card.isd
        found = audit.found(self.card, command, answer.data, self.check_values, complete=complete)
        script = [delegated.header for delegated in self.delegation.accepted.commands]
        is_over = order == len(script) and audit.asks_enough(script)
        is_over = is_over and not audit.proves_nothing(command, answered=carries_protection(answer.sw))
        return [*found, *cards.audited(evolved(self.card, found), domain)] if is_over else found

    # What they lead to

    def next(self, channel: Scp03Channel) -> LinkResponse:
        """The next delegated command through the channel, or DISCONNECT after the last."""
        following = next_step(Step(self.sent.step), self.sent.order, len(self.delegation.accepted.commands))
        if following is None:
            return self.disconnect()
        step, order = following
        plain = self.delegated(order)
        wrapped = channel.wrap(plain)
        return self.send(
            step,
            plain,
            wrapped,
            order=order,
            counter=channel.counter,
            chaining=channel.chaining.hex(),
            card_version=self.card_record.version + len(self.card_facts) if says_something(plain) else 0,
        )

    def send(
        self,
        step: Step,
        plain: CommandApdu,
        wrapped: CommandApdu,
        *,
        order: int = 0,
        host_challenge: str = "",
        counter: int = 0,
        chaining: str = "",
        card_version: int = 0,
    ) -> LinkResponse:
        """COMMAND; but nothing goes to a card on hold."""
        if self.is_on_hold():
            return self.hold()
        wire = wrapped.encode()
        self.facts.append(
            CommandSent(
                step=step,
                order=order,
                header=plain.header.hex(),
                length=len(wire),
                wire_sha256=sha256(wire).hexdigest(),
                expires_at=self.at + self.idle,
                host_challenge=host_challenge,
                counter=counter,
                chaining=chaining,
                card_version=card_version,
            )
        )
        return LinkResponse(Return.COMMAND, wire)

    def is_on_hold(self) -> bool:
        """Whether this party has to leave the card alone; its operator, who locks and deletes, does not."""
        accepted = self.delegation.accepted
        if accepted.provider == accepted.operator:
            return False
        hold = hold_of(self.tsm, accepted.iccid)
        self.rests_on.append(rests_on(accepted.iccid, hold))
        return is_on_hold(hold)

    def hold(self) -> LinkResponse:
        """What the card has acknowledged is recorded and told as ever; the next command stays here."""
        self.fail(Status.CARD_ON_HOLD)
        self.notify(delegations.FAILURE_NOTICE, Status.CARD_ON_HOLD)
        return self.disconnect() if self.session.sent else self.end(Status.CARD_ON_HOLD)

    def refused(self, response: ResponseApdu, verified: bool = False) -> LinkResponse:
        """The card said no, or so it is said: nothing more is sent, and its record shows where it stopped."""
        self.card_facts.append(
            cards.CommandRefused(
                domain=self.session.started.domain,
                command=self.sent.step,
                header=self.sent.header,
                status_word=f"{response.sw:04x}",
                verified=verified,
            )
        )
        return self.stop(refusal(response.sw), self.sent.order)

    def unproven(self) -> LinkResponse:
        """Card and record do not share keys: it counts against the domain's budget, which outlasts the session."""
        domain, key_version = self.session.started.domain, self.session.key_version
        self.card_facts += cards.authentication_failed(self.card, domain, key_version)
        return self.stop(Status.CARD_AUTH_FAILED)

    def stop(self, status: Status, order: int = 0) -> LinkResponse:
        self.fail(status, order)
        return self.disconnect()

    def fail(self, status: Status, order: int = 0) -> None:
        """No more commands: they leave the server with this commit, and the party is told why."""
        self.facts.append(SessionFailed(status=status, error=status.info, order=order))
        self.drop.append(delegations.stream(self.session.started.provider, self.session.started.reception))
        if not self.put:  # unless NOTIFY tells already what the card answered to this command
            self.notify(order, status)

    def disconnect(self) -> LinkResponse:
        self.facts.append(DisconnectSent(expires_at=self.at + self.idle))
        return LinkResponse(Return.DISCONNECT)

    def end(self, status: Status) -> LinkResponse:
        provider, reception = self.session.started.provider, self.session.started.reception
        signature = self.vault.sign(MAS_SIGNING_KEY, mas_signed(provider, reception, status))
        mas_sign = base64.b64encode(signature).decode()
        self.facts.append(SessionEnded(status=status, mas_sign=mas_sign, request_sha256=self.request_sha256))
        self.delegation_facts += delegations.end(self.delegation, status, self.session.executed)
        self.drop += [delegations.stream(provider, reception), sessions.stream(provider, reception)]
        return LinkResponse(Return.END, mas_sign=mas_sign)

    def notify(self, order: int, status: Status, status_word: bytes = b"", data: bytes = b"") -> None:
        """Lay down what NOTIFY will say; the worker that reads the log sends it."""
        self.put |= notification_payload(self.delegation.accepted, order, status, status_word, data)

    # What they need

    @property
    def sent(self) -> CommandSent:
        """The command that lies with the card."""
        assert self.session.sent is not None  # noqa: S101  RESPONSE follows COMMAND
        return self.session.sent

    @property
    def key(self) -> str:
        """KeyRef of the keys that INITIALIZE UPDATE asked for."""
        started, key_version = self.session.started, self.session.key_version
        if key_version == started.key_version:
            return started.key
        return key_reference(started.iccid, started.domain, key_version)

    def keys(self, card_challenge: bytes) -> SessionKeys:
        return self.vault.session_keys(self.key, bytes.fromhex(self.session.host_challenge), card_challenge)

    def check_values(self, key: str) -> tuple[str, ...]:
        return self.vault.check_values(key) if self.vault.has(key) else ()

    def channel(self) -> Scp03Channel:
        """The secure channel as the last command left it."""
        keys = self.keys(bytes.fromhex(self.session.card_challenge))
        return Scp03Channel(keys, LEVEL, self.sent.counter, bytes.fromhex(self.sent.chaining))

    def delegated(self, order: int) -> CommandApdu:
        accepted = self.delegation.accepted
        apdu = self.tsm.payload(delegations.stream(accepted.provider, accepted.reception), command_name(order))
        if apdu is None:
            raise TsmError(ErrorCode.STORE_CORRUPT, f"{accepted.reception} lacks command {order}")
        return CommandApdu.parse(apdu)


def command_name(order: int) -> str:
    """The payload that holds one delegated command."""
    return f"command-{order:03}"


def counter_name(domain: str) -> str:
    """The payload that holds a domain's key version, and its sequence counter as it was told last."""
    return f"counter-{domain}"


def says_something(command: CommandApdu) -> bool:
    """Whether the answer will say something of the card: all that change it do but the blocks before the last."""
    if command.ins in (LOAD, STORE_DATA):
        return bool(command.p1 & LAST_BLOCK)
    return command.ins == audit.GET_STATUS or cards.changes_content(command.header.hex())


MESSAGES: Mapping[Process, Callable[[Exchange], LinkResponse]] = {
    Process.CONNECT_RESULT: Exchange.connect_result,
    Process.RESPONSE: Exchange.response,
    Process.DISCONNECT_RESULT: Exchange.disconnect_result,
}

RESPONSES: Mapping[Step, Callable[[Exchange, ResponseApdu], LinkResponse]] = {
    Step.SELECT: Exchange.selected,
    Step.INITIALIZE_UPDATE: Exchange.initialized,
    Step.EXTERNAL_AUTHENTICATE: Exchange.authenticated,
    Step.COMMAND: Exchange.executed,
}
