"""Sessions from DELEGATE to END with a real simulated card: what goes well."""

from functools import partial

from mas_world import DOMAIN, GET_IIN, GET_KEY_INFORMATION, ICCID, OPERATOR, PROVIDER

from tsm.globalplatform.apdu import CommandApdu
from tsm.keys.vault import verify_signature
from tsm.mas.launch import verify_mas_sign
from tsm.mas.messages import NotificationRequest, Return
from tsm.mas.signing import MAS_SIGNING_KEY
from tsm.mas.status import Status
from tsm.model.card import KeysPut, SecurityDomainCreated
from tsm.model.session import CommandSent, ResponseReceived


def test_a_script_reaches_the_card_through_a_secure_channel(world):
    reception, phone = world.run([GET_IIN, GET_KEY_INFORMATION])

    assert phone.processes == ["CONNECT", *["COMMAND"] * 5, "DISCONNECT", "END"]
    assert [fact.step for fact in world.facts(f"session-{OPERATOR}") if isinstance(fact, CommandSent)] == [
        "SELECT", "INITIALIZE UPDATE", "EXTERNAL AUTHENTICATE", "COMMAND", "COMMAND",
    ]  # fmt: skip
    assert world.session(reception).executed == 2
    assert world.delegation(reception).ended.executed == 2


def test_the_phone_sees_only_what_it_cannot_read(world):
    _, phone = world.run([CommandApdu(0x80, 0xCA, 0x00, 0x42, b"secret data", 0x100).encode()])
    wire = b"".join(answer.apdu for answer in phone.said)
    assert b"secret data" not in wire
    answers = b"".join(request.data for request, _ in phone.requests[-2:])
    assert bytes.fromhex("89811000") not in answers


def test_the_final_answer_is_signed_over_provider_reception_and_status(world):
    reception, phone = world.run([GET_IIN])
    verify = partial(verify_signature, world.vault.public_key(MAS_SIGNING_KEY))
    status = verify_mas_sign(verify, OPERATOR, reception, phone.said[-1].mas_sign)
    assert status is Status.NOT_ALL_ACKNOWLEDGED  # no worker runs here
    assert world.session(reception).ended.status == status


def test_every_exchange_is_one_commit_and_every_event_tells_its_story(world):
    before = len(world.events())
    _, phone = world.run([GET_IIN])
    events = world.events()[before:]
    assert {event.context.correlation for event in events} == {"story"}
    assert len({event.context.command for event in events}) == 1 + len(phone.said)
    assert events[0].context.actor == f"operator:{OPERATOR}"
    assert {event.context.actor for event in events[1:]} == {"phone"}
    assert all(event.context.tenant == OPERATOR for event in events)


def test_no_command_and_no_response_enters_the_log(world):
    command = CommandApdu(0x80, 0xCA, 0x00, 0x42, b"secret data", 0x100)
    world.run([command.encode()])
    stored = b"".join(recorded.state for recorded in world.recorder.select_notifications(1, 10_000))
    assert command.data not in stored
    assert command.data.hex().encode() not in stored
    assert b"80ca0042" in stored  # the header may be known


def test_delegated_commands_leave_the_server_with_the_end(world):
    reception = world.delegate([GET_IIN, GET_IIN])
    assert [name for _, name in world.payloads()] == ["command-001", "command-002"]
    world.phone().run(reception)
    assert [stream for stream, _ in world.payloads()] == [
        f"notification-{OPERATOR}-{reception}-1", f"notification-{OPERATOR}-{reception}-2",
    ]  # fmt: skip


def test_the_result_of_each_delegated_command_waits_for_its_notify(world):
    reception, _ = world.run([GET_IIN])
    message = world.tsm.payload(f"notification-{OPERATOR}-{reception}-1", "request")
    notified = NotificationRequest.parse(message)
    assert (notified.order, notified.response_number, notified.status) == (1, 1, "00")
    assert notified.status_word == b"\x90\x00"
    assert notified.data == bytes.fromhex("420489811000")


def test_any_worker_can_take_the_next_request(world):
    reception = world.delegate([GET_IIN, GET_KEY_INFORMATION])
    workers = [world.worker() for _ in range(3)]
    phone = world.phone()
    answer = phone.start(reception)
    for turn in range(100):
        phone.sessions = workers[turn % 3][2]
        answer = phone.say(phone.obey(answer))
        if answer.process is Return.END:
            break
    assert world.session(reception).executed == 2
    for recorder, _, _ in workers:
        recorder.close()


def test_no_session_key_is_stored_but_what_derives_it(world):
    reception, _ = world.run([GET_IIN])
    session = world.session(reception)
    assert len(session.host_challenge) == len(session.card_challenge) == 16
    sent = [fact for fact in world.facts("session") if isinstance(fact, CommandSent)]
    assert [fact.counter for fact in sent] == [0, 0, 0, 1]
    assert [len(fact.chaining) for fact in sent] == [0, 0, 32, 32]
    received = [fact for fact in world.facts("session") if isinstance(fact, ResponseReceived)]
    assert [fact.key_version for fact in received] == [0, 1, 0, 0]


def test_an_operator_creates_a_domain_with_provisional_keys_and_its_owner_replaces_them(world):
    world.create_domain()
    domain = world.card_record().domain(DOMAIN)
    assert (domain.provisional, domain.key_version, domain.life_cycle) == (True, 1, "PERSONALIZED")
    assert domain.check_values == world.vault.check_values(domain.key)

    world.run([world.rotation(), GET_KEY_INFORMATION], PROVIDER)
    domain = world.card_record().domain(DOMAIN)
    assert (domain.provisional, domain.key_version) == (False, 2)
    assert domain.check_values == world.vault.check_values(domain.key)

    reception, _ = world.run([GET_KEY_INFORMATION], PROVIDER)
    assert world.session(reception, PROVIDER).executed == 1
    assert world.session(reception, PROVIDER).started.key_version == 2
    facts = world.facts(f"card-{ICCID}")
    assert [type(fact) for fact in facts[1:]] == [SecurityDomainCreated, KeysPut, KeysPut]


def test_a_providers_session_concerns_the_operator_too(world):
    world.create_domain()
    before = len(world.events())
    world.run([GET_KEY_INFORMATION], PROVIDER)
    contexts = [event.context for event in world.events()[before:]]
    assert {(context.tenant, context.tenants) for context in contexts} == {(PROVIDER, (OPERATOR,))}
