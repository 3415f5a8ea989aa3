"""SCP03: real exchanges, both ends against each other, a channel taken up by another worker, and forgeries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import vector, vectors
from tsm.channels.scp03 import (
    LEVELS,
    CardSecurityError,
    Scp03CardChannel,
    Scp03Channel,
    external_authenticate,
    max_command_data,
)
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu
from tsm.globalplatform.responses import InitializeUpdateResponse
from tsm.keys.primitives import KeySet, SessionKeys

KEYS = KeySet(bytes(range(16)), bytes(range(16, 32)))
FULL = 0x33

levels = st.sampled_from(LEVELS)
status_words = st.sampled_from([0x9000, 0x6310, 0x6283, 0x6982, 0x6A80])
expected_lengths = st.none() | st.integers(1, 256)


def session_keys() -> SessionKeys:
    return SessionKeys.derive(KEYS, b"host-cha", b"card-cha")


def open_channel(level: int = FULL) -> tuple[Scp03Channel, Scp03CardChannel]:
    """Both ends after EXTERNAL AUTHENTICATE, each with keys of its own."""
    card = Scp03CardChannel(session_keys())
    command, chaining = external_authenticate(session_keys(), level)
    assert card.external_authenticate(CommandApdu.parse(command.encode()))
    return Scp03Channel(session_keys(), level, chaining=chaining), card


# Real exchanges


@pytest.mark.parametrize("name", vectors("scp03-session"))
def test_commands_and_responses_are_those_of_the_vector(name: str) -> None:
    v = vector(name)
    answer = InitializeUpdateResponse.parse(bytes.fromhex(v["init_update_response"])[:32])
    host_challenge = CommandApdu.parse(bytes.fromhex(v["init_update_command"])).data
    static = KeySet(*(bytes.fromhex(v[part]) for part in ("key_enc", "key_mac", "key_dek")))
    keys = SessionKeys.derive(static, host_challenge, answer.card_challenge)

    command, chaining = external_authenticate(keys, v["security_level"])
    assert command.encode().hex() == v["external_authenticate"]

    channel = Scp03Channel(keys, v["security_level"], chaining=chaining)
    responses = v.get("protected_responses") or v["responses"]
    plain_responses = v.get("plain_responses") or responses
    for plain, wrapped, response, expected in zip(
        v["plain_commands"], v["wrapped_commands"], responses, plain_responses, strict=True
    ):
        assert channel.wrap(CommandApdu.parse(bytes.fromhex(plain))).encode().hex() == wrapped
        if response:
            assert channel.unwrap(ResponseApdu.parse(bytes.fromhex(response))).encode().hex() == expected


@pytest.mark.parametrize("name", vectors("scp03-session"))
def test_the_cards_end_reads_the_commands_of_the_vector(name: str) -> None:
    """And answers as the card of the vector did, where that is known."""
    v = vector(name)
    answer = InitializeUpdateResponse.parse(bytes.fromhex(v["init_update_response"])[:32])
    host_challenge = CommandApdu.parse(bytes.fromhex(v["init_update_command"])).data
    static = KeySet(bytes.fromhex(v["key_enc"]), bytes.fromhex(v["key_mac"]))
    card = Scp03CardChannel(SessionKeys.derive(static, host_challenge, answer.card_challenge))

    assert card.external_authenticate(CommandApdu.parse(bytes.fromhex(v["external_authenticate"])))
    for number, (plain, wrapped) in enumerate(zip(v["plain_commands"], v["wrapped_commands"], strict=True)):
        assert card.unwrap(CommandApdu.parse(bytes.fromhex(wrapped))).encode().hex() == plain
        protected = v.get("protected_responses", [None] * 9)[number]
        if protected:
            response = ResponseApdu.parse(bytes.fromhex(v["plain_responses"][number]))
            assert card.wrap(response).encode().hex() == protected


# Both ends


@given(
    level=levels,
    exchanges=st.lists(
        st.tuples(st.binary(max_size=239), expected_lengths, st.binary(max_size=230), status_words), max_size=6
    ),
)
def test_what_one_end_wraps_the_other_unwraps(
    level: int, exchanges: list[tuple[bytes, int | None, bytes, int]]
) -> None:
    host, card = open_channel(level)
    for data, le, answer, sw in exchanges:
        command = CommandApdu(0x80, 0xE2, 0x00, 0x01, data, le)
        wire = host.wrap(command).encode()
        assert len(wire) <= 4 + 1 + 255 + 1
        assert card.unwrap(CommandApdu.parse(wire)) == command
        is_error = sw not in (0x9000, 0x6310, 0x6283)
        response = ResponseApdu(b"" if is_error else answer, sw)
        assert host.unwrap(ResponseApdu.parse(card.wrap(response).encode())) == response


@given(level=levels, exchanges=st.lists(st.tuples(st.binary(max_size=239), st.binary(max_size=100)), min_size=1))
def test_another_worker_can_take_the_channel_up_between_any_two_messages(
    level: int, exchanges: list[tuple[bytes, bytes]]
) -> None:
    """Each message is wrapped or unwrapped by a channel made anew of counter and chaining value."""
    first, card = open_channel(level)
    counter, chaining = first.counter, first.chaining
    for number, (data, answer) in enumerate(exchanges, start=1):
        sender = Scp03Channel(session_keys(), level, counter, chaining)
        command = CommandApdu(0x80, 0xE2, 0x00, 0x01, data)
        wire = sender.wrap(command)
        assert wire == first.wrap(command)
        counter, chaining = sender.counter, sender.chaining
        assert counter == number
        assert card.unwrap(wire) == command
        response = card.wrap(ResponseApdu(answer, 0x9000))
        receiver = Scp03Channel(session_keys(), level, counter, chaining)
        assert receiver.unwrap(response).data == answer
        assert (receiver.counter, receiver.chaining) == (counter, chaining)


@pytest.mark.parametrize(("level", "most"), [(0x01, 247), (0x03, 239), (0x11, 247), (0x13, 239), (0x33, 239)])
def test_as_much_data_as_fits_and_no_more(level: int, most: int) -> None:
    assert max_command_data(level) == most
    host, card = open_channel(level)
    largest = CommandApdu(0x80, 0xE8, 0x00, 0x00, bytes(most), 256)
    assert card.unwrap(CommandApdu.parse(host.wrap(largest).encode())) == largest
    refuses(ErrorCode.INVALID_INPUT, lambda: host.wrap(CommandApdu(0x80, 0xE8, 0x00, 0x01, bytes(most + 1))))
    assert host.counter == 1, "what was refused was not sent"


def test_success_without_data_carries_an_r_mac_alone() -> None:
    host, card = open_channel()
    card.unwrap(host.wrap(CommandApdu(0x80, 0xE2, 0x88, 0x00, b"data")))
    response = card.wrap(ResponseApdu(b"", 0x9000))
    assert len(response.data) == 8
    assert host.unwrap(response) == ResponseApdu(b"", 0x9000)


def test_an_error_comes_alone_and_the_channel_goes_on() -> None:
    host, card = open_channel()
    card.unwrap(host.wrap(CommandApdu(0x80, 0xD8, 0x00, 0x81, b"keys", 256)))
    response = card.wrap(ResponseApdu(b"never sent", 0x6A80))
    assert response == ResponseApdu(b"", 0x6A80)
    assert host.unwrap(response).sw == 0x6A80
    following = CommandApdu(0x80, 0xCA, 0x00, 0x66, le=256)
    assert card.unwrap(host.wrap(following)) == following


@pytest.mark.parametrize(
    "command",
    [
        CommandApdu(0x84, 0xE2, 0x00, 0x00),
        CommandApdu(0x81, 0xE2, 0x00, 0x00),
        CommandApdu(0xC0, 0xE2, 0x00, 0x00),
        CommandApdu(0x80, 0xE2, 0x00, 0x00, le=257),
    ],
)
def test_only_plain_short_commands_on_the_basic_channel_are_wrapped(command: CommandApdu) -> None:
    host, _ = open_channel()
    refuses(ErrorCode.INVALID_INPUT, lambda: host.wrap(command))


@pytest.mark.parametrize("level", [0x00, 0x02, 0x10, 0x20, 0x31, 0x83, 0xFF, 0x133])
def test_there_is_no_other_level(level: int) -> None:
    refuses(ErrorCode.INVALID_INPUT, lambda: external_authenticate(session_keys(), level))
    refuses(ErrorCode.INVALID_INPUT, lambda: Scp03Channel(session_keys(), level))


@pytest.mark.parametrize(("counter", "chaining"), [(-1, bytes(16)), (1 << 120, bytes(16)), (0, bytes(15)), (0, b"")])
def test_a_channel_is_not_taken_up_from_nonsense(counter: int, chaining: bytes) -> None:
    refuses(ErrorCode.INVALID_INPUT, lambda: Scp03Channel(session_keys(), FULL, counter, chaining))


# Forgeries


@given(level=st.sampled_from([0x11, 0x13, 0x33]), bit=st.integers(0, 10_000), answer=st.binary(max_size=60))
def test_a_response_with_one_bit_changed_breaks_the_channel(level: int, bit: int, answer: bytes) -> None:
    host, card = open_channel(level)
    card.unwrap(host.wrap(CommandApdu(0x80, 0xCA, 0x00, 0x66, le=256)))
    forged = flipped(card.wrap(ResponseApdu(answer, 0x9000)).encode(), bit)
    response = ResponseApdu.parse(forged)
    refuses(ErrorCode.SECURE_CHANNEL_BROKEN, lambda: host.unwrap(response))


@given(level=levels, bit=st.integers(0, 10_000), data=st.binary(max_size=60))
def test_the_card_does_not_take_a_command_with_one_bit_changed(level: int, bit: int, data: bytes) -> None:
    host, card = open_channel(level)
    forged = flipped(host.wrap(CommandApdu(0x80, 0xE2, 0x00, 0x00, data)).encode(), bit)
    try:
        command = CommandApdu.parse(forged)
    except TsmError:
        return  # the length was changed
    with pytest.raises(CardSecurityError):
        card.unwrap(command)


@given(wire=st.binary(max_size=300), level=levels)
def test_any_response_unwraps_or_breaks_the_channel(wire: bytes, level: int) -> None:
    host, card = open_channel(level)
    card.unwrap(host.wrap(CommandApdu(0x80, 0xCA, 0x00, 0x66, le=256)))
    try:
        host.unwrap(ResponseApdu.parse(wire))
    except TsmError as refusal:
        assert refusal.code in (ErrorCode.SECURE_CHANNEL_BROKEN, ErrorCode.INVALID_INPUT)


@given(data=st.binary(max_size=300), cla=st.integers(0, 255), level=levels)
def test_any_other_command_is_no_secured_one(data: bytes, cla: int, level: int) -> None:
    _, card = open_channel(level)
    with pytest.raises(CardSecurityError):
        card.unwrap(CommandApdu(cla, 0xE2, 0x00, 0x00, data))


def test_a_success_that_nothing_protects_breaks_the_channel() -> None:
    host, _ = open_channel()
    host.wrap(CommandApdu(0x80, 0xE2, 0x88, 0x00, b"data"))
    for data in (b"", bytes(7), bytes(8), bytes(24)):
        refuses(ErrorCode.SECURE_CHANNEL_BROKEN, lambda data=data: host.unwrap(ResponseApdu(data, 0x9000)))
    refuses(ErrorCode.SECURE_CHANNEL_BROKEN, lambda: host.unwrap(ResponseApdu(b"data", 0x6A80)))


def test_a_response_is_not_taken_for_another_commands() -> None:
    host, card = open_channel()
    for _ in range(2):
        card.unwrap(host.wrap(CommandApdu(0x80, 0xCA, 0x00, 0x66, le=256)))
        response = card.wrap(ResponseApdu(b"data", 0x9000))
    host.wrap(CommandApdu(0x80, 0xCA, 0x00, 0x66, le=256))
    refuses(ErrorCode.SECURE_CHANNEL_BROKEN, lambda: host.unwrap(response))


def test_the_card_takes_a_command_once() -> None:
    host, card = open_channel()
    command = host.wrap(CommandApdu(0x80, 0xE2, 0x00, 0x00, b"data"))
    card.unwrap(command)
    with pytest.raises(CardSecurityError):
        card.unwrap(command)


def test_the_card_authenticates_a_host_by_cryptogram_and_mac() -> None:
    command, _ = external_authenticate(session_keys(), FULL)
    others = SessionKeys.derive(KeySet(bytes(16), bytes(16)), b"host-cha", b"card-cha")
    refused = [
        external_authenticate(others, FULL)[0],
        CommandApdu(0x84, 0x82, 0x01, 0x00, command.data),  # another level than the one under the C-MAC
        CommandApdu(0x84, 0x82, 0x33, 0x01, command.data),
        CommandApdu(0x80, 0x82, 0x33, 0x00, command.data),
        CommandApdu(0x84, 0x82, 0x33, 0x00, command.data[:8]),
        CommandApdu(0x84, 0x82, 0x00, 0x00, command.data),
        *(CommandApdu(0x84, 0x82, 0x33, 0x00, flipped(command.data, bit)) for bit in range(0, 128, 7)),
    ]
    for forged in refused:
        card = Scp03CardChannel(session_keys())
        assert not card.external_authenticate(forged)
        with pytest.raises(CardSecurityError):
            card.unwrap(CommandApdu(0x84, 0xE2, 0x00, 0x00, bytes(8)))


def flipped(octets: bytes, bit: int) -> bytes:
    """The octets with one bit changed; the status word of a response stays."""
    at, place = divmod(bit % (len(octets) * 8), 8)
    return octets[:at] + bytes([octets[at] ^ 1 << place]) + octets[at + 1 :]


def refuses(code: ErrorCode, call: object) -> None:
    assert callable(call)
    with pytest.raises(TsmError) as refusal:
        call()
    assert refusal.value.code is code
