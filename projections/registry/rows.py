"""The rows of the registry: what there is now, and whose it is.

The first column is the key: an ICCID, a credential's id, or what `key` makes of several. `position` is that of the
event that created the row, and so the row's place among the others of its table: a cursor names it. Text is empty and a
number 0 where nothing is known; times are ISO 8601 in UTC.

`provider` is the owner of a security domain, by the claim to its AID, and empty for the issuer's. `seen_by` is the
operator that sees a row; empty where it is a provider's own affair.
"""

from typing import Any, NamedTuple, get_type_hints

from projections.projection import Kind, Table


class CardRow(NamedTuple):
    """A card."""

    iccid: str
    operator: str
    profile: str
    isd: str  # AID of the issuer security domain
    position: int
    changed: int  # position of the last event that changed the card or what is on it


class DomainRow(NamedTuple):
    """A security domain on a card."""

    key: str  # ICCID, AID
    iccid: str
    aid: str
    operator: str  # the card's
    provider: str
    parent: str  # AID; empty for the issuer's
    privileges: str
    life_cycle: str
    key_version: int
    provisional: int  # 1: somebody else than the owner chose its keys
    size: int  # octets of the load files that belong to it
    failures: int  # authentications in a row that failed
    position: int
    removed: int  # position of the event that deleted it


class LoadFileRow(NamedTuple):
    """An executable load file on a card."""

    key: str  # ICCID, AID
    iccid: str
    aid: str
    domain: str
    operator: str
    provider: str
    seen_by: str
    sha256: str  # empty, and size 0, when the card told only that it is there
    size: int
    position: int
    removed: int


class ApplicationRow(NamedTuple):
    """An application on a card."""

    key: str  # ICCID, AID
    iccid: str
    aid: str
    domain: str
    operator: str
    provider: str
    seen_by: str
    module: str
    load_file: str
    privileges: str
    life_cycle: str
    position: int
    removed: int


class KeyRow(NamedTuple):
    """Keys that a domain was given: which ones, by whom, and who has had them; never what they are."""

    key: str  # ICCID, AID of the domain, position
    iccid: str
    domain: str
    operator: str
    provider: str
    seen_by: str
    version: int
    check_values: str  # hex, in the order ENC, MAC, DEK, with commas; empty where the card never told
    provisional: int
    current: int
    found: int  # 1: the card proved them later, so the session is not the one that wrote them
    party: str  # who delegated the session that put them; empty for those that the card was made with
    reception: str  # of that session
    session: str  # its key in `sessions`
    by_session: str  # correlation of the event that put them
    actor: str  # of that event
    recorded_at: str
    handed_out_to: str  # the provider that was given provisional keys
    handed_out_at: str
    shared_by: str  # the provider that let our vault have ENC and MAC
    shared_at: str
    destroyed_at: str  # when provisional keys left our vault
    position: int


class CredentialRow(NamedTuple):
    """A credential. The card is known from the application, and gone from here once the person is erased."""

    credential: str
    provider: str
    municipality: str
    terminal: str
    authority: str  # empty before it is issued
    iccid: str
    subject: str  # pseudonym
    stage: str  # name of a `tsm.model.credential.Stage`
    hold: str  # a `tsm.model.credential.Hold`; empty when there is none
    closed: str  # empty, "refused", "revoked" or "erased": the last of them
    position: int
    changed: int


class PartyRow(NamedTuple):
    """An enrolled party."""

    key: str  # kind, party
    kind: str  # operator, provider, terminal or authority
    party: str
    name: str
    municipality: str  # of a terminal
    domain: str  # AID of a provider's security domain
    authority: str  # of a provider
    enrolled: int  # 0: its certificate is withdrawn
    certificate_fingerprint: str  # empty once it is withdrawn
    position: int


class CatalogueRow(NamedTuple):
    """A registered load file, in its current version."""

    load_file: str
    provider: str
    version: str
    sha256: str
    size: int
    module: str
    application: str
    position: int
    changed: int  # position of the event that registered this version


class DelegationRow(NamedTuple):
    """Commands that a party handed over for one card."""

    key: str  # party, reception number
    party: str
    reception: str
    operator: str
    provider: str
    seen_by: str
    iccid: str
    domain: str
    correlation: str
    commands: int
    executed: int  # commands that the card acknowledged
    status: str  # empty while it is open
    expires_at: str
    position: int
    changed: int


class SessionRow(NamedTuple):
    """A conversation with a card; `live` until it ends or expires."""

    key: str  # party, reception number
    party: str
    reception: str
    operator: str
    provider: str
    seen_by: str
    iccid: str
    domain: str
    key_version: int  # of the keys that open the channel
    state: str  # STARTED, CONNECTED, AUTHENTICATED, DISCONNECTING, ENDED or EXPIRED
    live: int
    exchanges: int  # commands that were sent
    correlation: str
    started_at: str
    last_heard_at: str
    expires_at: str
    status: str  # strProcStatus, once it failed or ended
    position: int
    changed: int


class OperationRow(NamedTuple):
    """What somebody asked for."""

    operation: str
    kind: str
    state: str
    iccid: str
    operator: str
    provider: str
    domain: str
    target: str
    reason: str
    requested_by: str
    approved_by: str
    reception: str
    code: str
    correlation: str
    requested_at: str
    expires_at: str
    position: int
    changed: int


class AlertRow(NamedTuple):
    """A suspicion, whether or not it is in force."""

    alert: str  # the suspicion's name
    iccid: str
    operator: str  # the card's
    rule: str
    condition: str  # a `tsm.model.swap_policy.Condition`
    level: str  # name of a `tsm.model.swap_policy.Level`: the rule's, or that to which it was escalated
    rule_level: int
    escalated: int  # the level to which a person took it; 0: nobody did
    policy: int  # version
    since: str
    until: str
    state: str  # OPEN, ACKNOWLEDGED, CLOSED, WITHDRAWN or RELEASED
    in_force: int  # 1: it counts for the card's level
    verdict: str  # a `tsm.model.standing.Verdict`
    evidence: str  # positions, with commas
    overtaken: str  # the same, of what each withdrawal followed from: a signal, or another policy
    raised_at: str
    acknowledged_at: str
    acknowledged_by: str  # the actor, as the next ones
    escalated_by: str
    closed_at: str
    closed_by: str
    ended_at: str  # when it was no longer in force
    ended_by: str
    position: int  # where it was first raised
    changed: int


class StandingRow(NamedTuple):
    """What a card's suspicions lead to; of a card that was ever suspected."""

    iccid: str
    operator: str
    level: str  # name of a `tsm.model.swap_policy.Level`
    on_hold: int  # 1: the level is HOLD or above
    since: str  # when it came to this level
    on_hold_since: str
    revoke_from: str  # of the level REVOKE: when its settle window is over
    cleared_at: str  # of the last release
    proof: str  # of that, a `tsm.model.standing.Proof`
    position: int
    changed: int


# Rows that no list shows


class ClaimRow(NamedTuple):
    """Whose the security domains of an AID are."""

    aid: str
    provider: str
    position: int


class HolderRow(NamedTuple):
    """A card on which a provider has, or had, a domain. `position` is the card's."""

    key: str  # provider, ICCID
    provider: str
    iccid: str
    operator: str
    profile: str
    position: int


class AlertSeerRow(NamedTuple):
    """Somebody beside the operator who sees an alert; the columns that lists are filtered by are the alert's."""

    key: str  # alert, kind, viewer
    kind: str  # provider or municipality
    viewer: str  # which
    alert: str
    iccid: str
    operator: str
    condition: str
    level: str
    state: str
    position: int


class StandingSeerRow(NamedTuple):
    """Somebody beside the operator who sees a card's standing."""

    key: str  # ICCID, kind, viewer
    kind: str
    viewer: str
    iccid: str
    operator: str
    level: str
    on_hold: int
    position: int


class KeyRingRow(NamedTuple):
    """Where the keys of a domain are among the key rows, and which are announced."""

    key: str  # ICCID, AID
    puts: str  # positions, with commas
    shared_version: int  # of keys that the owner shared and is about to put
    shared_by: str
    shared_at: str


class TallyRow(NamedTuple):
    """How many rows of each list a viewer sees."""

    viewer: str  # kind, party
    counts: str  # by name, as JSON, without those that are 0


def key(*parts: str | int) -> str:
    """What several values identify together. None of them holds the separator."""
    return "|".join(map(str, parts))


def table(name: str, row: type[Any], indexes: tuple[tuple[str, ...], ...] = ()) -> Table:
    """The table that holds rows of this type."""
    kinds: dict[type, Kind] = {str: "text", int: "integer"}
    return Table(name, {column: kinds[kind] for column, kind in get_type_hints(row).items()}, indexes)
