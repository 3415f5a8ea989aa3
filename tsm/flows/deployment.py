"""The operator's side (MNO-TSM): what a card needs before a provider can personalise it.

A provider asks for the next step of a card. First the operator creates the provider's security domain and puts
provisional keys into it; then the provider replaces them by its own, which is its own delegation; then the operator
loads and installs the application. Each of the operator's steps is a delegation like any other: the phone carries it,
and the browser comes back to us with a signed status before it goes on to the provider.

What is next is read from the card's record, so a step that broke off is begun again where it stopped. When the record
may lag behind the card, for an answer was lost or nobody proved it, the operator's next step is to ask the card
(`tsm.flows.audit`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256

from tsm.application import Change, Tsm, decided
from tsm.channels.scp03 import max_command_data
from tsm.errors import ErrorCode, TsmError
from tsm.flows import audit
from tsm.flows.content import PROVISIONAL_VERSION, key_reference
from tsm.flows.domain_keys import deployment_correlation
from tsm.flows.exchange import LEVEL, Random
from tsm.flows.session import SessionService
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.cap import load_commands
from tsm.globalplatform.commands import EncryptedKey, InstallForInstall, InstallForLoad, InstallForPersonalization
from tsm.globalplatform.dgi import key_dgis, store_data_blocks
from tsm.identifiers import KeyRef, ReceptionNumber, SpId
from tsm.jpki import personalisation as jpki
from tsm.keys.vault import SoftwareVault, verify_signature
from tsm.mas.launch import LaunchParameters, launch, verify_mas_sign
from tsm.mas.messages import DATE_FORMAT, DelegationRequest
from tsm.mas.signing import MAS_SIGNING_KEY
from tsm.mas.status import OF_ERROR, Status
from tsm.model import catalogue as catalogues
from tsm.model import delegation as delegations
from tsm.model import deployment as deployments
from tsm.model import operator as operators
from tsm.model.card import Card, LifeCycle
from tsm.model.catalogue import DATA_BLOCK, LoadFileRegistered
from tsm.model.deployment import DeploymentDelegated, DeploymentStep
from tsm.model.event import Context
from tsm.model.operator import Operator
from tsm.model.service_provider import ServiceProvider

Clock = Callable[[], datetime]

DOMAIN_LOAD_FILE = bytes.fromhex("A0000001515350")  # every UICC brings it (GPC UICC Configuration)
DOMAIN_MODULE = bytes.fromhex("A000000151535041")
SECURITY_DOMAIN = b"\x80"  # privilege (GPCS v2.3.1 table 11-7)
JPKI_LOAD_FILE = jpki.LOAD_FILE.hex().upper()
RECEPTIONS_PER_DAY = 10**8


@dataclass(frozen=True, slots=True)
class NextStep:
    """What a card needs next, and how the phone gets it when it is for the operator to do."""

    step: DeploymentStep
    launch: LaunchParameters | None = None


class Deployments:
    """Prepares cards for providers."""

    def __init__(
        self,
        tsm: Tsm,
        vault: SoftwareVault,
        sessions: SessionService,
        return_url: str,
        clock: Clock,
        random: Random,
    ) -> None:
        """`return_url` is our own address to which the browsers of the operators' launches come back."""
        self._tsm = tsm
        self._vault = vault
        self._sessions = sessions
        self._return_url = return_url
        self._clock = clock
        self._random = random

    def deploy(self, provider: str, iccid: str, return_url: str, request_id: str = "") -> NextStep:
        """The next step of a card for a provider, delegated if it is the operator's.

        `return_url` is where the browser goes afterwards: FORBIDDEN unless the provider registered it. Otherwise
        UNKNOWN_CARD, NOT_FOUND when the provider has no load file here, and what DELEGATE refuses.
        """
        party, card = self._tsm.provider_of(provider), self._tsm.card_of(iccid)
        if return_url not in party.return_urls:
            raise TsmError(ErrorCode.FORBIDDEN, "a return URL that is not registered")
        file = self.load_file(provider)
        step = next_step(card, party.domain, file.application)
        if step in (DeploymentStep.KEY_ROTATION, DeploymentStep.DONE):
            return NextStep(step)
        commands = self.commands(step, card, party.domain, file)
        return NextStep(step, self._delegate(step, card, party, commands, return_url, request_id))

    def come_back(self, reception: str, mas_sign: str, request_id: str = "") -> str:
        """RE-ACCESS of an operator's launch (MC-05 interface 5): where the browser goes next.

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
        self._tsm.commit(
            Change(deployments.stream(reception), loaded.version, deployments.come_back(loaded.state, status)),
            context=self._context(delegated, "phone", "phone", request_id),
            occurred_at=self._clock(),
        )
        return status

    def commands(self, step: DeploymentStep, card: Card, domain: str, file: LoadFileRegistered) -> list[CommandApdu]:
        """What the card is told, or asked, in one step; commands that it has executed before are left out."""
        if step is DeploymentStep.AUDIT:
            return audit.questions(domain, file.load_file, file.application)
        if step is DeploymentStep.SECURITY_DOMAIN:
            return [*create_domain(card, domain), *self.put_provisional_keys(card, domain)]
        load = [] if file.load_file in card.load_files else self.load(file, domain)
        return [*load, install(file)]

    def put_provisional_keys(self, card: Card, domain: str) -> list[CommandApdu]:
        """Keys for the new domain, under the DEK of the issuer's (GPCS v2.3.1 11.11, key data groupings).

        A key set that was made before stays: the card may hold it although its answer was lost. UNKNOWN_KEY when the
        domain was found with keys that are not ours.
        """
        if domain in card.domains and card.domain(domain).life_cycle != LifeCycle.SELECTABLE:
            raise TsmError(ErrorCode.UNKNOWN_KEY, f"{domain} on {card.iccid} is {card.domain(domain).life_cycle}")
        ref = KeyRef(key_reference(card.iccid, domain, PROVISIONAL_VERSION))
        if not self._vault.has(ref):
            self._vault.generate_aes_key_set(ref)
        wrapped = self._vault.wrap_key_set(ref, under=card.domain(card.isd).key)
        keys = tuple(EncryptedKey(key.encrypted, key.check_value) for key in wrapped)
        groupings = key_dgis(PROVISIONAL_VERSION, keys)
        blocks = store_data_blocks(groupings, max_command_data(LEVEL), encrypted=False)  # but the keys within are
        target = InstallForPersonalization(bytes.fromhex(domain))
        return [target.apdu(), *(block.apdu() for block in blocks)]

    def load(self, file: LoadFileRegistered, domain: str) -> list[CommandApdu]:
        """INSTALL [for load] with the hash that the card checks at the last block, and the LOAD commands."""
        block = self.load_file_data_block(file)
        announce = InstallForLoad(bytes.fromhex(file.load_file), bytes.fromhex(domain), sha256(block).digest())
        loads = load_commands(block, max_command_data(LEVEL))
        return [announce.apdu(), *(load.apdu() for load in loads)]

    def load_file_data_block(self, file: LoadFileRegistered) -> bytes:
        """As it was laid down beside the log; STORE_CORRUPT unless it is what was registered."""
        block = self._tsm.payload(catalogues.stream(file.load_file), DATA_BLOCK)
        if block is None or sha256(block).hexdigest() != file.sha256:
            raise TsmError(ErrorCode.STORE_CORRUPT, f"the load file data block of {file.load_file}")
        return block

    def _delegate(
        self,
        step: DeploymentStep,
        card: Card,
        party: ServiceProvider,
        commands: list[CommandApdu],
        return_url: str,
        request_id: str,
    ) -> LaunchParameters:
        """DELEGATE in the operator's name, remember for whom, and LAUNCH with the operator's signature."""
        now, operator = self._clock(), self.operator(card.operator)
        reception = self._reception(operator.operator, now)
        fact = DeploymentDelegated(
            operator=operator.operator,
            provider=party.provider,
            reception=reception,
            iccid=card.iccid,
            domain=party.domain,
            step=step,
            return_url=return_url,
        )
        context = self._context(fact, f"provider:{party.provider}", "provider", request_id)
        request = DelegationRequest(
            SpId(operator.operator), reception, now.strftime(DATE_FORMAT), tuple(c.encode() for c in commands)
        )
        self._sessions.delegate(
            request,
            party=operator.operator,
            iccid=card.iccid,
            correlation=context.correlation,
            request_id=request_id,
        )
        self._tsm.commit(Change(deployments.stream(reception), 0, [fact]), context=context, occurred_at=now)
        sign = partial(self._vault.sign, operator.signing_key)
        return launch(SpId(operator.operator), reception, self._return_url, self._sessions.mas_url, sign)

    def _reception(self, operator: str, now: datetime) -> ReceptionNumber:
        """A number that neither the operator nor another deployment has used."""
        while True:
            number = int.from_bytes(self._random(8)) % RECEPTIONS_PER_DAY
            reception = ReceptionNumber(f"{now:%Y%m%d}{number:08}")
            delegated = self._tsm.load(delegations.stream(operator, reception), delegations.evolve)
            deployed = self._tsm.load(deployments.stream(reception), deployments.evolve)
            if delegated.state is None and deployed.state is None:
                return reception

    def _context(self, fact: DeploymentDelegated, actor: str, role: str, request_id: str) -> Context:
        """All steps by which a card is prepared for one provider are one story."""
        return Context(
            actor=actor,
            role=role,
            tenant=fact.operator,
            tenants=(fact.provider,),
            correlation=deployment_correlation(self._vault, fact.provider, fact.iccid),
            request=request_id,
        )

    def _deployment(self, reception: str) -> deployments.Deployment:
        state = self._tsm.load(deployments.stream(reception), deployments.evolve).state
        if state is None:
            raise TsmError(ErrorCode.UNKNOWN_RECEPTION, reception)
        return state

    def operator(self, operator: str) -> Operator:
        state = self._tsm.load(operators.stream(operator), operators.evolve).state
        if state is None:
            raise TsmError(ErrorCode.NOT_FOUND, f"operator {operator}")
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


def create_domain(card: Card, domain: str) -> list[CommandApdu]:
    """INSTALL [for install and make selectable] of a supplementary security domain, unless it is there."""
    if domain in card.domains:
        return []
    return [InstallForInstall(DOMAIN_LOAD_FILE, DOMAIN_MODULE, bytes.fromhex(domain), SECURITY_DOMAIN).apdu()]


def install(file: LoadFileRegistered) -> CommandApdu:
    """INSTALL [for install and make selectable] of the application; it belongs to the domain of its load file."""
    load_file, module, application = map(bytes.fromhex, (file.load_file, file.module, file.application))
    return InstallForInstall(load_file, module, application).apdu()


def code_of(status: Status) -> ErrorCode:
    return next((code for code, its in OF_ERROR.items() if its is status), ErrorCode.INTERNAL)
