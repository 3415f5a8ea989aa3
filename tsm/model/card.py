"""A card (UICC) and its content: security domains with their key versions, load files, applications.

What a card acknowledged is what its stream says, so its content has no commands here: `tsm.flows` turns each
acknowledged command into one of these facts. An answer can be lost on its way, or a phone can say that the card refused
what it did: then the outcome is in doubt, and the stream says that too, until the card was asked what it holds. Such
facts are marked `found`. What is decided here is whether a card may be registered, and how many failed authentications
each of its domains may suffer before it is left alone.

Stream: `card-<iccid>`.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import ClassVar, Self

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import Aid, Iccid, KeyRef, SpId
from tsm.model.checks import check_hex, check_name, check_text
from tsm.model.event import Fact

ISSUER_DOMAIN = "A000000151000000"  # GPCS v2.3.1 annex H: the issuer security domain's default AID
DIVERSIFICATION_OCTETS = 10  # key diversification data in the answer to INITIALIZE UPDATE (GPC Amendment D 7.1.1.6)
MAX_FAILURES = 5  # a card may block a domain's keys after some ten failures: stop well before
CHANGES_CONTENT = frozenset({  # INS
    "d8", "e2", "e4", "e6", "e8", "f0",  # PUT KEY, STORE DATA, DELETE, INSTALL, LOAD, SET STATUS
})  # fmt: skip


class LifeCycle(StrEnum):
    """Names of GPCS v2.3.1 chapter 5. Of an application, PERSONALIZED is one of its own states (5.3.2.2)."""

    INSTALLED = "INSTALLED"
    SELECTABLE = "SELECTABLE"
    PERSONALIZED = "PERSONALIZED"
    LOCKED = "LOCKED"
    SECURED = "SECURED"  # of the issuer's domain, which shares the card's life cycle (5.1.1.4)


class CardRegistered(Fact, frozen=True, kw_only=True):
    """The card stood in an operator's production file."""

    topic: ClassVar[str] = "card.registered"
    iccid: str
    iin: str  # issuer identification number, hex as GET DATA 42 has it
    cin: str  # card image number, hex as GET DATA 45 has it
    operator: str
    profile: str  # the card's kind, as its maker names it
    diversification: str  # key diversification data, 10 octets in hex
    isd: str  # AID of the issuer's security domain
    key_set: str  # the operator's key set that its keys come from
    key_version: int
    key: str  # KeyRef of the derived keys


class SecurityDomainCreated(Fact, frozen=True, kw_only=True):
    """INSTALL [for install] of a security domain was acknowledged, or the domain was found."""

    topic: ClassVar[str] = "card.security_domain_created"
    domain: str  # AID
    parent: str  # AID of the domain that it is associated with
    privileges: str  # hex (GPCS v2.3.1 table 11-7)
    life_cycle: str
    found: bool = False  # no acknowledgement was heard: the card told it later, through a secure channel


class KeysPut(Fact, frozen=True, kw_only=True):
    """A domain got keys: PUT KEY (GPCS v2.3.1 section 11.8), or STORE DATA with key DGIs, was acknowledged.

    Found: the card proved these keys; or it told that the domain is personalized, where we were to put them.
    """

    topic: ClassVar[str] = "card.keys_put"
    domain: str
    key_version: int
    check_values: tuple[str, ...]  # ENC, MAC, DEK (if known) in hex: which keys they are, never the keys
    provisional: bool  # somebody else than the domain's owner knows them
    key: str  # KeyRef
    found: bool = False


class ProvisionalKeysHandedOut(Fact, frozen=True, kw_only=True):
    """The domain's owner was given its provisional keys, the DEK among them, wrapped for it alone."""

    topic: ClassVar[str] = "card.provisional_keys_handed_out"
    domain: str
    key_version: int
    provider: str


class KeysShared(Fact, frozen=True, kw_only=True):
    """The owner shared ENC and MAC of keys that it is about to put: from now on our vault can open its channel."""

    topic: ClassVar[str] = "card.keys_shared"
    domain: str
    key_version: int
    check_values: tuple[str, ...]
    provider: str


class ProvisionalKeysDestroyed(Fact, frozen=True, kw_only=True):
    """The domain has its owner's keys, and the provisional ones that they replaced are erased from our vault."""

    topic: ClassVar[str] = "card.provisional_keys_destroyed"
    domain: str
    key_version: int
    key: str  # KeyRef: nothing is there any more


class KeysProved(Fact, frozen=True, kw_only=True):
    """The card authenticated itself with keys that PUT KEY had put: those that they replaced are needed no more."""

    topic: ClassVar[str] = "card.keys_proved"
    domain: str
    key_version: int


class KeysDestroyed(Fact, frozen=True, kw_only=True):
    """Keys that the card has no more, replaced by others or gone with their domain, are erased from our vault."""

    topic: ClassVar[str] = "card.keys_destroyed"
    domain: str
    key_version: int
    key: str  # KeyRef: nothing is there any more, unless a later domain of the same AID got others
    check_values: tuple[str, ...]  # which keys they were


class LoadFileLoaded(Fact, frozen=True, kw_only=True):
    """The last LOAD was acknowledged, its hash checked by the card; or the load file was found."""

    topic: ClassVar[str] = "card.load_file_loaded"
    load_file: str  # AID
    domain: str
    sha256: str  # of the load file data block, hex; empty when it was found, for a card does not tell it
    size: int  # octets; 0 when it was found
    found: bool = False


class ApplicationInstalled(Fact, frozen=True, kw_only=True):
    """INSTALL [for install] of an application was acknowledged, or the application was found."""

    topic: ClassVar[str] = "card.application_installed"
    application: str  # AID
    module: str  # empty when it was found
    load_file: str
    domain: str
    privileges: str
    life_cycle: str
    found: bool = False


class LifeCycleChanged(Fact, frozen=True, kw_only=True):
    """An application or domain is in another state.

    INSTALL [for make selectable] or SET STATUS was acknowledged, or it was found.
    """

    topic: ClassVar[str] = "card.life_cycle_changed"
    instance: str  # AID
    domain: str  # the domain that it belongs to
    life_cycle: str
    found: bool = False


class ContentDeleted(Fact, frozen=True, kw_only=True):
    """DELETE was acknowledged; or the card told all that it holds, and these were not among it."""

    topic: ClassVar[str] = "card.content_deleted"
    target: str  # AID of the domain, application or load file
    domain: str  # that it belonged to; of a domain, its parent
    deleted: tuple[str, ...]  # AIDs of all that is gone: the target first, then what went with it
    found: bool = False


class ApplicationPersonalized(Fact, frozen=True, kw_only=True):
    """The last STORE DATA for an application was acknowledged."""

    topic: ClassVar[str] = "card.application_personalized"
    application: str
    domain: str


class CommandRefused(Fact, frozen=True, kw_only=True):
    """A command was answered with something other than 9000, by the card or by whoever carried it.

    Errors carry no R-MAC (GPC Amendment D 6.2.5). One that nothing protects stops the script, but the card may have
    executed the command.
    """

    topic: ClassVar[str] = "card.command_refused"
    domain: str
    command: str  # SELECT, INITIALIZE UPDATE, EXTERNAL AUTHENTICATE, COMMAND
    header: str  # CLA INS P1 P2, hex
    status_word: str  # hex
    verified: bool = False  # its R-MAC verified; otherwise the phone could have made it up


class CommandUnanswered(Fact, frozen=True, kw_only=True):
    """No answer that verifies came to a command that changes the card: whether it was executed is unknown."""

    topic: ClassVar[str] = "card.command_unanswered"
    domain: str
    header: str  # CLA INS P1 P2, hex


class ContentAudited(Fact, frozen=True, kw_only=True):
    """A domain that had been in doubt was asked what it holds; what the record lacked was recorded as found."""

    topic: ClassVar[str] = "card.content_audited"
    domain: str


class ContentUnknown(Fact, frozen=True, kw_only=True):
    """A list named what the record lacks, and told no more of it: no doubt ends before the card was asked for that."""

    topic: ClassVar[str] = "card.content_unknown"
    domain: str  # that told it
    scope: str  # P1 of GET STATUS, hex: 40 domains and applications, 20 load files
    unknown: tuple[str, ...]  # AIDs: all that is unknown in this scope; none when that is over


class CardAuthenticationFailed(Fact, frozen=True, kw_only=True):
    """The card could not prove its keys, or refused ours."""

    topic: ClassVar[str] = "card.authentication_failed"
    domain: str
    key_version: int
    failures: int  # of this domain, one after the other


class CardAuthenticated(Fact, frozen=True, kw_only=True):
    """Card and server proved their keys to each other after earlier failures; without those it is no news."""

    topic: ClassVar[str] = "card.authenticated"
    domain: str
    key_version: int


class CardReleased(Fact, frozen=True, kw_only=True):
    """The operator gave a domain its budget for failed authentications back."""

    topic: ClassVar[str] = "card.released"
    domain: str
    reason: str


class RetiredKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that a card has no more, as far as our vault may still hold them."""

    domain: str
    key_version: int
    key: str  # KeyRef
    check_values: tuple[str, ...]  # by which they are told from later ones under the same reference


class SecurityDomain(msgspec.Struct, frozen=True, kw_only=True):
    """A security domain on a card."""

    aid: str
    parent: str
    privileges: str = ""
    life_cycle: str = LifeCycle.SELECTABLE
    before_lock: str = ""  # its state before it was locked, to which unlocking returns; empty: nobody told
    key_version: int = 0  # 0: it has no keys yet
    proved: bool = True  # whether the card has authenticated itself with them, where PUT KEY replaced the issuer's
    key: str = ""  # KeyRef
    check_values: tuple[str, ...] = ()
    provisional: bool = False
    provisional_keys: tuple[KeysPut, ...] = ()  # all that somebody else put and our vault may still hold
    earlier_keys: tuple[RetiredKeys, ...] = ()  # its owner's that others replaced
    shared_keys: tuple[RetiredKeys, ...] = ()  # that its owner shared, the last of each version, put or not


class LoadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A load file on a card."""

    aid: str
    domain: str
    sha256: str  # empty, and size 0: the card told that it is there, and no more
    size: int


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """An application on a card."""

    aid: str
    domain: str
    life_cycle: str
    before_lock: str = ""  # as a domain's
    module: str = ""  # empty, as the next: it was on the card before we knew it
    load_file: str = ""
    privileges: str = ""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The card as its facts say."""

    registered: CardRegistered
    domains: Mapping[str, SecurityDomain]
    load_files: Mapping[str, LoadedFile] = msgspec.field(default_factory=dict)
    applications: Mapping[str, Application] = msgspec.field(default_factory=dict)
    failures: Mapping[str, int] = msgspec.field(default_factory=dict)  # by domain, since it last authenticated
    doubtful: frozenset[str] = frozenset()  # domains in which a command may have been executed without our knowing
    retired: tuple[RetiredKeys, ...] = ()
    named: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)  # by scope, as `ContentUnknown` has it

    @property
    def iccid(self) -> str:
        return self.registered.iccid

    @property
    def operator(self) -> str:
        return self.registered.operator

    @property
    def isd(self) -> str:
        return self.registered.isd

    @property
    def diversification(self) -> str:
        return self.registered.diversification

    def domain(self, aid: str) -> SecurityDomain:
        """UNKNOWN_SECURITY_DOMAIN when the card has none of this AID."""
        if aid not in self.domains:
            raise TsmError(ErrorCode.UNKNOWN_SECURITY_DOMAIN, f"{self.iccid} has no {aid}")
        return self.domains[aid]

    def owner(self, aid: str) -> str:
        """AID of the domain that something belongs to, of a domain its parent; NOT_FOUND when nothing has this AID."""
        part = self.applications.get(aid) or self.load_files.get(aid)
        if part is not None:
            return part.domain
        if aid not in self.domains:
            raise TsmError(ErrorCode.NOT_FOUND, f"{self.iccid} has no {aid}")
        return self.domains[aid].parent

    def holds(self, aid: str) -> bool:
        """Whether a domain, an application or a load file has this AID."""
        return aid in self.domains or aid in self.applications or aid in self.load_files

    def related(self, aid: str) -> tuple[str, ...]:
        """What belongs to something, in the order in which it can be deleted before it (GPCS v2.3.1 section 9.5).

        To a load file its applications; to a domain all that is in it, the domains below it included.
        """
        if aid in self.load_files:
            return tuple(one.aid for one in self.applications.values() if one.load_file == aid)
        if aid not in self.domains:
            return ()
        below = [one.aid for one in self.domains.values() if one.parent == aid and one.aid != aid]
        applications = [one.aid for one in self.applications.values() if one.domain == aid]
        load_files = [one.aid for one in self.load_files.values() if one.domain == aid]
        of_files = [one for file in load_files for one in self.related(file) if one not in applications]
        of_domains = [one for domain in below for one in (*self.related(domain), domain)]
        return tuple(dict.fromkeys([*applications, *of_files, *of_domains, *load_files]))

    @property
    def unknown(self) -> list[tuple[str, str]]:
        """Scope and AID of what the card has named and the record lacks."""
        return [(scope, aid) for scope, aids in self.named.items() for aid in aids if not self.holds(aid)]

    @property
    def destroyable(self) -> tuple[RetiredKeys, ...]:
        """Keys that may leave the vault: their domain is gone, or the card has proved those that replaced them."""
        return tuple(keys for keys in self.retired if keys.domain not in self.domains or self._is_replaced(keys))

    def _is_replaced(self, keys: RetiredKeys) -> bool:
        domain = self.domains[keys.domain]
        return domain.proved and not (domain.key == keys.key and domain.check_values == keys.check_values)

    def is_exhausted(self, domain: str) -> bool:
        """Whether a domain has failed `MAX_FAILURES` times in a row. The others are none the worse for it."""
        return self.failures.get(domain, 0) >= MAX_FAILURES

    def refuse_exhausted(self, domain: str) -> Self:
        """CARD_AUTHENTICATION_EXHAUSTED when the domain is."""
        if self.is_exhausted(domain):
            raise TsmError(ErrorCode.CARD_AUTHENTICATION_EXHAUSTED, f"{domain} on {self.iccid}")
        return self


def stream(iccid: str) -> str:
    """The card's stream."""
    return f"card-{iccid}"


def key_reference(iccid: str, domain: str, version: int) -> str:
    """Where the vault keeps the keys of a domain, but those of the issuer's that are derived from a master key."""
    return f"card/{iccid}/{domain}/{version:02x}"


def register(state: Card | None, registered: CardRegistered) -> list[CardRegistered]:
    """Decide to register a card; the same again is no news. INVALID_INPUT, ALREADY_EXISTS."""
    Iccid(registered.iccid)
    SpId(registered.operator)
    Aid(registered.isd)
    KeyRef(registered.key)
    check_hex(registered.iin, "iin")
    check_hex(registered.cin, "cin")
    check_hex(registered.diversification, "diversification", DIVERSIFICATION_OCTETS)
    check_name(registered.profile, "profile")
    if state is None:
        return [registered]
    if state.registered != registered:
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"card {registered.iccid}", ("iccid",))
    return []


def authentication_failed(state: Card, domain: str, key_version: int) -> list[CardAuthenticationFailed]:
    """Decide that an authentication failed. It counts even when the budget is used up already."""
    failures = state.failures.get(domain, 0) + 1
    return [CardAuthenticationFailed(domain=domain, key_version=key_version, failures=failures)]


def authenticated(state: Card, domain: str, key_version: int) -> list[CardAuthenticated]:
    """Decide that an authentication succeeded: news only after failures."""
    if not state.failures.get(domain, 0):
        return []
    return [CardAuthenticated(domain=domain, key_version=key_version)]


def unanswered(domain: str, header: str) -> list[CommandUnanswered]:
    """Decide that a command's outcome is unknown: news only when it changes the card."""
    return [CommandUnanswered(domain=domain, header=header)] if changes_content(header) else []


def audited(state: Card, domain: str) -> list[ContentAudited]:
    """Decide that a domain was asked what it holds: news only when it was in doubt, and named nothing unknown."""
    return [ContentAudited(domain=domain)] if domain in state.doubtful and not state.unknown else []


def listed(state: Card, domain: str, scope: str, aids: Collection[str], complete: bool) -> list[ContentUnknown]:
    """Decide what a list names of which the record knows nothing. One that is not complete takes back nothing."""
    before = state.named.get(scope, ())
    unknown = sorted({aid for aid in (*aids, *(() if complete else before)) if not state.holds(aid)})
    return [ContentUnknown(domain=domain, scope=scope, unknown=tuple(unknown))] if unknown != sorted(before) else []


def keys_proved(state: Card, domain: str, key_version: int) -> list[KeysProved]:
    """Decide that the card authenticated itself: news only when nothing had proved these keys before."""
    known = state.domains.get(domain)
    if known is None or known.proved or known.key_version != key_version:
        return []
    return [KeysProved(domain=domain, key_version=key_version)]


def keys_destroyed(state: Card, keys: RetiredKeys) -> list[KeysDestroyed]:
    """Decide that retired keys are gone from the vault; once more is no news."""
    if keys not in state.retired:
        return []
    return [
        KeysDestroyed(domain=keys.domain, key_version=keys.key_version, key=keys.key, check_values=keys.check_values)
    ]


def release(state: Card | None, iccid: str, operator: str, released: CardReleased) -> list[CardReleased]:
    """Decide that a domain gets its budget back; without failures it is no news.

    UNKNOWN_CARD, FORBIDDEN for the card of another operator, UNKNOWN_SECURITY_DOMAIN, INVALID_INPUT without a reason.
    """
    if state is None:
        raise TsmError(ErrorCode.UNKNOWN_CARD, iccid)
    if state.operator != operator:
        raise TsmError(ErrorCode.FORBIDDEN, "another operator's card")
    check_text(released.reason, "reason")
    return [released] if state.failures.get(state.domain(released.domain).aid, 0) else []


def changes_content(header: str) -> bool:
    """Whether a command changes what is on the card."""
    return header[2:4].lower() in CHANGES_CONTENT


def provisional_keys_destroyed(state: Card, put: KeysPut) -> list[ProvisionalKeysDestroyed]:
    """Decide that provisional keys are gone from the vault; once more is no news."""
    domain = state.domains.get(put.domain)
    if domain is None or put not in domain.provisional_keys:
        return []
    return [ProvisionalKeysDestroyed(domain=put.domain, key_version=put.key_version, key=put.key)]


def evolve(state: Card | None, fact: Fact) -> Card:
    """Fold one fact."""
    if isinstance(fact, CardRegistered):
        return _as_made(fact)
    if state is None:
        raise TsmError(ErrorCode.STORE_CORRUPT, "a card begins with its registration")
    match fact:
        case SecurityDomainCreated():
            return _with_domain(state, _created(fact))
        case KeysPut():
            return _with_keys_put(state, fact)
        case KeysShared():
            return _with_keys_shared(state, fact)
        case KeysProved():
            proved = msgspec.structs.replace(state.domain(fact.domain), proved=True)
            return _with_domain(state, proved)
        case KeysDestroyed():
            gone = (fact.key, fact.check_values)
            left = tuple(keys for keys in state.retired if (keys.key, keys.check_values) != gone)
            return msgspec.structs.replace(state, retired=left)
        case ProvisionalKeysDestroyed():
            return _with_domain(state, _without_keys(state.domain(fact.domain), fact.key))
        case LoadFileLoaded():
            loaded = LoadedFile(aid=fact.load_file, domain=fact.domain, sha256=fact.sha256, size=fact.size)
            return msgspec.structs.replace(state, load_files={**state.load_files, loaded.aid: loaded})
        case ApplicationInstalled():
            return _with_application(state, _installed(fact))
        case ApplicationPersonalized():
            return _with_application(state, _personalized(state.applications.get(fact.application), fact))
        case LifeCycleChanged():
            return _with_life_cycle(state, fact)
        case ContentDeleted():
            return _without(state, frozenset(fact.deleted))
        case CardAuthenticationFailed():
            return msgspec.structs.replace(state, failures={**state.failures, fact.domain: fact.failures})
        case CardAuthenticated() | CardReleased():
            return msgspec.structs.replace(state, failures={**state.failures, fact.domain: 0})
        case CommandUnanswered():
            return msgspec.structs.replace(state, doubtful=state.doubtful | {fact.domain})
        case CommandRefused() if changes_content(fact.header) and not fact.verified:
            return msgspec.structs.replace(state, doubtful=state.doubtful | {fact.domain})
        case ContentUnknown():
            return msgspec.structs.replace(state, named={**state.named, fact.scope: fact.unknown})
        case ContentAudited():
            return msgspec.structs.replace(state, doubtful=state.doubtful - {fact.domain})
        case _:
            return state


def _as_made(fact: CardRegistered) -> Card:
    issuer = SecurityDomain(
        aid=fact.isd,
        parent=fact.isd,
        life_cycle=LifeCycle.SECURED,
        key_version=fact.key_version,
        key=fact.key,
    )
    return Card(registered=fact, domains={fact.isd: issuer})


def _created(fact: SecurityDomainCreated) -> SecurityDomain:
    return SecurityDomain(aid=fact.domain, parent=fact.parent, privileges=fact.privileges, life_cycle=fact.life_cycle)


def _with_keys(domain: SecurityDomain, fact: KeysPut) -> SecurityDomain:
    """A selectable domain becomes personalized with its first keys (GPCS v2.3.1 section 5.3.2.3)."""
    selectable = domain.life_cycle == LifeCycle.SELECTABLE
    return msgspec.structs.replace(
        domain,
        key_version=fact.key_version,
        key=fact.key,
        check_values=fact.check_values,
        provisional=fact.provisional,
        provisional_keys=(*domain.provisional_keys, fact) if fact.provisional else domain.provisional_keys,
        life_cycle=LifeCycle.PERSONALIZED if selectable else domain.life_cycle,
    )


def _with_keys_put(state: Card, fact: KeysPut) -> Card:
    """The issuer's earlier keys retire, a provider's when its domain goes; provisional ones have their own end."""
    before = state.domain(fact.domain)
    state = _with_domain(state, _with_keys(before, fact))
    if before.key == fact.key:
        return state
    if fact.domain != state.isd:
        earlier = before.earlier_keys if before.provisional else (*before.earlier_keys, *_stored_keys(before))
        return _with_domain(state, msgspec.structs.replace(state.domain(fact.domain), earlier_keys=earlier))
    proved = msgspec.structs.replace(state.domain(fact.domain), proved=fact.found)
    return _with_domain(msgspec.structs.replace(state, retired=(*state.retired, *_stored_keys(before))), proved)


def _with_keys_shared(state: Card, fact: KeysShared) -> Card:
    """They are in use from now on, even if an earlier domain had them; those of a domain that is gone retire."""
    shared = RetiredKeys(
        domain=fact.domain,
        key_version=fact.key_version,
        key=key_reference(state.iccid, fact.domain, fact.key_version),
        check_values=fact.check_values,
    )
    retired = tuple(keys for keys in state.retired if not _are_same(keys, shared))
    domain = state.domains.get(fact.domain)
    if domain is None:
        return msgspec.structs.replace(state, retired=(*retired, shared))
    others = tuple(keys for keys in domain.shared_keys if keys.key != shared.key)
    state = msgspec.structs.replace(state, retired=retired)
    return _with_domain(state, msgspec.structs.replace(domain, shared_keys=(*others, shared)))


def _are_same(one: RetiredKeys, other: RetiredKeys) -> bool:
    """By their check values, as far as both have them: of the DEK that is not shared there is none."""
    pairs = zip(one.check_values, other.check_values, strict=False)
    return one.key == other.key and all(mine == others for mine, others in pairs)


def _stored_keys(domain: SecurityDomain) -> list[RetiredKeys]:
    """The keys that the vault holds for this domain alone: none that are derived from a master key."""
    if not domain.key_version or "?" in domain.key:
        return []
    return [
        RetiredKeys(domain=domain.aid, key_version=domain.key_version, key=domain.key, check_values=domain.check_values)
    ]


def _without(state: Card, gone: frozenset[str]) -> Card:
    """Keys of a domain that is gone retire, those that it had before included, and those that it never got."""
    domains = [domain for aid, domain in state.domains.items() if aid in gone]
    earlier = [
        RetiredKeys(domain=put.domain, key_version=put.key_version, key=put.key, check_values=put.check_values)
        for domain in domains
        for put in domain.provisional_keys
        if put.key != domain.key
    ]
    had = [*earlier, *(keys for domain in domains for keys in (*_stored_keys(domain), *domain.earlier_keys))]
    never_put = [
        shared
        for domain in domains
        for shared in domain.shared_keys
        if not any(_are_same(keys, shared) for keys in had)
    ]
    return msgspec.structs.replace(
        state,
        domains={aid: one for aid, one in state.domains.items() if aid not in gone},
        load_files={aid: one for aid, one in state.load_files.items() if aid not in gone},
        applications={aid: one for aid, one in state.applications.items() if aid not in gone},
        failures={aid: count for aid, count in state.failures.items() if aid not in gone},
        doubtful=state.doubtful - gone,
        retired=(*state.retired, *had, *never_put),
    )


def _without_keys(domain: SecurityDomain, key: str) -> SecurityDomain:
    left = tuple(put for put in domain.provisional_keys if put.key != key)
    return msgspec.structs.replace(domain, provisional_keys=left)


def _installed(fact: ApplicationInstalled) -> Application:
    return Application(
        aid=fact.application,
        domain=fact.domain,
        life_cycle=fact.life_cycle,
        module=fact.module,
        load_file=fact.load_file,
        privileges=fact.privileges,
    )


def _personalized(application: Application | None, fact: ApplicationPersonalized) -> Application:
    """An application that was never installed through us came with the card."""
    if application is None:
        return Application(aid=fact.application, domain=fact.domain, life_cycle=LifeCycle.PERSONALIZED)
    return msgspec.structs.replace(application, life_cycle=LifeCycle.PERSONALIZED)


def _with_life_cycle(state: Card, fact: LifeCycleChanged) -> Card:
    domain, application = state.domains.get(fact.instance), state.applications.get(fact.instance)
    if domain is not None:
        before = _before_lock(domain, fact.life_cycle)
        return _with_domain(state, msgspec.structs.replace(domain, life_cycle=fact.life_cycle, before_lock=before))
    if application is None:  # it came with the card
        application = Application(aid=fact.instance, domain=fact.domain, life_cycle=fact.life_cycle)
    before = _before_lock(application, fact.life_cycle)
    changed = msgspec.structs.replace(application, life_cycle=fact.life_cycle, before_lock=before)
    return _with_application(state, changed)


def _before_lock(instance: SecurityDomain | Application, now: str) -> str:
    if now != LifeCycle.LOCKED:
        return ""
    return instance.before_lock if instance.life_cycle == LifeCycle.LOCKED else instance.life_cycle


def _with_domain(state: Card, domain: SecurityDomain) -> Card:
    return msgspec.structs.replace(state, domains={**state.domains, domain.aid: domain})


def _with_application(state: Card, application: Application) -> Card:
    return msgspec.structs.replace(state, applications={**state.applications, application.aid: application})


# What a server knows of a card's keys, and how often they failed: nothing of what is on the card.
OF_KEYS_ONLY: tuple[type[Fact], ...] = (
    ProvisionalKeysHandedOut,
    KeysShared,
    ProvisionalKeysDestroyed,
    KeysProved,
    KeysDestroyed,
    CardAuthenticationFailed,
    CardAuthenticated,
    CardReleased,
)

FACTS: tuple[type[Fact], ...] = (
    CardRegistered,
    SecurityDomainCreated,
    KeysPut,
    ProvisionalKeysHandedOut,
    KeysShared,
    ProvisionalKeysDestroyed,
    KeysProved,
    KeysDestroyed,
    LoadFileLoaded,
    ApplicationInstalled,
    ApplicationPersonalized,
    LifeCycleChanged,
    ContentDeleted,
    CommandRefused,
    CommandUnanswered,
    ContentUnknown,
    ContentAudited,
    CardAuthenticationFailed,
    CardAuthenticated,
    CardReleased,
)
