"""The operator's side (MNO-TSM): what a card needs before a provider can personalise it.

A provider asks for the next step of a card. First the operator creates the provider's security domain and puts
provisional keys into it; then the provider replaces them by its own, which is its own delegation; then the operator
loads and installs the application. Each of the operator's steps is a delegation like any other: the phone carries it,
and the browser comes back to us with a signed status before it goes on to the provider.

What is next is read from the card's record, so a step that broke off is begun again where it stopped. When the record
may lag behind the card, for an answer was lost or nobody proved it, the operator's next step is to ask the card
(`tsm.flows.audit`).
"""

from dataclasses import dataclass
from functools import partial

import msgspec

from tsm.application import Change, Tsm, decided
from tsm.errors import ErrorCode, TsmError
from tsm.flows import audit
from tsm.flows.contacts import Clock, Contacts
from tsm.flows.domain_keys import deployment_correlation
from tsm.flows.on_hold import asked_by, refuse_on_hold
from tsm.flows.operations import Operations
from tsm.flows.scripts import Scripts
from tsm.globalplatform.apdu import CommandApdu
from tsm.identifiers import ReceptionNumber
from tsm.jpki import personalisation as jpki
from tsm.keys.vault import SoftwareVault, verify_signature
from tsm.mas.launch import LaunchParameters, verify_mas_sign
from tsm.mas.signing import MAS_SIGNING_KEY
from tsm.mas.status import OF_ERROR, Status
from tsm.model import catalogue as catalogues
from tsm.model import delegation as delegations
from tsm.model import deployment as deployments
from tsm.model.card import Card
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.deployment import DeploymentDelegated, DeploymentStep
from tsm.model.event import Context
from tsm.model.standing import Use, UseRefused

JPKI_LOAD_FILE = jpki.LOAD_FILE.hex().upper()


@dataclass(frozen=True, slots=True)
class NextStep:
    """What a card needs next, and how the phone gets it when it is for the operator to do."""

    step: DeploymentStep
    launch: LaunchParameters | None = None


class Deployments:
    """Prepares cards for providers."""

    def __init__(
        self, tsm: Tsm, vault: SoftwareVault, contacts: Contacts, operations: Operations, clock: Clock
    ) -> None:
        self._tsm = tsm
        self._vault = vault
        self._contacts = contacts
        self._operations = operations
        self._scripts = Scripts(tsm, vault)
        self._clock = clock

    def deploy(self, provider: str, iccid: str, return_url: str, request_id: str = "") -> NextStep:
        """The next step of a card for a provider, delegated if it is the operator's.

        What the operator had waiting for this card comes first. `return_url` is where the browser goes afterwards:
        FORBIDDEN unless the provider registered it. Otherwise UNKNOWN_CARD, NOT_FOUND when the provider has no load
        file here, what DELEGATE refuses, and CARD_ON_HOLD.
        """
        party, card = self._tsm.provider_of(provider), self._tsm.card_of(iccid)
        if return_url not in party.return_urls:
            raise TsmError(ErrorCode.FORBIDDEN, "a return URL that is not registered")
        file = self.load_file(provider)
        waited = self._operations.next_contact(iccid, provider, return_url, request_id)
        if waited is not None:
            return NextStep(DeploymentStep.OPERATION, waited)
        tried = UseRefused(use=Use.DEPLOYMENT, provider=provider)
        refuse_on_hold(self._tsm, iccid, tried, asked_by(provider, request_id))
        step = next_step(card, party.domain, file.application)
        if step in (DeploymentStep.KEY_ROTATION, DeploymentStep.DONE):
            return NextStep(step)
        commands = self.commands(step, card, party.domain, file)
        asked = DeploymentDelegated(
            operator=card.operator,
            provider=party.provider,
            reception="",
            iccid=card.iccid,
            domain=party.domain,
            step=step,
            return_url=return_url,
        )
        return NextStep(step, self._delegate(asked, card, commands, request_id))

    def come_back(self, reception: str, mas_sign: str, request_id: str = "") -> str:
        """RE-ACCESS of an operator's launch (MC-05 interface 5): where the browser goes next; empty for nowhere.

        UNKNOWN_RECEPTION, BAD_SIGNATURE; and when the step failed the code of its status, so that a browser does not go
        round in circles with a card that refuses.
        """
        status = decided(partial(self._come_back, ReceptionNumber(reception), mas_sign, request_id))
        if status not in (Status.OK, Status.NOT_ALL_ACKNOWLEDGED):
            raise TsmError(code_of(status), f"deployment {reception} ended with {status}")
        return self._deployment(reception).delegated.return_url

    def _come_back(self, reception: ReceptionNumber, mas_sign: str, request_id: str) -> Status:
        loaded = self._tsm.load(deployments.stream(reception), deployments.evolve)
        delegated = self._deployment(reception).delegated
        verify = partial(verify_signature, self._vault.public_key(MAS_SIGNING_KEY))
        status = verify_mas_sign(verify, delegated.operator, reception, mas_sign)
        assert loaded.state is not None  # noqa: S101  as `_deployment` found it
        delegation = self._tsm.load(delegations.stream(delegated.operator, reception), delegations.evolve).state
        assert delegation is not None  # noqa: S101  it came before the deployment
        self._tsm.commit(
            Change(deployments.stream(reception), loaded.version, deployments.come_back(loaded.state, status)),
            context=context_of(delegated, delegation.accepted.correlation, "phone", "phone", request_id),
            occurred_at=self._clock(),
        )
        return status

    def commands(self, step: DeploymentStep, card: Card, domain: str, file: LoadFileRegistered) -> list[CommandApdu]:
        """What the card is told, or asked, in one step; commands that it has executed before are left out."""
        if step is DeploymentStep.AUDIT:
            asked = audit.questions(domain, file.load_file, file.application)
            return [*asked, *audit.ask_for_unknown(card), *audit.proof_without_witness()] if card.unknown else asked
        if step is DeploymentStep.SECURITY_DOMAIN:
            return self._scripts.create_domain(card, domain)
        return self._scripts.install(card, file, domain)

    def _delegate(
        self, asked: DeploymentDelegated, card: Card, commands: list[CommandApdu], request_id: str
    ) -> LaunchParameters:
        """DELEGATE in the operator's name, remember for whom, and LAUNCH. All steps for one provider are one story."""
        story = deployment_correlation(self._vault, asked.provider, card.iccid)
        reception = self._contacts.delegate(card, commands, story, request_id)
        fact = msgspec.structs.replace(asked, reception=reception)
        context = context_of(fact, story, f"provider:{fact.provider}", "provider", request_id)
        change = Change(deployments.stream(reception), 0, [fact])
        self._tsm.commit(change, context=context, occurred_at=self._clock())
        return self._contacts.launch(card.operator, reception)

    def _deployment(self, reception: str) -> deployments.Deployment:
        state = self._tsm.load(deployments.stream(reception), deployments.evolve).state
        if state is None:
            raise TsmError(ErrorCode.UNKNOWN_RECEPTION, reception)
        return state

    def load_file(self, provider: str) -> LoadFileRegistered:
        """The provider's registered load file of the JPKI applet; NOT_FOUND when there is none."""
        state = self._tsm.load(catalogues.stream(JPKI_LOAD_FILE), catalogues.evolve).state
        if state is None or state.current.provider != provider:
            raise TsmError(ErrorCode.NOT_FOUND, f"{provider} has no load file {JPKI_LOAD_FILE}")
        return state.current


def next_step(card: Card, domain: str, application: str) -> DeploymentStep:
    """What is next: AUDIT before a step of the operator's when the issuer's domain is in doubt."""
    step = missing_step(card, domain, application)
    is_operators = step in (DeploymentStep.SECURITY_DOMAIN, DeploymentStep.APPLICATION)
    return DeploymentStep.AUDIT if is_operators and card.isd in card.doubtful else step


def missing_step(card: Card, domain: str, application: str) -> DeploymentStep:
    """What the card's record says is missing, in the order of `DeploymentStep`."""
    own = card.domains.get(domain)
    if own is None or not own.key_version:
        return DeploymentStep.SECURITY_DOMAIN
    if own.provisional:
        return DeploymentStep.KEY_ROTATION
    return DeploymentStep.DONE if application in card.applications else DeploymentStep.APPLICATION


def context_of(fact: DeploymentDelegated, correlation: str, actor: str, role: str, request_id: str) -> Context:
    return Context(
        actor=actor,
        role=role,
        tenant=fact.operator,
        tenants=(fact.provider,) if fact.provider else (),
        correlation=correlation,
        request=request_id,
    )


def code_of(status: Status) -> ErrorCode:
    return next((code for code, its in OF_ERROR.items() if its is status), ErrorCode.INTERNAL)
