"""The provider's back end: what has to happen to a card until it holds a credential, one launch after the other.

    no domain of ours on the card     the operator creates one, with provisional keys     POST /sp-tsm/deployments
    provisional keys                  ours replace them: PUT KEY                          DELEGATE, LAUNCH
    no JPKI applet                    the operator loads and installs it                  POST /sp-tsm/deployments
    ready                             the holder brings access code, password and PINs
    keys and certificates fetched     STORE DATA under our DEK                            DELEGATE, LAUNCH
    all results notified with 9000    the authority destroys its copies of the keys       POST .../written
    after a hold                      the new signature key, in the same way              DELEGATE, LAUNCH

Each step is asked for again until its result is known, so a visit that broke off is simply begun anew. PINs, access
code and private keys live in local variables until the commands are made, and are never stored or logged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from hashlib import sha256

from api.demo.provider.keys import OWN_VERSION, ProviderKeys, ProvisionalKeys, joined
from api.demo.provider.outside import AuthorityClient, TsmClient
from api.demo.provider.state import Purpose, Reception, State
from tsm.channels.scp03 import max_command_data
from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Iccid, ReceptionNumber, SpId
from tsm.jpki.certificates import Kind
from tsm.jpki.personalisation import (
    Personalisation,
    SignatureRenewal,
    authentication_pin,
    personalisation_commands,
    signature_pin,
)
from tsm.keys.vault import verify_signature
from tsm.mas.launch import LaunchParameters, launch, verify_mas_sign
from tsm.mas.messages import DATE_FORMAT, DelegationRequest, NotificationRequest
from tsm.mas.status import Status

PREPARE, RENEW = "/mobile/prepare", "/mobile/renew"  # pages to which a browser comes back from the operator


@dataclass(frozen=True, slots=True)
class Holder:
    """What the holder typed. It does not show in a log."""

    access_code: str = field(repr=False)
    password: str = field(repr=False)
    authentication_pin: str = field(repr=False)
    signature_pin: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Returned:
    """What RE-ACCESS told: the status that the MAS signed, and the reception with what is known of it."""

    status: Status
    reception: Reception

    @property
    def done(self) -> bool:
        return self.status in (Status.OK, Status.NOT_ALL_ACKNOWLEDGED)


class BackEnd:
    """One provider at work."""

    def __init__(
        self,
        provider: SpId,
        url: str,
        keys: ProviderKeys,
        state: State,
        tsm: TsmClient,
        authority: AuthorityClient,
        mas_public_key: bytes,
        clock: Callable[[], datetime],
    ) -> None:
        self._provider = provider
        self._url = url
        self._keys = keys
        self.state = state
        self._tsm = tsm
        self._authority = authority
        self._mas_public_key = mas_public_key
        self._clock = clock

    # --- preparation: domain, keys, applet ---

    async def prepare(self, iccid: Iccid, page: str = PREPARE) -> LaunchParameters | None:
        """The next launch that brings the card closer to a credential; None when it is ready.

        From a launch of the operator the browser comes back to `page`.
        """
        await self.settle(iccid)
        if self.state.card(iccid).key_version != OWN_VERSION:
            provisional = await self._tsm.provisional_keys(iccid)
            if provisional is not None:
                self._keys.take_provisional(iccid, provisional)
                self.state.meet_card(iccid, provisional.diversification, provisional.key_version)
                return await self._rotate(iccid, provisional)
        deployment = await self._tsm.deploy(iccid, f"{self._url}{page}")
        if deployment.done:
            return None
        if deployment.launch is None:  # the operator waits for keys that we believe to be there
            raise TsmError(ErrorCode.CONFLICT, f"next step {deployment.step}")
        return LaunchParameters.parse(deployment.launch)

    async def _rotate(self, iccid: Iccid, provisional: ProvisionalKeys) -> LaunchParameters:
        """Our keys for the operator's provisional ones. The MAS gets ENC and MAC beforehand, to open channels later."""
        own = self._keys.own(self.state.card(iccid).diversification)
        await self._tsm.share_keys(iccid, self._keys.share(iccid, own, await self._tsm.transport_key()))
        command = self._keys.put_key(iccid, own, provisional.key_version)
        check_values = joined(self._keys.check_values(own))
        reception = self.state.receive(iccid, Purpose.ROTATION, 1, check_values=check_values)
        return await self._delegate(iccid, reception, (command,), provisional.correlation)

    # --- personalisation ---

    async def personalise(self, iccid: Iccid, holder: Holder) -> LaunchParameters:
        """Write the credential that access code and password stand for.

        The PINs are checked before anything else, for a wrong form must not cost a try of the access code.
        """
        authentication_pin(holder.authentication_pin)
        signature_pin(holder.signature_pin)
        credential = await self._tsm.check_access_code(iccid, holder.access_code, holder.password)
        issued = await self._authority.keys(credential)
        bundle = self._keys.open_bundle(issued.wrapped, credential)
        if bundle.authentication is None or bundle.signature is None:
            raise TsmError(ErrorCode.UNKNOWN_KEY, "the credential stands on its card already")
        content = Personalisation(
            authentication_certificate=issued.authentication,
            authentication_ca=await self._authority.certificate(Kind.AUTHENTICATION),
            signature_certificate=issued.signature,
            signature_ca=await self._authority.certificate(Kind.SIGNATURE),
            authentication_key=bundle.authentication,
            signature_key=bundle.signature,
            authentication_pin=holder.authentication_pin,
            signature_pin=holder.signature_pin,
        )
        written = (issued.authentication, issued.signature)
        return await self._write(iccid, Purpose.PERSONALISATION, credential, content, written)

    async def renew(self, iccid: Iccid) -> LaunchParameters:
        """Write the certificate for signatures that the authority made anew after a hold, with its key.

        What the operator had waiting comes first: an applet that was locked during the hold is unlocked. Nobody is
        asked who he is: the card keeps its PINs and the tries that are left, so a write gives nobody more than he had.
        CARD_ON_HOLD, NOT_FOUND without a credential of ours on the card, UNKNOWN_KEY when there is nothing to write.
        """
        credential = self.state.credential_on(iccid)
        before = await self.prepare(iccid, RENEW)
        if before is not None:
            return before
        issued = await self._authority.keys(credential)
        key = self._keys.open_bundle(issued.wrapped, credential).signature
        if key is None:
            raise TsmError(ErrorCode.UNKNOWN_KEY, "the signature key stands on its card already")
        content = SignatureRenewal(issued.signature, key)
        return await self._write(iccid, Purpose.RENEWAL, credential, content, (issued.signature,))

    async def _write(
        self,
        iccid: Iccid,
        purpose: Purpose,
        credential: str,
        content: Personalisation | SignatureRenewal,
        certificates: Sequence[bytes],
    ) -> LaunchParameters:
        """STORE DATA under our DEK, in the credential's story. The authority will be told of these certificates."""
        own = self._keys.own(self.state.card(iccid).diversification)
        encrypt = partial(self._keys.encrypt_content, own)
        commands = tuple(command.encode() for command in personalisation_commands(content, encrypt, max_command_data()))
        written = [sha256(der).hexdigest() for der in certificates]
        reception = self.state.receive(iccid, purpose, len(commands), credential=credential, certificates=written)
        return await self._delegate(iccid, reception, commands, credential)

    async def _delegate(
        self, iccid: Iccid, reception: ReceptionNumber, commands: tuple[bytes, ...], correlation: str = ""
    ) -> LaunchParameters:
        """DELEGATE, then LAUNCH."""
        generated_at = self._clock().strftime(DATE_FORMAT)
        request = DelegationRequest(self._provider, reception, generated_at, commands)
        await self._tsm.delegate(request, iccid, correlation)
        return_url = f"{self._url}/mobile/return"
        return launch(self._provider, reception, return_url, self._tsm.mas_url, self._keys.sign)

    # --- what comes back ---

    def notified(self, notification: NotificationRequest) -> bool:
        """NOTIFY: the result of one command. Whether it is ours and not known otherwise; safe to repeat."""
        try:
            reception = self.state.reception(notification.reception)
            digest = sha256(notification.encode()).hexdigest()
            word = int.from_bytes(notification.status_word, "big")
            self.state.record_result(reception.number, notification.order, word, digest)
        except TsmError:
            return False
        if reception.purpose is Purpose.ROTATION and self._proves_rotation(reception, notification):
            self.state.own_keys_put(reception.iccid, OWN_VERSION)
            self._keys.forget_provisional(Iccid(reception.iccid), self.state.card(reception.iccid).provisional_version)
        return True

    def _proves_rotation(self, reception: Reception, notification: NotificationRequest) -> bool:
        """PUT KEY answers the new version and the check values of what the card now holds (GPCS v2.3.1 11.8.3)."""
        answered = bytes([OWN_VERSION]) + bytes.fromhex(reception.check_values)
        return notification.status_word == b"\x90\x00" and notification.data == answered

    async def returned(self, number: str, signature: str) -> Returned:
        """RE-ACCESS: authenticate the MAS by its signature, and finish what can be finished. BAD_SIGNATURE, or none of
        ours.
        """
        self.state.reception(number)
        status = verify_mas_sign(self._verify, self._provider, number, signature)
        self.state.record_outcome(number, status)
        reception = self.state.reception(number)
        await self.settle(Iccid(reception.iccid))
        return Returned(status, self.state.reception(number))

    def _verify(self, data: bytes, signature: bytes) -> bool:
        return verify_signature(self._mas_public_key, data, signature)

    async def settle_late(self, number: str) -> None:
        """After NOTIFY: when the browser is back already, nobody else would finish it today."""
        try:
            reception = self.state.reception(number)
        except TsmError:
            return
        if reception.outcome:
            await self.settle(Iccid(reception.iccid))

    async def settle(self, iccid: Iccid | None = None) -> None:
        """Tell the authority of every credential that stands on its card. What cannot be told now is told later."""
        for reception in self.state.unsettled(iccid):
            try:
                await self._authority.written(reception.credential, reception.certificates)
            except TsmError:
                continue
            self.state.settle(reception.number)
