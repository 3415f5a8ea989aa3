"""No key, PIN, access code, password or personal datum of a demo run lies in any event, log, projection or file outside
the vaults, the cards and the slip of paper.

Everything that the run wrote is searched as raw octets, for each secret in every form that it could have taken. The
card files stand for silicon, TLS keys and key-encryption keys are where they belong, the slip is the citizen's.
"""

import base64
import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from api.demo.story import DOMAIN
from tests.conftest import CITIZEN, DemoRun
from tsm.jpki.authority import end_of_fifth_birthday
from tsm.keys.vault import SoftwareVault

BELONGS_HERE = ("card.json", "my-number-card.json", "slip.txt", "key.pem", "ca.key", ".kek")
SHORTEST_RAW = 6  # octets: shorter things are found by chance in any file


def files(run: DemoRun) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(run.folder.rglob("*")):
        if path.is_file() and not path.name.endswith(BELONGS_HERE):
            yield path, path.read_bytes()


def forms(secret: bytes) -> list[bytes]:
    """As octets, hex in both cases, and the three Base64 alignments."""
    hexadecimal = secret.hex().encode()
    found = [secret, hexadecimal, hexadecimal.upper()]
    for skip in range(3):
        text = base64.b64encode(bytes(skip) + secret)
        found.append(text[(0, 2, 3)[skip] : len(text) // 4 * 4 - 4])
    return [form for form in found if len(form) >= SHORTEST_RAW]


def places_of(run: DemoRun, secret: bytes) -> list[str]:
    return [str(path) for path, content in files(run) for form in forms(secret) if form in content]


def slip_values(run: DemoRun) -> tuple[str, str]:
    code = re.search(r"Access code *: *([0-9-]+)", run.slip)
    password = re.search(r"Password *: *([0-9A-Za-z-]+)", run.slip)
    assert code and password, run.slip
    return code[1], password[1]


def test_the_search_finds_what_is_there(demo_run: DemoRun) -> None:
    """A check that cannot fail is no check: the card's number is no secret and stands in the log."""
    assert any(
        place.endswith("log.sqlite") for place in places_of(demo_run, demo_run.report["subjects"]["iccid"].encode())
    )
    for skip in range(3):
        around = base64.b64encode(bytes(skip) + b"a secret of some length" + bytes(2))
        assert any(form in around for form in forms(b"a secret of some length"))


@pytest.mark.parametrize("datum", ["name", "address", "signaturePin", "myNumberSignaturePin"])
def test_personal_data_and_long_pins_are_nowhere(demo_run: DemoRun, datum: str) -> None:
    assert places_of(demo_run, CITIZEN[datum].encode()) == []


@pytest.mark.parametrize("pin", ["authenticationPin", "myNumberAuthenticationPin"])
def test_short_pins_are_in_no_text_by_themselves(demo_run: DemoRun, pin: str) -> None:
    """Four digits occur in any timestamp, so they are looked for as a word, and next to what would name them."""
    alone = re.compile(rb"(?<![0-9A-Za-z.:+/=_-])" + CITIZEN[pin].encode() + rb"(?![0-9A-Za-z.:+/=_-])")
    for path, content in files(demo_run):
        if path.suffix in (".log", ".json", ".csv"):
            assert not alone.search(content), path
    assert not any(alone.search(state) for state in stored_events(demo_run))


def stored_events(run: DemoRun) -> list[bytes]:
    with sqlite3.connect(run.folder / "tsm" / "log.sqlite") as log:
        return [state for (state,) in log.execute("SELECT state FROM event")]


def test_the_birthday_is_nowhere_in_the_log(demo_run: DemoRun) -> None:
    """Certificates end on a birthday, so the end of validity would tell it. Not the day of this year or the next: what
    ends within days (an access code) may end on anybody's birthday."""
    born, (_, month, day) = CITIZEN["born"], CITIZEN["born"].split("-")
    later = range(datetime.now(UTC).year + 2, datetime.now(UTC).year + 10)
    ends = [form for year in later for form in (f"{year}-{month}-{day}", f"{year % 100:02}{month}{day}145959Z")]
    dates = [form.encode() for form in (born, born.replace("-", ""), *ends)]
    assert end_of_fifth_birthday(date.fromisoformat(born), datetime.now(UTC)).date().isoformat().encode() in dates
    assert not any(each in state for state in stored_events(demo_run) for each in dates)


def test_access_code_and_password_are_nowhere(demo_run: DemoRun) -> None:
    for value in slip_values(demo_run):
        assert places_of(demo_run, value.encode()) == []
        assert places_of(demo_run, value.replace("-", "").encode()) == []


def test_no_key_is_outside_the_vaults_in_plain(demo_run: DemoRun) -> None:
    """The card knows all keys that were ever put into it, and its private keys: none of them is anywhere else."""
    secrets = list(card_keys(json.loads(demo_run.card.read_text())))
    assert len(secrets) >= 3 * 2 + 2 * 5  # issuer's and provider's key sets, two RSA keys in five parts
    for secret in secrets:
        assert places_of(demo_run, secret) == []


def card_keys(content: object, name: str = "") -> Iterator[bytes]:
    """Every value of the card's file that is a key: by the name under which it lies there."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from card_keys(value, key)
    elif isinstance(content, list):
        for value in content:
            yield from card_keys(value, name)
    elif isinstance(content, str) and name in ("enc", "mac", "dek", "p", "q", "dp", "dq", "qinv"):
        yield base64.b64decode(content)


@pytest.mark.parametrize("party", ["tsm", "provider", "authority"])
def test_nothing_that_a_vault_holds_is_outside_of_it(demo_run: DemoRun, party: str) -> None:
    """Master keys, provisional keys, signing keys, key pairs: whatever was wrapped is nowhere in plain."""
    folder = demo_run.folder / party / "vault"
    vault = SoftwareVault.open(folder, demo_run.folder / f"{party}.kek")
    with sqlite3.connect(folder / "vault.sqlite") as database:
        items = database.execute("SELECT reference, kind FROM item").fetchall()
    secrets = [part for reference, kind in items for part in private_parts(vault._read(reference, kind))]
    vault.close()
    assert len(secrets) >= 4
    for secret in secrets:
        assert places_of(demo_run, secret) == []


def private_parts(secret: bytes) -> list[bytes]:
    """Key sets are three keys; the encoding of a key pair holds its public half, too, which is no secret."""
    try:
        key = load_der_private_key(secret, password=None)
    except ValueError:
        return [secret[at : at + 16] for at in range(0, len(secret) - 15, 16)]
    if isinstance(key, EllipticCurvePrivateKey):
        return [key.private_numbers().private_value.to_bytes(32, "big")]
    assert isinstance(key, RSAPrivateKey)
    numbers = key.private_numbers()
    return [n.to_bytes((n.bit_length() + 7) // 8, "big") for n in (numbers.p, numbers.q, numbers.d)]


def test_the_mas_vault_holds_no_dek_of_the_provider(demo_run: DemoRun) -> None:
    data = demo_run.folder / "tsm"
    vault = SoftwareVault.open(data / "vault", demo_run.folder / "tsm.kek")
    iccid = demo_run.report["subjects"]["iccid"]
    shared = vault.check_values(f"card/{iccid}/{DOMAIN}/02")
    provisional = vault.has(f"card/{iccid}/{DOMAIN}/01")
    vault.close()
    assert len(shared) == 2  # ENC and MAC
    assert not provisional  # under which the DEK came past


def test_files_with_secrets_are_for_their_owner_only(demo_run: DemoRun) -> None:
    kept = [
        p
        for p in demo_run.folder.rglob("*")
        if p.is_file() and p.name.endswith((".kek", "key.pem", "ca.key", ".sqlite"))
    ]
    assert len(kept) > 10
    assert [str(p) for p in kept if p.stat().st_mode & 0o077] == []
