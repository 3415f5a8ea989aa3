"""A contact with a card in the operator's name: a script is delegated, and a phone is told to fetch it.

DELEGATE is accepted first, then its reception number is known. Whoever asked records for what it was before he lets the
launch go: without the launch nobody can start the session, so a delegation that was left behind ends by itself.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows.exchange import Random
from tsm.flows.session import SessionService
from tsm.globalplatform.apdu import CommandApdu
from tsm.identifiers import ReceptionNumber, SpId
from tsm.keys.vault import SoftwareVault
from tsm.mas.launch import LaunchParameters, launch
from tsm.mas.messages import DATE_FORMAT, DelegationRequest
from tsm.model import delegation as delegations
from tsm.model import deployment as deployments
from tsm.model import operator as operators
from tsm.model.card import Card
from tsm.model.operator import Operator

RECEPTIONS_PER_DAY = 10**8

Clock = Callable[[], datetime]


class Contacts:
    """Delegates in operators' names."""

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

    def delegate(
        self, card: Card, commands: Sequence[CommandApdu], correlation: str, request_id: str = ""
    ) -> ReceptionNumber:
        """DELEGATE for the issuer's domain, and what that refuses; the reception number."""
        now, operator = self._clock(), self._operator(card.operator)
        reception = self._reception(operator.operator, now)
        request = DelegationRequest(
            SpId(operator.operator), reception, now.strftime(DATE_FORMAT), tuple(c.encode() for c in commands)
        )
        self._sessions.delegate(
            request, party=operator.operator, iccid=card.iccid, correlation=correlation, request_id=request_id
        )
        return reception

    def launch(self, operator: str, reception: str) -> LaunchParameters:
        """LAUNCH with the operator's signature; the same again for the same delegation."""
        sign = partial(self._vault.sign, self._operator(operator).signing_key)
        return launch(SpId(operator), ReceptionNumber(reception), self._return_url, self._sessions.mas_url, sign)

    def _reception(self, operator: str, now: datetime) -> ReceptionNumber:
        """A number that neither the operator nor another deployment has used."""
        while True:
            number = int.from_bytes(self._random(8)) % RECEPTIONS_PER_DAY
            reception = ReceptionNumber(f"{now:%Y%m%d}{number:08}")
            delegated = self._tsm.load(delegations.stream(operator, reception), delegations.evolve)
            deployed = self._tsm.load(deployments.stream(reception), deployments.evolve)
            if delegated.state is None and deployed.state is None:
                return reception

    def _operator(self, operator: str) -> Operator:
        state = self._tsm.load(operators.stream(operator), operators.evolve).state
        if state is None:
            raise TsmError(ErrorCode.NOT_FOUND, f"operator {operator}")
        return state
