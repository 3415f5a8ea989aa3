"""What a card tells of its content, and what of it is news."""

import msgspec
import pytest
from mas_world import DOMAIN, GET_IIN, GET_KEY_INFORMATION, ICCID, ISD, OPERATOR, World

from tsm.flows.audit import (
    BRIEF,
    INSTANCES,
    LOAD_FILES,
    WITNESS,
    asks_enough,
    everything,
    found,
    inventory,
    proof_of_absence,
    questions,
)
from tsm.flows.content import life_cycle
from tsm.globalplatform.commands import Delete, GetStatus, InstallForInstall, parse_command
from tsm.globalplatform.responses import StatusEntry
from tsm.model import card as cards
from tsm.model.card import (
    ApplicationInstalled,
    Card,
    CommandUnanswered,
    ContentAudited,
    ContentDeleted,
    ContentUnknown,
    KeysPut,
    LifeCycleChanged,
    LoadFileLoaded,
    SecurityDomainCreated,
)
from tsm.model.session import ResponseReceived

APPLICATION, LOAD_FILE = "D392F000260100000001", "D392F0002601FF"
OTHER = "A00000000101"  # of which the record knows nothing
CHECK_VALUES = ("010101", "020202", "030303")
KEY = f"card/{ICCID}/{DOMAIN}/01"


@pytest.fixture
def bare(tmp_path):
    """A card as registered."""
    world = World(tmp_path)
    yield world.card_record()
    world.close()


@pytest.fixture
def card(tmp_path):
    """A card with the provider's domain."""
    world = World(tmp_path)
    world.create_domain()
    yield world.card_record()
    world.close()


def entry(aid, state=0x07, privileges="000000", load_file="", domain=ISD):
    return StatusEntry(bytes.fromhex(aid), state, *map(bytes.fromhex, (privileges, load_file, domain)))


def told(card: Card, scope, *entries, keys=()):
    answer = b"".join(one.encode() for one in entries)
    vault = dict.fromkeys(keys, CHECK_VALUES)
    return found(card, GetStatus(scope).apdu(), answer, lambda key: vault.get(key, ()))


CREATED = SecurityDomainCreated(domain=DOMAIN, parent=ISD, privileges="800000", life_cycle="SELECTABLE", found=True)
PUT = KeysPut(domain=DOMAIN, key_version=1, check_values=CHECK_VALUES, provisional=True, key=KEY, found=True)


def test_a_domain_is_found_without_its_keys_and_with_those_that_we_were_to_put(bare):
    assert told(bare, INSTANCES, entry(DOMAIN, privileges="800000"), keys=[KEY]) == [CREATED]
    personalized = entry(DOMAIN, 0x0F, "800000")
    created = msgspec.structs.replace(CREATED, life_cycle="PERSONALIZED")
    assert told(bare, INSTANCES, personalized, keys=[KEY]) == [created, PUT]
    assert told(bare, INSTANCES, personalized) == [created]  # whoever put keys there, it was not us


def test_what_the_record_has_already_is_no_news(card):
    assert told(card, INSTANCES, entry(DOMAIN, 0x0F, "800000"), entry(ISD, 0x0F, "800000"), keys=[KEY]) == []


def test_another_state_is_news(card):
    assert told(card, INSTANCES, entry(DOMAIN, 0x8F, "800000")) == [
        LifeCycleChanged(instance=DOMAIN, domain=ISD, life_cycle="LOCKED", found=True)
    ]


def test_an_application_and_its_domain_are_found_in_one_answer(bare):
    answer = (entry(DOMAIN, privileges="800000"), entry(APPLICATION, load_file=LOAD_FILE, domain=DOMAIN))
    application = ApplicationInstalled(
        application=APPLICATION,
        module="",
        load_file=LOAD_FILE,
        domain=DOMAIN,
        privileges="000000",
        life_cycle="SELECTABLE",
        found=True,
    )
    assert told(bare, INSTANCES, *answer) == [CREATED, application]


def test_of_a_load_file_only_the_place_is_told(card):
    assert told(card, LOAD_FILES, entry(LOAD_FILE, 0x01, "", domain=DOMAIN)) == [
        LoadFileLoaded(load_file=LOAD_FILE, domain=DOMAIN, sha256="", size=0, found=True)
    ]


def test_what_lies_in_a_domain_that_nobody_recorded_is_left_out(bare):
    assert told(bare, INSTANCES, entry(APPLICATION, domain=DOMAIN)) == []
    assert told(bare, LOAD_FILES, entry(LOAD_FILE, 0x01, "", domain=DOMAIN)) == []


WITHOUT_IT = ContentDeleted(target=DOMAIN, domain=ISD, deleted=(DOMAIN,), found=True)


def listed(card: Card, command, *entries, complete=True):
    """What a list tells but that it names something unknown, which has tests of its own."""
    return [fact for fact in listed_all(card, command, *entries, complete=complete) if type(fact) is not ContentUnknown]


def listed_all(card: Card, command, *entries, complete=True):
    return found(card, command, b"".join(one.encode() for one in entries), lambda _: (), complete=complete)


def brief(aid, state=0x07):
    return StatusEntry(bytes.fromhex(aid), state)


def test_a_list_of_everything_proves_what_is_not_in_it(card):
    assert listed(card, everything(INSTANCES), brief(OTHER)) == [WITHOUT_IT]
    assert listed(card, everything(INSTANCES), brief(DOMAIN, 0x0F)) == []
    assert listed(card, everything(LOAD_FILES), brief(OTHER, 0x01)) == []


def test_with_a_domain_all_is_gone_that_was_in_it(card):
    loaded = LoadFileLoaded(load_file=LOAD_FILE, domain=DOMAIN, sha256="", size=0)
    card = cards.evolve(card, loaded)
    gone = msgspec.structs.replace(WITHOUT_IT, deleted=(DOMAIN, LOAD_FILE))
    assert listed(card, everything(INSTANCES), brief(OTHER)) == [gone]
    file_gone = ContentDeleted(target=LOAD_FILE, domain=DOMAIN, deleted=(LOAD_FILE,), found=True)
    assert listed(card, everything(LOAD_FILES), brief(OTHER, 0x01)) == [file_gone]


def test_nothing_else_proves_it(card):
    """A list with more to come, or of another domain's; a question for some; the rest of an answer."""
    assert listed(card, everything(INSTANCES), brief(OTHER), complete=False) == []
    assert listed(card, GetStatus(INSTANCES, bytes.fromhex("A0"), tag_list=BRIEF).apdu(), brief(OTHER)) == []
    assert listed(card, GetStatus(INSTANCES, next=True, tag_list=BRIEF).apdu(), brief(OTHER)) == []
    assert found(card, everything(INSTANCES), b"\xe3\x05\x4f", lambda _: (), complete=True) == []


def test_a_brief_list_tells_states_and_introduces_nobody(card):
    locked = LifeCycleChanged(instance=DOMAIN, domain=ISD, life_cycle="LOCKED", found=True)
    assert listed(card, everything(INSTANCES), brief(OTHER), brief(DOMAIN, 0x8F)) == [locked]


def unknown(*aids, scope="40"):
    return ContentUnknown(domain=ISD, scope=scope, unknown=aids)


def test_what_a_list_names_and_the_record_lacks_is_remembered_until_it_is_known_or_gone(card):
    instances, files = everything(INSTANCES), everything(LOAD_FILES)
    named = brief(DOMAIN, 0x0F), brief(OTHER)
    assert listed_all(card, instances, *named) == [unknown(OTHER)]
    assert listed_all(card, files, brief(OTHER, 0x01)) == [unknown(OTHER, scope="20")]
    assert listed_all(card, files, brief("A0000001515350", 0x01)) == []  # of security domains: every UICC has it
    after = cards.evolve(card, unknown(OTHER))
    assert after.unknown == [("40", OTHER)]
    assert listed_all(after, instances, *named) == []  # no news
    assert listed_all(after, instances, named[0], complete=False) == []  # nor does less than everything take it back
    assert listed_all(after, instances, complete=False) == []
    assert listed_all(after, instances, named[0]) == [unknown()]
    [installed] = told(after, INSTANCES, entry(OTHER))
    assert cards.evolve(after, installed).unknown == []


def test_a_doubt_does_not_end_while_something_is_unknown(card):
    doubtful = cards.evolve(card, CommandUnanswered(domain=ISD, header="80e60c00"))
    assert cards.audited(doubtful, ISD) == [ContentAudited(domain=ISD)]
    assert cards.audited(cards.evolve(doubtful, unknown(OTHER)), ISD) == []
    known = cards.evolve(cards.evolve(doubtful, unknown(OTHER)), unknown())
    assert cards.audited(known, ISD) == [ContentAudited(domain=ISD)]


def test_a_proof_of_absence_has_a_witness_that_goes_again(card):
    install, instances, delete, files = map(parse_command, proof_of_absence(card))
    assert isinstance(install, InstallForInstall) and install.application_aid == WITNESS
    assert delete == Delete(WITNESS)
    assert [parse_command(everything(scope)) for scope in (INSTANCES, LOAD_FILES)] == [instances, files]
    left_behind = msgspec.structs.replace(CREATED, domain=WITNESS.hex().upper())
    assert proof_of_absence(cards.evolve(card, left_behind)) == proof_of_absence(card)[1:]


def test_only_a_script_that_asks_for_instances_and_at_last_for_load_files_ends_a_doubt(card):
    def headers(*commands):
        return [command.header.hex() for command in commands]

    assert asks_enough(headers(*questions(DOMAIN, LOAD_FILE, APPLICATION)))
    assert asks_enough(headers(*inventory()))
    assert asks_enough(headers(*proof_of_absence(card)))
    assert not asks_enough(headers(everything(INSTANCES)))
    assert not asks_enough(headers(*inventory(), Delete(WITNESS).apdu()))
    assert not asks_enough([])


def test_an_answer_that_is_not_understood_is_no_news(bare):
    assert found(bare, GetStatus(INSTANCES).apdu(), b"\xe3\x05\x4f", lambda _: ()) == []


@pytest.mark.parametrize(
    ("octet", "name"),
    [
        (0x03, "INSTALLED"),
        (0x07, "SELECTABLE"),
        (0x0F, "PERSONALIZED"),
        (0x17, "PERSONALIZED"),
        (0x83, "LOCKED"),
        (0x8F, "LOCKED"),
    ],
)
def test_a_state_has_the_standards_name(octet, name):
    assert life_cycle(octet) == name


def test_each_question_is_for_one_thing_so_that_its_answer_fits():
    asked = [GetStatus.parse(command) for command in questions(DOMAIN, LOAD_FILE, APPLICATION)]
    assert [(one.scope, one.aid.hex().upper()) for one in asked] == [
        (INSTANCES, DOMAIN),
        (LOAD_FILES, LOAD_FILE),
        (INSTANCES, APPLICATION),
    ]


def test_a_question_that_finds_nothing_or_not_all_lets_a_script_go_on(world):
    world.create_domain()
    everything = GetStatus(LOAD_FILES).apdu()
    reception, _ = world.run([*questions("A00000000101", LOAD_FILE, APPLICATION), everything, GET_IIN])
    answers = [fact for fact in world.facts(f"session-{OPERATOR}-{reception}") if isinstance(fact, ResponseReceived)]
    assert [answer.status_word for answer in answers[3:]] == ["6a88", "6a88", "6a88", "9000", "9000"]
    assert (world.session(reception).failed, world.session(reception).executed) == (None, 5)


def test_a_refusal_of_anything_else_still_stops_the_script(world):
    reception, _ = world.run([bytes.fromhex("80CA123400"), GET_KEY_INFORMATION])
    assert world.session(reception).executed == 0
