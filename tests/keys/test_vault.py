"""The vault: what it does with keys, what it refuses, and that no key is found outside of it."""

import gc
import hashlib
import hmac
import logging
import multiprocessing
import os
import pickle
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsm.errors import ErrorCode, TsmError
from tsm.keys.primitives import KeySet, SessionKeys
from tsm.keys.vault import SoftwareVault, verify_signature

MASTER = bytes.fromhex("404142434445464748494A4B4C4D4E4F")  # the master and the results of vector diversify_kdf3_aes128
DERIVED = "operator/MNO00001/isd?kdf3=00010203040506070809"
DERIVED_KEYS = (
    bytes.fromhex("808bc985a1069ad2a9ac94e0fe7b8843"),
    bytes.fromhex("65942e0bf4f3f32aefacba5671456275"),
    bytes.fromhex("6a74f6f6040cca10d8a3fdc7914fd7cc"),
)
DERIVED_CHECK_VALUES = ("e79c05", "d1bd77", "3fde8c")
LABEL = b"JPKI0001|8981100000000000012|A0000001515350|01"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "vault"


@pytest.fixture
def kek_file(tmp_path: Path) -> Path:
    return tmp_path / "kek"


@pytest.fixture
def vault(folder: Path, kek_file: Path) -> Iterator[SoftwareVault]:
    vault = SoftwareVault.create(folder, kek_file)
    yield vault
    vault.close()


@pytest.fixture
def with_master(vault: SoftwareVault) -> SoftwareVault:
    vault.import_master_key("operator/MNO00001/isd", MASTER)
    return vault


# Creating, opening, refusing


def test_the_key_encryption_key_is_made_private(vault: SoftwareVault, kek_file: Path) -> None:
    assert len(kek_file.read_bytes()) == 32
    assert stat.S_IMODE(kek_file.stat().st_mode) == 0o600


def test_every_file_of_the_vault_is_its_owners_alone(vault: SoftwareVault, folder: Path) -> None:
    vault.seal("person", b"x", b"")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_key_encryption_key_that_others_can_reach_is_refused(
    vault: SoftwareVault, folder: Path, kek_file: Path, mode: int
) -> None:
    kek_file.chmod(mode)
    refuses(ErrorCode.KEY_ENCRYPTION_KEY_EXPOSED, lambda: SoftwareVault.open(folder, kek_file))


@pytest.mark.parametrize("place", ["kek", "below/kek", "../vault/kek"])
def test_a_key_encryption_key_in_the_folder_is_refused(folder: Path, place: str) -> None:
    refuses(ErrorCode.KEY_ENCRYPTION_KEY_EXPOSED, lambda: SoftwareVault.create(folder, folder / place))
    assert not folder.exists()


def test_a_link_does_not_hide_where_the_key_encryption_key_lies(
    vault: SoftwareVault, folder: Path, kek_file: Path
) -> None:
    kek_file.rename(folder / "kek")
    kek_file.symlink_to(folder / "kek")
    refuses(ErrorCode.KEY_ENCRYPTION_KEY_EXPOSED, lambda: SoftwareVault.open(folder, kek_file))


def test_a_folder_is_no_key_file(vault: SoftwareVault, folder: Path, tmp_path: Path) -> None:
    refuses(ErrorCode.NOT_FOUND, lambda: SoftwareVault.open(folder, tmp_path))


def test_a_given_key_encryption_key_is_used(folder: Path, kek_file: Path) -> None:
    kek_file.write_bytes(bytes(range(32)))
    kek_file.chmod(0o600)
    SoftwareVault.create(folder, kek_file).close()
    assert kek_file.read_bytes() == bytes(range(32))


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_encryption_key_of_another_size_is_refused(folder: Path, kek_file: Path, size: int) -> None:
    kek_file.write_bytes(bytes(size))
    kek_file.chmod(0o600)
    refuses(ErrorCode.KEY_REFUSED, lambda: SoftwareVault.create(folder, kek_file))


def test_another_vaults_key_encryption_key_is_refused(vault: SoftwareVault, folder: Path, kek_file: Path) -> None:
    kek_file.write_bytes(os.urandom(32))
    refuses(ErrorCode.KEY_REFUSED, lambda: SoftwareVault.open(folder, kek_file))


def test_a_missing_vault_or_key_file_is_named(folder: Path, kek_file: Path) -> None:
    refuses(ErrorCode.NOT_FOUND, lambda: SoftwareVault.open(folder, kek_file))
    SoftwareVault.create(folder, kek_file).close()
    kek_file.unlink()
    refuses(ErrorCode.NOT_FOUND, lambda: SoftwareVault.open(folder, kek_file))


def test_a_vault_is_not_made_twice(vault: SoftwareVault, folder: Path, kek_file: Path) -> None:
    refuses(ErrorCode.ALREADY_EXISTS, lambda: SoftwareVault.create(folder, kek_file))


def test_another_format_is_refused(vault: SoftwareVault, folder: Path, kek_file: Path) -> None:
    with sqlite3.connect(folder / "vault.sqlite") as newer:
        newer.execute("UPDATE vault_format SET number = 99")
    refuses(ErrorCode.STORE_FORMAT, lambda: SoftwareVault.open(folder, kek_file))


def test_everything_is_there_after_reopening(with_master: SoftwareVault, folder: Path, kek_file: Path) -> None:
    public_key = with_master.generate_signing_key("sign")
    index = with_master.blind_index("iccid", "8981100000000000012")
    key_id, sealed = with_master.seal("person", b"value", b"place")
    payload = with_master.seal_payload("stream", "name", b"payload")
    with_master.put_verifier("code", "secret")
    with_master.close()
    reopened = SoftwareVault.open(folder, kek_file)
    assert reopened.check_values(DERIVED) == DERIVED_CHECK_VALUES
    assert verify_signature(public_key, b"data", reopened.sign("sign", b"data"))
    assert reopened.blind_index("iccid", "8981100000000000012") == index
    assert reopened.unseal(key_id, sealed, b"place") == b"value"
    assert reopened.unseal_payload("stream", "name", payload) == b"payload"
    assert reopened.check_verifier("code", "secret")


# Key sets


def test_a_generated_key_set_answers_its_check_values_only(vault: SoftwareVault) -> None:
    check_values = vault.generate_aes_key_set("card/1/sd/01")
    assert vault.check_values("card/1/sd/01") == check_values
    assert len(set(check_values)) == 3
    assert all(len(bytes.fromhex(value)) == 3 for value in check_values)


def test_a_reference_is_used_once(vault: SoftwareVault) -> None:
    vault.generate_aes_key_set("card/1/sd/01")
    refuses(ErrorCode.ALREADY_EXISTS, lambda: vault.generate_aes_key_set("card/1/sd/01"))
    refuses(ErrorCode.ALREADY_EXISTS, lambda: vault.generate_signing_key("card/1/sd/01"))
    refuses(ErrorCode.ALREADY_EXISTS, lambda: vault.import_master_key("card/1/sd/01", MASTER))


@pytest.mark.parametrize("reference", ["", "two words", "a" * 201, "card?kdf3=00", "straße", "a?b"])
def test_a_reference_is_well_formed_and_not_a_derived_one(vault: SoftwareVault, reference: str) -> None:
    with pytest.raises(TsmError):
        vault.generate_aes_key_set(reference)


def test_an_imported_master_key_derives_the_cards_keys_as_the_vector_says(with_master: SoftwareVault) -> None:
    assert with_master.check_values(DERIVED) == DERIVED_CHECK_VALUES
    assert with_master.check_values("operator/MNO00001/isd") == (check_value(MASTER),)
    assert with_master.has(DERIVED)


def test_importing_a_master_key_is_safe_to_repeat(with_master: SoftwareVault) -> None:
    assert with_master.import_master_key("operator/MNO00001/isd", MASTER) == check_value(MASTER)
    refuses(ErrorCode.ALREADY_EXISTS, lambda: with_master.import_master_key("operator/MNO00001/isd", bytes(16)))


@pytest.mark.parametrize("size", [0, 15, 17, 24, 32])
def test_a_master_key_has_sixteen_octets(vault: SoftwareVault, size: int) -> None:
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.import_master_key("operator/MNO00001/isd", bytes(size)))


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("operator/MNO00002/isd?kdf3=00010203040506070809", ErrorCode.UNKNOWN_KEY),
        ("operator/MNO00001/isd?kdf9=00010203040506070809", ErrorCode.KEY_REFUSED),
        ("operator/MNO00001/isd?kdf3=000", ErrorCode.KEY_REFUSED),
        ("operator/MNO00001/isd", ErrorCode.KEY_REFUSED),  # a master key opens no channel
        ("set?kdf3=00010203040506070809", ErrorCode.KEY_REFUSED),  # nothing derives from a card's key set
        ("sign", ErrorCode.KEY_REFUSED),
        ("missing", ErrorCode.UNKNOWN_KEY),
    ],
)
def test_a_key_is_used_only_for_what_it_is(with_master: SoftwareVault, reference: str, code: ErrorCode) -> None:
    with_master.generate_aes_key_set("set")
    with_master.generate_signing_key("sign")
    refuses(code, lambda: with_master.session_keys(reference, bytes(8), bytes(8)))
    refuses(code, lambda: with_master.encrypt_content(reference, b"data"))


def test_session_keys_are_those_of_the_referenced_set(with_master: SoftwareVault) -> None:
    """A card that holds the vector's keys proves them with the same cryptogram."""
    challenges = (b"host-cha", b"card-cha")
    ours = with_master.session_keys(DERIVED, *challenges)
    cards = SessionKeys.derive(KeySet(*DERIVED_KEYS), *challenges)
    assert ours.card_cryptogram() == cards.card_cryptogram()
    assert ours.host_cryptogram() == cards.host_cryptogram()
    assert ours is not with_master.session_keys(DERIVED, *challenges)  # it has state: nobody shares one


def test_a_key_set_is_wrapped_under_the_receiving_domains_dek(with_master: SoftwareVault) -> None:
    check_values = with_master.generate_aes_key_set("new")
    wrapped = with_master.wrap_key_set("new", under=DERIVED)
    plain = [cbc(DERIVED_KEYS[2]).decryptor().update(key.encrypted) for key in wrapped]
    assert tuple(key.check_value.hex() for key in wrapped) == check_values
    assert tuple(check_value(key) for key in plain) == check_values


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_content_is_padded_made_unequal_and_encrypted_under_the_dek(with_master: SoftwareVault, data: bytes) -> None:
    encrypted = with_master.encrypt_content(DERIVED, data)
    plain = cbc(DERIVED_KEYS[2]).decryptor().update(encrypted)
    assert plain[16 : 16 + len(data)] == data
    assert plain[16 + len(data) :].rstrip(b"\x00") == b"\x80"
    assert 16 < len(plain) - len(data) <= 32
    assert with_master.encrypt_content(DERIVED, data) != encrypted


# Keys between parties


@pytest.fixture
def other(tmp_path: Path) -> Iterator[SoftwareVault]:
    other = SoftwareVault.create(tmp_path / "other" / "vault", tmp_path / "other-kek")
    yield other
    other.close()


def test_a_key_set_travels_between_two_vaults(vault: SoftwareVault, other: SoftwareVault) -> None:
    check_values = vault.generate_aes_key_set("set")
    wrapped = vault.export_key_set("set", other.generate_transport_key("transport"), LABEL)
    other.import_key_set("received", wrapped, "transport", LABEL, check_values)
    assert other.check_values("received") == check_values
    other.import_key_set("received", wrapped, "transport", LABEL, check_values)  # safe to repeat


def test_a_vault_may_hold_a_set_without_its_dek(vault: SoftwareVault, other: SoftwareVault) -> None:
    """The provider shares ENC and MAC with the MAS, which opens the channel and never reads the content."""
    check_values = vault.generate_aes_key_set("set")
    wrapped = vault.export_key_set("set", other.generate_transport_key("transport"), LABEL, ("enc", "mac"))
    other.import_key_set("received", wrapped, "transport", LABEL, check_values)
    challenges = (b"host-cha", b"card-cha")
    opened = other.session_keys("received", *challenges).card_cryptogram()
    assert other.check_values("received") == check_values[:2]
    assert opened == vault.session_keys("set", *challenges).card_cryptogram()
    refuses(ErrorCode.KEY_REFUSED, lambda: other.encrypt_content("received", b"data"))
    refuses(ErrorCode.KEY_REFUSED, lambda: other.wrap_key_set("received", "received"))
    refuses(ErrorCode.KEY_REFUSED, lambda: other.export_key_set("received", other.public_key("transport"), LABEL))


def test_a_key_that_came_damaged_mislabelled_or_exchanged_is_refused(
    vault: SoftwareVault, other: SoftwareVault
) -> None:
    check_values = vault.generate_aes_key_set("set")
    wrapped = vault.export_key_set("set", other.generate_transport_key("transport"), LABEL)
    exchanged = {**wrapped, "enc": wrapped["mac"], "mac": wrapped["enc"]}
    damaged = {**wrapped, "enc": bytes([wrapped["enc"][0] ^ 1]) + wrapped["enc"][1:]}
    for content, label, values in [
        (wrapped, b"another", check_values),
        (wrapped, LABEL, ("000000", *check_values[1:])),
        (wrapped, LABEL, check_values[:2]),
        (exchanged, LABEL, check_values),
        (damaged, LABEL, check_values),
        ({**wrapped, "enc": b""}, LABEL, check_values),
        ({"enc": wrapped["enc"]}, LABEL, check_values),
        ({**wrapped, "kek": wrapped["dek"]}, LABEL, check_values),
    ]:
        refuses(
            ErrorCode.KEY_REFUSED,
            lambda content=content, label=label, values=values: other.import_key_set(
                "received", content, "transport", label, values
            ),
        )
    assert not other.has("received")


def test_a_key_of_another_size_is_refused(other: SoftwareVault) -> None:
    transport = load_der_public_key(other.generate_transport_key("transport"))
    assert isinstance(transport, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), LABEL)
    wrapped = {part: transport.encrypt(bytes(24), oaep) for part in ("enc", "mac")}
    refuses(
        ErrorCode.KEY_REFUSED,
        lambda: other.import_key_set("received", wrapped, "transport", LABEL, ("000000", "000000")),
    )


def test_keys_leave_only_under_a_strong_rsa_key(vault: SoftwareVault) -> None:
    vault.generate_aes_key_set("set")
    weak = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - that is the point
    for recipient in (spki(weak), vault.generate_signing_key("sign")):
        refuses(ErrorCode.KEY_REFUSED, lambda recipient=recipient: vault.export_key_set("set", recipient, LABEL))
    refuses(ErrorCode.INVALID_INPUT, lambda: vault.export_key_set("set", b"not a key", LABEL))
    strong = vault.generate_transport_key("transport")
    refuses(ErrorCode.INVALID_INPUT, lambda: vault.export_key_set("set", strong, LABEL, ("enc", "__class__")))


def test_what_is_encrypted_for_the_transport_key_is_decrypted_with_its_label(vault: SoftwareVault) -> None:
    transport = load_der_public_key(vault.generate_transport_key("transport"))
    assert isinstance(transport, rsa.RSAPublicKey)
    assert transport.key_size == 3072
    ciphertext = transport.encrypt(b"content key", padding.OAEP(padding.MGF1(SHA256()), SHA256(), LABEL))
    assert vault.decrypt("transport", ciphertext, LABEL) == b"content key"
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.decrypt("transport", ciphertext, b"another"))
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.sign("transport", b"data"))


# Signing


def test_a_signature_is_r_and_s_and_verifies_elsewhere(vault: SoftwareVault) -> None:
    public_key = vault.generate_signing_key("sign")
    signature = vault.sign("sign", b"data")
    assert vault.public_key("sign") == public_key
    assert len(signature) == 64
    assert verify_signature(public_key, b"data", signature)


def test_a_signature_made_elsewhere_verifies() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.sign(hashlib.sha256(b"data").digest(), ec.ECDSA(Prehashed(SHA256())))
    raw = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(der))
    assert verify_signature(spki(key.public_key()), b"data", raw)


@settings(max_examples=60, deadline=None)
@given(signature=st.one_of(st.binary(max_size=70), st.binary(min_size=64, max_size=64)))
def test_anything_else_does_not_verify(signature: bytes) -> None:
    assert not verify_signature(spki(SOME_KEY.public_key()), b"data", signature)


SOME_KEY = ec.generate_private_key(ec.SECP256R1())


def test_a_signature_is_of_one_key_and_one_content(vault: SoftwareVault) -> None:
    public_key = vault.generate_signing_key("sign")
    signature = vault.sign("sign", b"data")
    assert not verify_signature(public_key, b"Data", signature)
    assert not verify_signature(vault.generate_signing_key("other"), b"data", signature)
    assert not verify_signature(public_key, b"data", signature[32:] + signature[:32])


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()])
def test_only_p_256_verifies(curve: ec.EllipticCurve) -> None:
    public_key = spki(ec.generate_private_key(curve).public_key())
    refuses(ErrorCode.INVALID_INPUT, lambda: verify_signature(public_key, b"data", bytes(64)))
    refuses(ErrorCode.INVALID_INPUT, lambda: verify_signature(b"garbage", b"data", bytes(64)))


# Verifiers, secrets, blind index


def test_a_verifier_knows_its_secret_and_nothing_else(vault: SoftwareVault) -> None:
    vault.put_verifier("access-code/1", "1234567890|abcdefghjkmn")
    assert vault.check_verifier("access-code/1", "1234567890|abcdefghjkmn")
    assert not vault.check_verifier("access-code/1", "1234567890|abcdefghjkmN")
    assert not vault.check_verifier("access-code/1", "")
    assert not vault.check_verifier("access-code/2", "1234567890|abcdefghjkmn")


def test_a_verifier_is_destroyed_and_the_reference_can_be_used_again(vault: SoftwareVault) -> None:
    vault.put_verifier("access-code/1", "first")
    refuses(ErrorCode.ALREADY_EXISTS, lambda: vault.put_verifier("access-code/1", "second"))
    vault.destroy("access-code/1")
    assert not vault.check_verifier("access-code/1", "first")
    vault.put_verifier("access-code/1", "second")
    assert vault.check_verifier("access-code/1", "second")


def test_a_verifier_is_no_secret_and_a_secret_no_verifier(vault: SoftwareVault) -> None:
    vault.put_verifier("verifier", "x")
    vault.put_secret("secret", b"x")
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.secret("verifier"))
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.check_verifier("secret", "x"))


def test_a_secret_comes_out_as_it_went_in_until_it_is_destroyed(vault: SoftwareVault) -> None:
    vault.put_secret("credential/1/key", b"\x00PKCS#8")
    vault.put_secret("credential/1/key", b"\x00PKCS#8")  # safe to repeat
    assert vault.secret("credential/1/key") == b"\x00PKCS#8"
    vault.destroy("credential/1/key")
    refuses(ErrorCode.UNKNOWN_KEY, lambda: vault.secret("credential/1/key"))
    vault.destroy("credential/1/key")  # safe to repeat


def test_a_key_set_is_destroyed_unless_it_is_another_by_now(vault: SoftwareVault, folder: Path, kek_file: Path) -> None:
    first = vault.generate_aes_key_set("card/1/domain/01")
    vault.destroy_key_set("card/1/domain/01", ("000000", *first[1:]))
    vault.destroy_key_set("card/1/domain/02", first)
    assert vault.check_values("card/1/domain/01") == first

    vault.destroy_key_set("card/1/domain/01", [value.upper() for value in first[:2]])  # as far as both know them
    vault.destroy_key_set("card/1/domain/01", first)
    for each in (vault, SoftwareVault.open(folder, kek_file)):
        assert not each.has("card/1/domain/01")
    refuses(ErrorCode.UNKNOWN_KEY, lambda: vault.check_values("card/1/domain/01"))

    second = vault.generate_aes_key_set("card/1/domain/01")
    vault.destroy_key_set("card/1/domain/01", first)
    assert vault.check_values("card/1/domain/01") == second
    vault.put_secret("credential/1/key", b"x")
    vault.destroy_key_set("credential/1/key", first)
    assert vault.secret("credential/1/key") == b"x"


def test_a_blind_index_meets_equal_values_of_one_purpose_in_one_vault(
    vault: SoftwareVault, other: SoftwareVault
) -> None:
    index = vault.blind_index("iccid", "8981100000000000012")
    assert len(bytes.fromhex(index)) == 32
    assert vault.blind_index("iccid", "8981100000000000012") == index
    assert vault.blind_index("serial", "8981100000000000012") != index
    assert vault.blind_index("iccid8", "981100000000000012") != index
    assert other.blind_index("iccid", "8981100000000000012") != index
    assert hmac.new(b"", b"8981100000000000012", "sha256").hexdigest() != index


# Persons and payloads


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subject=st.sampled_from("abc"), plaintext=st.binary(max_size=200), aad=st.binary(max_size=50))
def test_what_is_sealed_opens_in_its_place_only(
    vault: SoftwareVault, subject: str, plaintext: bytes, aad: bytes
) -> None:
    key_id, sealed = vault.seal(subject, plaintext, aad)
    assert vault.unseal(key_id, sealed, aad) == plaintext
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.unseal(key_id, sealed, aad + b"x"))
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.unseal(key_id, sealed[:-1], aad))
    assert vault.seal(subject, plaintext, aad)[0] == key_id
    assert vault.seal(subject, plaintext, aad)[1] != sealed


def test_a_key_id_tells_nothing_of_its_subject(vault: SoftwareVault, other: SoftwareVault) -> None:
    assert vault.seal("person", b"", b"")[0] != other.seal("person", b"", b"")[0]


def test_keys_of_many_subjects_are_made_at_once_and_nobody_gets_another(vault: SoftwareVault) -> None:
    key_id, sealed = vault.seal("known", b"value", b"")
    vault.destroy_subject("destroyed")
    vault.make_data_keys(["new", "known", "destroyed", "new"])
    assert vault.unseal(key_id, sealed, b"") == b"value"
    assert vault.seal("known", b"", b"")[0] == key_id
    assert vault.seal("new", b"", b"")[0] not in (key_id, "")
    refuses(ErrorCode.UNKNOWN_KEY, lambda: vault.seal("destroyed", b"", b""))


def test_a_destroyed_subject_stays_destroyed(vault: SoftwareVault, folder: Path, kek_file: Path) -> None:
    key_id, sealed = vault.seal("person", b"value", b"place")
    another = vault.seal("another", b"value", b"place")
    vault.destroy_subject("person")
    vault.destroy_subject("person")
    vault.destroy_subject("never seen")
    reopened = SoftwareVault.open(folder, kek_file)
    for each in (vault, reopened):
        refuses(ErrorCode.UNKNOWN_KEY, lambda each=each: each.unseal(key_id, sealed, b"place"))
        refuses(ErrorCode.UNKNOWN_KEY, lambda each=each: each.seal("person", b"again", b"place"))
        refuses(ErrorCode.UNKNOWN_KEY, lambda each=each: each.seal("never seen", b"value", b"place"))
        assert each.unseal(*another, b"place") == b"value"


def test_what_another_process_destroys_is_gone_here_at_once(vault: SoftwareVault, folder: Path, kek_file: Path) -> None:
    """Another connection stands for another process: the caches notice either."""
    vault.generate_aes_key_set("set")
    vault.generate_signing_key("sign")
    key_id, sealed = vault.seal("person", b"value", b"")
    vault.check_values("set"), vault.sign("sign", b""), vault.unseal(key_id, sealed, b"")
    elsewhere = SoftwareVault.open(folder, kek_file)
    elsewhere.destroy("set")
    elsewhere.destroy("sign")
    elsewhere.destroy_subject("person")
    refuses(ErrorCode.UNKNOWN_KEY, lambda: vault.session_keys("set", bytes(8), bytes(8)))
    refuses(ErrorCode.UNKNOWN_KEY, lambda: vault.sign("sign", b""))
    refuses(ErrorCode.UNKNOWN_KEY, lambda: vault.unseal(key_id, sealed, b""))


def test_destroying_a_master_key_ends_its_derived_keys(with_master: SoftwareVault) -> None:
    assert with_master.check_values(DERIVED) == DERIVED_CHECK_VALUES
    refuses(ErrorCode.KEY_REFUSED, lambda: with_master.destroy(DERIVED))
    with_master.destroy("operator/MNO00001/isd")
    refuses(ErrorCode.UNKNOWN_KEY, lambda: with_master.check_values(DERIVED))
    assert not with_master.has(DERIVED)


def test_the_vaults_own_keys_cannot_be_destroyed_or_read(vault: SoftwareVault) -> None:
    for own in ("vault.blind-index", "vault.payload"):
        refuses(ErrorCode.KEY_REFUSED, lambda own=own: vault.destroy(own))
        refuses(ErrorCode.KEY_REFUSED, lambda own=own: vault.secret(own))


def test_a_payload_opens_in_its_place_only(vault: SoftwareVault) -> None:
    sealed = vault.seal_payload("session-1", "answer", b"bytes")
    assert vault.unseal_payload("session-1", "answer", sealed) == b"bytes"
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.unseal_payload("session-2", "answer", sealed))
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.unseal_payload("session-1", "commands", sealed))


# What is left in files, texts and memory of others


def test_no_key_lies_plain_in_any_file(with_master: SoftwareVault, folder: Path) -> None:
    with_master.put_secret("secret", b"a secret of some length")
    with_master.put_verifier("verifier", "1234567890|abcdefghjkmn")
    with_master.check_values(DERIVED)
    content = everything_in(folder)
    assert b"a secret of some length" not in content
    assert b"1234567890|abcdefghjkmn" not in content
    assert not any(key in content for key in (MASTER, *DERIVED_KEYS))


def test_what_is_destroyed_is_gone_from_the_raw_files(vault: SoftwareVault, folder: Path) -> None:
    """Not even the wrapped octets stay, in no page, free list or write-ahead log, however the pages were filled."""
    wrapped = {}
    for number in range(120):
        size = (17, 400, 1218, 5000)[number % 4]  # cells, half pages, an RSA-2048 key in PKCS#8, overflow pages
        vault.put_secret(f"secret/{number}", os.urandom(size))
    with sqlite3.connect(folder / "vault.sqlite") as reader:
        wrapped = dict(reader.execute("SELECT reference, wrapped FROM item WHERE kind = 'secret'").fetchall())
    reader.close()
    doomed = {f"secret/{number}" for number in range(120) if number % 3}
    for reference in sorted(doomed):
        vault.destroy(reference)
    content = everything_in(folder)
    for reference, octets in wrapped.items():
        pieces = [octets[at : at + 16] for at in range(0, len(octets) - 16, 16)]
        if reference in doomed:
            assert not any(piece in content for piece in pieces), reference
        else:
            assert pieces[0] in content, reference  # a search that finds nothing anywhere would prove nothing


def test_a_destroyed_subjects_wrapped_key_is_gone_from_the_raw_files(vault: SoftwareVault, folder: Path) -> None:
    for number in range(50):
        vault.seal(f"person-{number}", b"value", b"")
    with sqlite3.connect(folder / "datakeys.sqlite") as reader:
        wrapped = dict(reader.execute("SELECT subject, wrapped FROM data_key").fetchall())
    reader.close()
    for number in range(0, 50, 2):
        vault.destroy_subject(f"person-{number}")
    content = everything_in(folder)
    for number in range(50):
        octets = wrapped[f"person-{number}"]
        pieces = [octets[at : at + 16] for at in range(0, len(octets) - 16, 16)]
        assert any(piece in content for piece in pieces) == bool(number % 2)


def test_a_row_moved_to_another_reference_or_kind_does_not_open(vault: SoftwareVault, folder: Path) -> None:
    vault.put_secret("one", b"1")
    vault.put_secret("two", b"2")
    with sqlite3.connect(folder / "vault.sqlite") as intruder:
        intruder.execute("UPDATE item SET wrapped = (SELECT wrapped FROM item WHERE reference = 'two')")
    refuses(ErrorCode.KEY_REFUSED, lambda: vault.secret("one"))
    assert vault.secret("two") == b"2"


def test_neither_texts_nor_logs_nor_errors_show_a_key(
    with_master: SoftwareVault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with_master.put_secret("secret", b"plain-secret")
    texts = [repr(with_master), str(vars(with_master)), str(with_master.session_keys(DERIVED, bytes(8), bytes(8)))]
    for action in (
        lambda: with_master.put_secret("secret", b"plain-secret-2"),
        lambda: with_master.import_master_key("operator/MNO00001/isd", bytes(15) + b"\xff"),
        lambda: with_master.session_keys("secret", bytes(8), bytes(8)),
        lambda: with_master.decrypt("secret", b"", b""),
    ):
        with pytest.raises(TsmError) as refusal:
            action()
        texts.append(repr(refusal.value) + str(refusal.value))
    shown = "".join(texts) + caplog.text
    for key in (MASTER, *DERIVED_KEYS, b"plain-secret", bytes(15) + b"\xff"):
        assert key.hex() not in shown.lower()
        assert repr(key)[2:-1] not in shown


def test_a_vault_is_not_copied_by_pickling(vault: SoftwareVault) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(vault)


# Threads and processes


def test_threads_share_a_vault(with_master: SoftwareVault) -> None:
    public_key = with_master.generate_signing_key("sign")

    def work(number: int) -> None:
        for turn in range(15):
            kdd = f"{number:02x}{turn:02x}" + "00" * 8
            with_master.session_keys(f"operator/MNO00001/isd?kdf3={kdd}", bytes(8), bytes(8))
            assert verify_signature(public_key, b"data", with_master.sign("sign", b"data"))
            key_id, sealed = with_master.seal(f"person-{turn}", b"value", b"")
            assert with_master.unseal(key_id, sealed, b"") == b"value"
            with_master.put_secret(f"secret/{number}/{turn}", b"x")
            with_master.destroy(f"secret/{number}/{turn}")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))  # raises what a thread raised


def seal_for_all(folder: Path, kek_file: Path, results: "multiprocessing.Queue[list[tuple[str, bytes]]]") -> None:
    vault = SoftwareVault.open(folder, kek_file)
    results.put([vault.seal(f"person-{number}", b"value", b"") for number in range(20)])


def test_processes_that_meet_the_same_person_use_one_key(vault: SoftwareVault, folder: Path, kek_file: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [spawn.Process(target=seal_for_all, args=(folder, kek_file, results)) for _ in range(3)]
    for process in processes:
        process.start()
    sealed = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({tuple(key_id for key_id, _ in each) for each in sealed}) == 1
    assert all(vault.unseal(key_id, octets, b"") == b"value" for each in sealed for key_id, octets in each)


def test_closing_leaves_no_file_open(folder: Path, kek_file: Path) -> None:
    SoftwareVault.create(folder, kek_file).close()
    gc.collect()
    open_files = {str(Path(f"/proc/self/fd/{fd}").resolve()) for fd in os.listdir("/proc/self/fd")}  # noqa: PTH208
    assert not any(name.startswith(str(folder)) for name in open_files)


def refuses(code: ErrorCode, action: object) -> None:
    with pytest.raises(TsmError) as refusal:
        action()  # type: ignore[operator]
    assert refusal.value.code is code


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def check_value(key: bytes) -> str:
    return Cipher(AES(key), ECB()).encryptor().update(b"\x01" * 16)[:3].hex()  # noqa: S305 - as the standard says


def cbc(key: bytes) -> "Cipher[CBC]":
    return Cipher(AES(key), CBC(bytes(16)))


def spki(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_full_disk_is_said_to_be_one(vault: SoftwareVault) -> None:
    keys = vault._data_keys._connection
    [pages] = keys.execute("PRAGMA page_count").fetchone()
    keys.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(TsmError) as refusal:
        for number in range(1000):
            vault.seal(f"subject-{number}", b"name", b"")
    assert refusal.value.code is ErrorCode.STORE_UNAVAILABLE
