"""One line of plain English per fact, for people who read a history.

A line says only what the log says openly: sealed fields, key references and digests are left out.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

from tsm.errors import ErrorCode, TsmError
from tsm.model import (
    access_code,
    authority,
    card,
    catalogue,
    credential,
    delegation,
    deployment,
    domain,
    local_token,
    operation,
    operator,
    party,
    reading,
    service_provider,
    service_token,
    session,
    standing,
    subscription,
    swap_policy,
    terminal,
)
from tsm.model import (
    line as lines,
)
from tsm.model.event import Fact

INSTRUCTIONS = {  # by the second octet of the header (GPCS v2.3.1 table 11-1, ISO/IEC 7816-4)
    "50": "INITIALIZE UPDATE",
    "82": "EXTERNAL AUTHENTICATE",
    "A4": "SELECT",
    "CA": "GET DATA",
    "D8": "PUT KEY",
    "E2": "STORE DATA",
    "E4": "DELETE",
    "E6": "INSTALL",
    "E8": "LOAD",
    "F0": "SET STATUS",
    "F2": "GET STATUS",
}
OWN_COMMAND = 0  # the order of a command that the server sends by itself


def line(fact: Fact) -> str:
    """What happened; `TsmError(INTERNAL)` for a fact that nobody gave a line."""
    write = _writer(fact.topic)
    text = write(fact) if write is not None else None
    if text is None:
        raise TsmError(ErrorCode.INTERNAL, f"no line for {fact.topic}")
    return text


@lru_cache(maxsize=256)
def _writer(topic: str) -> Callable[[Fact], str | None] | None:
    return LINES.get(topic.partition(".")[0])


def card_line(fact: Fact) -> str | None:
    match fact:
        case card.CardRegistered():
            return (
                f"registered for operator {fact.operator}, profile {fact.profile}, key version {fact.key_version:02X}"
            )
        case card.SecurityDomainCreated():
            how = "found" if fact.found else "created"
            return f"security domain {fact.domain} {how} under {fact.parent}, {fact.life_cycle}"
        case card.KeysPut():
            what = "provisional keys" if fact.provisional else "keys"
            checks = ", ".join(fact.check_values)
            how = "was found to have" if fact.found else "got"
            return f"security domain {fact.domain} {how} {what}, version {fact.key_version:02X}, check values {checks}"
        case card.ProvisionalKeysHandedOut():
            return f"provisional keys of {fact.domain}, version {fact.key_version:02X}, handed out to {fact.provider}"
        case card.KeysShared():
            checks = ", ".join(fact.check_values)
            return f"{fact.provider} shared ENC and MAC of version {fact.key_version:02X} for {fact.domain}: {checks}"
        case card.ProvisionalKeysDestroyed():
            return f"provisional keys of {fact.domain}, version {fact.key_version:02X}, destroyed in the vault"
        case card.KeysProved():
            return f"the card authenticated itself with {fact.domain}'s keys of version {fact.key_version:02X}"
        case card.KeysDestroyed():
            return f"keys that {fact.domain} has no more, version {fact.key_version:02X}, destroyed in the vault"
        case card.LoadFileLoaded(found=True):
            return f"load file {fact.load_file} found in {fact.domain}"
        case card.LoadFileLoaded():
            return f"load file {fact.load_file} loaded into {fact.domain}, {fact.size} octets, hash checked by the card"
        case card.ApplicationInstalled():
            how = "found, from" if fact.found else "installed from"
            return f"application {fact.application} {how} {fact.load_file} in {fact.domain}, {fact.life_cycle}"
        case card.ApplicationPersonalized():
            return f"application {fact.application} personalized by {fact.domain}"
        case card.LifeCycleChanged():
            return f"{fact.instance} in {fact.domain} {'found' if fact.found else 'made'} {fact.life_cycle}"
        case card.ContentDeleted():
            gone = f"{fact.target} in {fact.domain} {'found to be gone' if fact.found else 'deleted'}"
            related = ", ".join(fact.deleted[1:])
            return f"{gone}, and with it {related}" if related else gone
        case card.CommandRefused():
            what = f"{instruction(fact.header)} ({fact.header}) for {fact.domain} with status word {fact.status_word}"
            return f"the card refused {what}" if fact.verified else f"refused: {what}, which nothing proves"
        case card.CommandUnanswered():
            what = f"{instruction(fact.header)} ({fact.header}) for {fact.domain}"
            return f"no answer that verifies to {what}: whether the card executed it is unknown"
        case card.ContentUnknown():
            return f"the card names {', '.join(fact.unknown) or 'nothing any more'} of which nothing was known"
        case card.ContentAudited():
            return f"the card was asked what it holds, after commands for {fact.domain} whose outcome was unknown"
        case card.CardAuthenticationFailed():
            return (
                f"authentication with {fact.domain} failed, key version {fact.key_version:02X}:"
                f" {fact.failures} of {card.MAX_FAILURES} in a row"
            )
        case card.CardAuthenticated():
            return f"authentication with {fact.domain} succeeded again, key version {fact.key_version:02X}"
        case card.CardReleased():
            return f"{fact.domain} released for authentication: {fact.reason}"
    return None


def delegation_line(fact: Fact) -> str | None:
    match fact:
        case delegation.DelegationAccepted():
            commands = counted(len(fact.commands), "command")
            return f"DELEGATE: {commands} from {fact.provider} for {fact.domain}, reception {fact.reception}"
        case delegation.ResultNotified():
            about = "the failure" if fact.order == delegation.FAILURE_NOTICE else f"command {fact.order}"
            if not fact.acknowledged:
                return f"NOTIFY of {about} given up after {counted(fact.attempts, 'attempt')}"
            return f"NOTIFY of {about} acknowledged at attempt {fact.attempts}"
        case delegation.DelegationEnded():
            return f"delegation ended with status {fact.status}: {counted(fact.executed, 'command')} executed"
    return None


def session_line(fact: Fact) -> str | None:
    match fact:  # the most frequent first
        case session.CommandSent():
            return f"COMMAND: {command(fact.order, fact.step, fact.header)} sent, {counted(fact.length, 'octet')}"
        case session.ResponseReceived():
            number = f"command {fact.order}" if fact.order != OWN_COMMAND else fact.step
            return f"RESPONSE: the card answered {number} with {fact.status_word}"
        case session.SessionStarted():
            return f"START: session for {fact.provider}, reception {fact.reception}, with {fact.domain}"
        case session.CardConnected():
            return "CONNECT: the phone connected to the card"
        case session.DisconnectSent():
            return "DISCONNECT: the phone was told to let the card go"
        case session.Disconnected():
            return "the phone let the card go"
        case session.SessionFailed():
            return f"session failed with status {fact.status} {fact.error}"
        case session.SessionEnded():
            return f"END: session ended with status {fact.status}"
        case session.SessionExpired():
            return "session expired: the phone was silent for too long"
    return None


def deployment_line(fact: Fact) -> str | None:
    match fact:
        case deployment.DeploymentDelegated():
            return f"deployment for {fact.provider} prepared: {fact.step}, reception {fact.reception}"
        case deployment.DeploymentReturned():
            return f"RE-ACCESS: the browser came back from the deployment with status {fact.status}"
    return None


def operation_line(fact: Fact) -> str | None:
    match fact:
        case operation.OperationRequested():
            waits = "a second person's approval" if fact.needs_approval else "its turn"
            why = f": {fact.reason}" if fact.reason else ""
            related = ", ".join(fact.values.get("related", "").split())
            what = f"{fact.target}, and with it {related}," if related else fact.target
            return f"{fact.kind} of {what} asked for by {fact.requested_by}, waits for {waits}{why}"
        case operation.OperationApproved():
            return f"operation approved by {fact.approved_by}"
        case operation.OperationDelegated():
            return f"operation delegated for a contact with the card, reception {fact.reception}"
        case operation.OperationPutBack():
            return f"contact ended with status {fact.status}: the operation waits for the next"
        case operation.OperationEnded():
            how = " ".join(part for part in (fact.state, fact.code) if part)
            by = f" by {fact.ended_by}" if fact.ended_by else ""
            return f"operation ended{by}, {how}" + (f": {fact.reason}" if fact.reason else "")
    return None


def access_code_line(fact: Fact) -> str | None:
    match fact:
        case access_code.AccessCodeHandedOut():
            return f"access code handed out, {fact.tries} tries, until {fact.expires_at.isoformat(timespec='seconds')}"
        case access_code.AccessCodeAccepted():
            return "access code and password accepted"
        case access_code.AccessCodeRefused():
            return f"access code or password refused, {counted(fact.remaining, 'try', 'tries')} left"
        case access_code.AccessCodeLocked():
            return "access code locked"
    return None


def credential_line(fact: Fact) -> str | None:
    match fact:
        case credential.CredentialApplied():
            return f"credential applied for at terminal {fact.terminal} in {fact.municipality}"
        case credential.MainCertificateVerified():
            as_of = fact.revocation_as_of.isoformat(timespec="seconds")
            return f"My Number card's certificate verified, not revoked as of {as_of}"
        case credential.ApplicationRefused():
            return f"application refused: {fact.code}"
        case credential.CredentialIssued():
            return f"both key pairs and certificates issued by {fact.authority}"
        case credential.SlipHandedOut():
            return "slip with access code and password handed out"
        case credential.HolderAuthenticated():
            return "holder authenticated on the phone by access code and password"
        case credential.HolderRefused():
            return f"holder refused on the phone, access code and password were right: {fact.code}"
        case credential.PersonalizationDelegated():
            return f"personalization delegated, reception {fact.reception}"
        case credential.CredentialWritten():
            return f"credential written to the card, reception {fact.reception}"
        case credential.KeyCopyDestroyed():
            return f"authority's copy of the {fact.kind} key destroyed"
        case credential.CredentialActivated():
            return "credential active: its keys exist in the card only"
        case credential.ErasureOrdered(in_use=True):
            return "erasure of the person ordered although the credential was in use; the credential is closed"
        case credential.ErasureOrdered():
            return "erasure of the person ordered; the credential is closed"
        case credential.PersonErased():
            return "person erased: the data key is destroyed, and what it sealed cannot be read again"
        case credential.RevocationOrdered():
            return f"revocation of both certificates ordered: {fact.reason}; the credential is closed"
        case credential.CredentialRevoked():
            return f"both certificates revoked by their authority: {fact.reason}"
        case credential.HoldOrdered():
            return "both certificates are to be put on hold: the authority is told"
        case credential.CredentialHeld():
            return "both certificates put on hold by their authority"
        case credential.ReleaseOrdered():
            return "the hold of both certificates is to end: the authority is told"
        case credential.CredentialReleased():
            return "released by the authority: the certificate for authentication is good again"
        case credential.SignatureReissued():
            return "key pair and certificate for signatures made anew by the authority, in place of the superseded"
        case credential.SignatureRewritten():
            return f"the new certificate for signatures written to the card, reception {fact.reception}"
    return None


def party_line(fact: Fact) -> str | None:
    match fact:
        case operator.OperatorEnrolled():
            return f"operator {fact.operator} enrolled: {fact.name}"
        case operator.MasterKeyImported():
            return f"master key {fact.key_set} of {fact.operator} imported, check value {fact.check_value}"
        case service_provider.ProviderEnrolled():
            return f"service provider {fact.provider} enrolled: {fact.name}, security domain {fact.domain}"
        case terminal.TerminalEnrolled():
            return f"terminal {fact.terminal} enrolled for {fact.municipality}"
        case authority.AuthorityEnrolled():
            return f"certificate authority {fact.authority} enrolled: {fact.name}"
        case party.CertificateReplaced():
            return "client certificate replaced by another"
        case party.CertificateWithdrawn():
            return "client certificate withdrawn"
    return None


def goods_line(fact: Fact) -> str | None:
    match fact:
        case domain.DomainClaimed():
            return f"security domains {fact.domain} are those of {fact.provider}"
        case catalogue.LoadFileRegistered():
            size = counted(fact.size, "octet")
            return f"load file {fact.load_file} of {fact.provider} registered, version {fact.version}, {size}"
    return None


def access_line(fact: Fact) -> str | None:
    match fact:
        case service_token.ServiceTokenIssued():
            until = fact.expires_at.isoformat(timespec="seconds")
            return f"service token {fact.id} ({fact.name}) issued for {fact.role} of {fact.tenant}, until {until}"
        case service_token.ServiceTokenRevoked():
            return f"service token {fact.id} revoked"
        case local_token.LocalTokenIssued():
            until = fact.expires_at.isoformat(timespec="seconds")
            return f"local login {fact.id} of {fact.person} as {fact.role} of {fact.tenant}, until {until}"
        case reading.DataAccessed():
            return f"personal data of {counted(len(fact.subjects), 'person')} shown for: {fact.purpose}"
    return None


def line_line(fact: Fact) -> str | None:
    """Nothing of what the number is, or whose: that is sealed."""
    match fact:
        case lines.SignalRecorded():
            what = f"{fact.kind} ({fact.indication})" if fact.indication else fact.kind
            until = f", until {fact.until.isoformat(timespec='seconds')}" if fact.until else ""
            return f"signal {what} of {fact.source}{until}"
        case lines.SubjectMapped():
            return f"the line got a subject in the tokens of {fact.issuer}"
        case lines.TenureErased():
            return "one tenure of the line erased: its data key is destroyed"
    return None


def standing_line(fact: Fact) -> str | None:
    match fact:
        case standing.SuspicionRaised():
            evidence = ", ".join(map(str, fact.evidence))
            what = f"{fact.condition}, {level(fact.level)} by rule {fact.rule} of policy {fact.policy}"
            instead = f", in place of {fact.succeeds}" if fact.succeeds else ""
            return f"suspicion {fact.suspicion} raised{instead}: {what}; evidence at {evidence}"
        case standing.SuspicionWithdrawn():
            return f"suspicion {fact.suspicion} withdrawn: by what is known now it does not apply"
        case standing.SuspicionAcknowledged():
            return f"suspicion {fact.suspicion} acknowledged"
        case standing.SuspicionEscalated():
            return f"suspicion {fact.suspicion} escalated to {level(fact.level)}"
        case standing.SuspicionClosed():
            return f"suspicion {fact.suspicion} closed: {fact.verdict}"
        case standing.CardCleared():
            return f"card released, proof: {fact.proof}"
        case standing.LevelChanged():
            due = f", revocation from {fact.revoke_from.isoformat(timespec='seconds')}" if fact.revoke_from else ""
            return f"the card's level is {level(fact.level)}{due}"
        case standing.UseRefused():
            of = f" of {fact.provider}" if fact.provider else ""
            which = f", reception {fact.reception}" if fact.reception else ""
            return f"{fact.use}{of} refused: the card is on hold{which}"
    return None


def policy_line(fact: Fact) -> str | None:
    match fact:
        case swap_policy.PolicyAdopted():
            return f"version {fact.policy.version} of the policy adopted, {counted(len(fact.policy.rules), 'rule')}"
    return None


def subscription_line(fact: Fact) -> str | None:
    match fact:
        case subscription.SubscriptionCreated():
            return f"{fact.client} subscribes to swaps of {fact.line}, to be told at {fact.sink}"
        case subscription.SwapNoted():
            changed = fact.changed_at.isoformat(timespec="seconds")
            return f"the SIM changed at {changed}, as position {fact.swap} says: to be told"
        case subscription.SubscriptionEnded():
            return f"ended: {fact.reason}{f', {fact.detail}' if fact.detail else ''}"
        case subscription.SinkNotified():
            outcome = "told" if fact.acknowledged else "not told"
            what = "the end" if fact.notification == subscription.ENDED else f"the swap of position {fact.notification}"
            return f"the sink was {outcome} of {what}: {fact.outcome}, {counted(fact.attempts, 'attempt')}"
    return None


def level(number: int) -> str:
    return swap_policy.Level(number).name


def command(order: int, step: str, header: str) -> str:
    return step if order == OWN_COMMAND else f"command {order}, {instruction(header)},"


def instruction(header: str) -> str:
    """The name of a command; the header itself for an application's own."""
    return INSTRUCTIONS.get(header[2:4].upper(), header)


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


LINES: Mapping[str, Callable[[Fact], str | None]] = {
    "card": card_line,
    "delegation": delegation_line,
    "session": session_line,
    "deployment": deployment_line,
    "operation": operation_line,
    "access_code": access_code_line,
    "credential": credential_line,
    "party": party_line,
    "operator": party_line,
    "provider": party_line,
    "terminal": party_line,
    "authority": party_line,
    "domain": goods_line,
    "catalogue": goods_line,
    "service_token": access_line,
    "local_token": access_line,
    "reading": access_line,
    "line": line_line,
    "standing": standing_line,
    "swap_policy": policy_line,
    "subscription": subscription_line,
}
