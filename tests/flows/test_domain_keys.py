"""Keys of a provider's domain: what is shared, what PUT KEY brings, and when the operator's leave the vault."""

import msgspec
import pytest
from mas_world import DOMAIN, GET_KEY_INFORMATION, ICCID, ISD, KDD, OPERATOR, PROVIDER

from tsm.errors import ErrorCode, TsmError
from tsm.flows.domain_keys import DomainKeys
from tsm.flows.follower import StoredPosition
from tsm.flows.provisional_keys import ProvisionalKeysWorker
from tsm.globalplatform.commands import EncryptedKey, PutKey
from tsm.keys.primitives import unwrap_dek
from tsm.keys.vault import SoftwareVault
from tsm.mas.messages import Return
from tsm.mas.signing import MAS_TRANSPORT_KEY
from tsm.mas.status import Status, status_of
from tsm.model.card import ProvisionalKeysDestroyed
from tsm.model.service_provider import stream

PROVISIONAL, SHARED = f"card/{ICCID}/{DOMAIN}/01", f"card/{ICCID}/{DOMAIN}/02"


def refused(code):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


def put_key(world, key_set, replaced=1, version=2):
    """PUT KEY of any key set of the vault, under the provisional DEK."""
    keys = tuple(EncryptedKey(k.encrypted, k.check_value) for k in world.vault.wrap_key_set(key_set, PROVISIONAL))
    return PutKey(replaced, version, keys).apdu()


@pytest.fixture
def keys(world):
    """The provider's domain with provisional keys; `own` and `other` are key sets that the provider might put."""
    world.create_domain()
    world.vault.generate_aes_key_set("own")
    world.vault.generate_aes_key_set("other")
    world.vault.generate_transport_key(MAS_TRANSPORT_KEY)
    return DomainKeys(world.tsm, world.vault)


def share(world, keys, key_set, version=2):
    label = f"{PROVIDER}|{ICCID}|{DOMAIN}|{version:02x}".encode()
    wrapped = world.vault.export_key_set(key_set, keys.transport_key(), label, ("enc", "mac"))
    keys.take(PROVIDER, ICCID, version, world.vault.check_values(key_set), wrapped)


# PUT KEY when it is delegated


def test_keys_are_put_once_they_are_shared(world, keys):
    with refused(ErrorCode.UNKNOWN_KEY):
        world.delegate([put_key(world, "own")], PROVIDER)
    share(world, keys, "own")
    world.run([put_key(world, "own")], PROVIDER)
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    assert world.session(reception, PROVIDER).failed is None


def test_other_keys_than_the_shared_ones_are_refused_and_the_right_ones_may_still_be_shared(world, keys):
    share(world, keys, "other")
    with refused(ErrorCode.KEY_REFUSED):
        world.delegate([put_key(world, "own")], PROVIDER)
    assert status_of(ErrorCode.KEY_REFUSED) is Status.KEYS_DIFFER
    assert world.topics("delegation-JPKI") == []

    share(world, keys, "own")
    world.run([put_key(world, "own")], PROVIDER)
    assert world.card_record().domain(DOMAIN).check_values == world.vault.check_values("own")


def test_keys_that_the_card_acknowledged_stay(world, keys):
    share(world, keys, "own")
    world.run([put_key(world, "own")], PROVIDER)
    with refused(ErrorCode.ALREADY_EXISTS):
        share(world, keys, "other")
    share(world, keys, "own")
    assert world.vault.check_values(SHARED) == world.vault.check_values("own")[:2]


def test_keys_that_were_exchanged_while_they_were_put_are_shared_again_before_anything_is_sent_under_them(world, keys):
    share(world, keys, "own")
    reception = world.delegate([put_key(world, "own")], PROVIDER)
    share(world, keys, "other")
    world.phone().run(reception, PROVIDER)
    with refused(ErrorCode.UNKNOWN_KEY):
        world.delegate([GET_KEY_INFORMATION], PROVIDER)
    share(world, keys, "own")
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    assert world.session(reception, PROVIDER).failed is None
    assert "card.authentication_failed" not in world.topics("card-")


@pytest.mark.parametrize(
    ("replaced", "version"),
    [
        (1, 1),  # a version by itself: nobody could tell which keys it has
        (0, 1),
        (0, 2),  # beside the provisional keys, which would stay on the card
        (3, 2),
    ],
)
def test_own_keys_take_the_place_of_the_provisional_ones(world, keys, replaced, version):
    share(world, keys, "own")
    with refused(ErrorCode.INVALID_INPUT):
        world.delegate([put_key(world, "own", replaced, version)], PROVIDER)


def test_each_put_key_of_a_script_is_looked_at(world, keys):
    share(world, keys, "own")
    first, own = put_key(world, "own"), "own"
    keys_3 = tuple(EncryptedKey(k.encrypted, k.check_value) for k in world.vault.wrap_key_set("other", own))
    second = PutKey(2, 3, keys_3).apdu()
    with refused(ErrorCode.UNKNOWN_KEY):
        world.delegate([first, second], PROVIDER)
    share(world, keys, "other", version=3)
    world.delegate([first, second], PROVIDER)


def test_the_operator_puts_no_keys_that_the_vault_lacks_into_its_own_domain(world, keys):
    isd = f"operator/{OPERATOR}/isd?kdf3={KDD.hex()}"
    new = tuple(EncryptedKey(k.encrypted, k.check_value) for k in world.vault.wrap_key_set("own", isd))
    with refused(ErrorCode.UNKNOWN_KEY):
        world.delegate([PutKey(1, 2, new).apdu()])


def test_a_provider_whose_domain_is_the_issuers_delegates_nothing(world):
    enrolled = world.facts(stream(PROVIDER))[0]
    world.record(stream(PROVIDER), msgspec.structs.replace(enrolled, domain=ISD))
    with refused(ErrorCode.FORBIDDEN):
        world.delegate([GET_KEY_INFORMATION], PROVIDER)


# The end of the provisional keys


@pytest.fixture
def worker(world, tmp_path):
    return ProvisionalKeysWorker(world.tsm, world.vault, StoredPosition(tmp_path / "position"))


def follow(world, worker):
    """Let the worker read the whole log, as after a restart without its position."""
    for event in world.events():
        worker.see(event)
    worker.act()


def destroyed(world):
    return [event for event in world.events() if isinstance(event.fact, ProvisionalKeysDestroyed)]


def test_provisional_keys_leave_the_vault_when_the_owners_have_replaced_them(world, worker):
    world.create_domain()
    follow(world, worker)
    assert world.vault.has(PROVISIONAL)

    world.run([world.rotation()], PROVIDER)
    follow(world, worker)
    assert not world.vault.has(PROVISIONAL)
    with refused(ErrorCode.UNKNOWN_KEY):
        world.vault.export_key_set(PROVISIONAL, world.vault.public_key(MAS_TRANSPORT_KEY), b"")
    [event] = destroyed(world)
    assert event.fact == ProvisionalKeysDestroyed(domain=DOMAIN, key_version=1, key=PROVISIONAL)
    assert (event.originator_id, event.context.actor) == (f"card-{ICCID}", "system:provisional-keys")
    assert worker.unfinished() is None
    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    assert world.session(reception, PROVIDER).failed is None


def test_destroying_again_and_by_two_servers_is_no_news(world, worker, tmp_path):
    world.create_domain()
    world.run([world.rotation()], PROVIDER)
    _, tsm, _ = world.worker()
    for each in (worker, worker, ProvisionalKeysWorker(tsm, world.vault, StoredPosition(tmp_path / "other"))):
        follow(world, each)
    assert len(destroyed(world)) == 1
    assert not world.vault.has(PROVISIONAL)


def test_a_server_that_stopped_between_vault_and_log_records_it_later(world, worker):
    world.create_domain()
    world.run([world.rotation()], PROVIDER)
    world.vault.destroy(PROVISIONAL)
    follow(world, worker)
    assert len(destroyed(world)) == 1


def test_the_session_that_replaces_the_keys_comes_to_its_end_under_them(world, worker):
    world.create_domain()
    reception, phone = world.delegate([world.rotation(), GET_KEY_INFORMATION], PROVIDER), world.phone()
    answer = phone.start(reception, PROVIDER)
    while world.card_record().domain(DOMAIN).provisional:
        answer = phone.say(phone.obey(answer))

    follow(world, worker)
    assert world.vault.has(PROVISIONAL)
    assert worker.unfinished() is not None
    while answer.process is not Return.END:
        answer = phone.say(phone.obey(answer))
    assert world.session(reception, PROVIDER).executed == 2
    worker.act()
    assert not world.vault.has(PROVISIONAL)
    assert worker.unfinished() is None


def test_a_session_that_nobody_continued_does_not_keep_them(world, worker):
    world.create_domain()
    reception, phone = world.delegate([world.rotation(), GET_KEY_INFORMATION], PROVIDER), world.phone()
    answer = phone.start(reception, PROVIDER)
    while world.card_record().domain(DOMAIN).provisional:
        answer = phone.say(phone.obey(answer))
    world.clock.pass_by(seconds=61)
    world.sessions.expire(PROVIDER, reception)
    follow(world, worker)
    assert not world.vault.has(PROVISIONAL)


def test_this_server_could_unwrap_the_providers_dek_until_the_provisional_keys_are_gone(world, worker, tmp_path):
    """The provider's DEK passes through its delegation, under the provisional DEK."""
    own_vault = SoftwareVault.create(tmp_path / "provider", tmp_path / "provider-kek")
    own_vault.generate_transport_key("transport")
    enrolled = world.facts(stream(PROVIDER))[0]
    transport = own_vault.public_key("transport").hex()
    world.record(stream(PROVIDER), msgspec.structs.replace(enrolled, transport_key=transport))
    world.vault.generate_transport_key(MAS_TRANSPORT_KEY)
    keys = DomainKeys(world.tsm, world.vault)
    world.create_domain()
    given = keys.provisional(PROVIDER, ICCID)
    own_vault.import_key_set("provisional", given.wrapped, "transport", given.label, given.check_values)
    own_vault.generate_aes_key_set("own")
    label = f"{PROVIDER}|{ICCID}|{DOMAIN}|02".encode()
    wrapped = own_vault.export_key_set("own", keys.transport_key(), label, ("enc", "mac"))
    keys.take(PROVIDER, ICCID, 2, own_vault.check_values("own"), wrapped)
    put = tuple(EncryptedKey(k.encrypted, k.check_value) for k in own_vault.wrap_key_set("own", "provisional"))
    recorded = put[2].encrypted  # as somebody who delegates, relays or serves may have kept it
    assert recorded_dek(world, recorded) == own_vault._find_key_set("own").dek
    world.run([PutKey(1, 2, put).apdu()], PROVIDER)
    follow(world, worker)

    with refused(ErrorCode.UNKNOWN_KEY):
        recorded_dek(world, recorded)
    assert world.vault.check_values(SHARED) == own_vault.check_values("own")[:2]  # ENC and MAC
    assert not any(of.startswith("delegation") for of, _ in world.payloads())
    own_vault.close()


def recorded_dek(world, wrapped):
    """What this server can make of a DEK that was wrapped under the provisional one."""
    return unwrap_dek(world.vault._find_key_set(PROVISIONAL).dek, wrapped)


# Where the browser goes


def test_the_session_remembers_which_return_url_was_signed_and_end_tells_it(world):
    reception, phone = world.delegate([GET_KEY_INFORMATION]), world.phone()
    answer, told = phone.start(reception), []
    while answer.process is not Return.END:
        request = phone.obey(answer)
        given = world.sessions.link(request, phone.cookie)
        told.append(given.return_url)
        assert world.sessions.link(request, phone.cookie) == given
        phone.cookie, answer = given.cookie, type(answer).parse(given.body)
    signed = "https://tsm.example/mno/return"
    assert told == [""] * (len(told) - 1) + [signed]
    assert world.session(reception).started.return_url == signed
