"""AES primitives against outside vectors, the way back of each, and that no key shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import vector, vectors
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.responses import InitializeUpdateResponse
from tsm.keys.primitives import (
    RESPONSE,
    KeySet,
    SessionKeys,
    aes_cmac,
    card_challenge,
    kcv_aes,
    kdf,
    kdf3,
    pad,
    unpad,
    unwrap_dek,
    wrap_dek,
)

key = st.binary(min_size=16, max_size=16)
challenge = st.binary(min_size=8, max_size=8)
KEYS = KeySet(bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48)))


def session(keys: KeySet = KEYS) -> SessionKeys:
    return SessionKeys.derive(keys, b"host-cha", b"card-cha")


@pytest.mark.parametrize("name", vectors("cmac"))
def test_cmac_is_that_of_the_vector(name: str) -> None:
    v = vector(name)
    assert aes_cmac(bytes.fromhex(v["key"]), bytes.fromhex(v["message"])).hex() == v["mac"]


@pytest.mark.parametrize("name", vectors("kcv"))
def test_a_check_value_is_that_of_the_vector(name: str) -> None:
    v = vector(name)
    assert kcv_aes(bytes.fromhex(v["key"])).hex() == v["kcv"]


@pytest.mark.parametrize("name", vectors("session-key"))
def test_a_derived_key_is_that_of_the_vector(name: str) -> None:
    v = vector(name)
    derived = kdf(bytes.fromhex(v["static_key"]), v["constant"], bytes.fromhex(v["context"]))
    assert derived.hex() == v["session_key"]
    assert kcv_aes(derived).hex() == v["kcv"]


def test_a_cards_keys_are_derived_as_in_the_vector() -> None:
    v = vector("diversify_kdf3_aes128")
    keys = kdf3(bytes.fromhex(v["master"]), bytes.fromhex(v["kdd"]))
    assert (keys.enc.hex(), keys.mac.hex(), keys.dek.hex()) == (v["key_enc"], v["key_mac"], v["key_dek"])
    assert [kcv_aes(part).hex() for part in (keys.enc, keys.mac, keys.dek)] == v["kcv"]


def test_a_cards_pseudo_random_challenge_is_that_of_a_card() -> None:
    v = vector("scp03_pseudo_random_card_challenge_seq0")
    made = card_challenge(*(bytes.fromhex(v[name]) for name in ("key_enc", "sequence_counter", "aid")))
    assert made.hex() == v["card_challenge"]


@pytest.mark.parametrize("name", vectors("scp03-session"))
def test_session_keys_are_those_of_the_vector(name: str) -> None:
    """The derived keys themselves are in no object that shows them: they are derived here once more."""
    v = vector(name)
    host_challenge = CommandApdu.parse(bytes.fromhex(v["init_update_command"])).data
    answer = InitializeUpdateResponse.parse(bytes.fromhex(v["init_update_response"])[:32])
    context = host_challenge + answer.card_challenge
    enc, mac = bytes.fromhex(v["key_enc"]), bytes.fromhex(v["key_mac"])
    assert kdf(enc, 0x04, context).hex() == v["s_enc"]
    assert kdf(mac, 0x06, context).hex() == v["s_mac"]
    assert kdf(mac, 0x07, context).hex() == v["s_rmac"]
    keys = SessionKeys.derive(KeySet(enc, mac), host_challenge, answer.card_challenge)
    assert keys.card_cryptogram() == answer.card_cryptogram
    assert keys.host_cryptogram().hex() == v["external_authenticate"][10:26]


def test_wrapped_keys_are_those_of_the_vector() -> None:
    v = vector("put_key_aes128_3keys_kvn30_basic")
    for plain in v["keys"]:
        assert wrap_dek(bytes.fromhex(v["dek"]), bytes.fromhex(plain)).hex() in v["data_field"]


@given(dek=key, data=st.binary(max_size=20).map(lambda part: part * 16).filter(bool))
def test_what_is_wrapped_unwraps(dek: bytes, data: bytes) -> None:
    assert unwrap_dek(dek, wrap_dek(dek, data)) == data


@given(st.binary(max_size=100))
def test_what_is_padded_fills_blocks_and_unpads(data: bytes) -> None:
    assert len(pad(data)) % 16 == 0
    assert unpad(pad(data)) == data


@given(st.binary(max_size=64))
def test_unpadding_takes_nothing_but_padding_away(data: bytes) -> None:
    try:
        plain = unpad(data)
    except TsmError as refusal:
        assert refusal.code is ErrorCode.KEY_REFUSED
    else:
        assert data.startswith(plain + b"\x80")
        assert len(data) - len(plain) <= 16


@given(messages=st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.binary(max_size=80))))
def test_each_message_of_a_session_decrypts_by_its_own_counter(messages: list[tuple[bool, int, bytes]]) -> None:
    """The stream that is kept leaves no trace: a session that has just begun reads any message of a long one."""
    keys = session()
    for is_response, counter, data in messages:
        number = counter | RESPONSE if is_response else counter
        encrypted = keys.encrypt(number, data)
        assert session().decrypt(number, encrypted) == data
        assert keys.decrypt(number, encrypted) == data


def test_a_message_that_does_not_decrypt_leaves_the_session_usable() -> None:
    keys = session()
    encrypted = keys.encrypt(1, b"data")
    for broken in (b"", encrypted[:-1], bytes(16)):
        refuses(ErrorCode.KEY_REFUSED, lambda broken=broken: keys.decrypt(1, broken))
    assert keys.decrypt(1, encrypted) == b"data"


@pytest.mark.parametrize("size", [0, 8, 15, 17, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    wrong = bytes(size)
    refuses(ErrorCode.KEY_REFUSED, lambda: aes_cmac(wrong, b""))
    refuses(ErrorCode.KEY_REFUSED, lambda: kcv_aes(wrong))
    refuses(ErrorCode.KEY_REFUSED, lambda: kdf(wrong, 4, b""))
    refuses(ErrorCode.KEY_REFUSED, lambda: wrap_dek(wrong, bytes(16)))
    refuses(ErrorCode.KEY_REFUSED, lambda: KeySet(wrong, bytes(16)))
    refuses(ErrorCode.KEY_REFUSED, lambda: KeySet(bytes(16), wrong))


@pytest.mark.parametrize("data", [b"", bytes(15), bytes(17)])
def test_only_whole_blocks_are_wrapped(data: bytes) -> None:
    refuses(ErrorCode.KEY_REFUSED, lambda: wrap_dek(bytes(16), data))
    refuses(ErrorCode.KEY_REFUSED, lambda: unwrap_dek(bytes(16), data))


@pytest.mark.parametrize(("host", "card"), [(b"", bytes(8)), (bytes(8), bytes(7)), (bytes(16), bytes(8))])
def test_challenges_have_eight_octets(host: bytes, card: bytes) -> None:
    refuses(ErrorCode.INVALID_INPUT, lambda: SessionKeys.derive(KEYS, host, card))


@given(st.integers(-2, 300), st.integers(-8, 300))
def test_derivation_takes_one_octet_of_constant_and_one_block(constant: int, bits: int) -> None:
    try:
        assert len(kdf(bytes(16), constant, b"", bits)) == bits // 8
    except TsmError as refusal:
        assert refusal.code is ErrorCode.INVALID_INPUT
        assert not 0 <= constant <= 255 or bits not in (64, 128)


def test_keys_do_not_show() -> None:
    for shown in (repr(KEYS), str(KEYS), f"{KEYS}", repr(session()), str(session())):
        assert "hidden" in shown
        assert KEYS.enc.hex() not in shown
        assert repr(KEYS.enc)[2:-1] not in shown


def refuses(code: ErrorCode, call: object) -> None:
    assert callable(call)
    with pytest.raises(TsmError) as refusal:
        call()
    assert refusal.value.code is code
