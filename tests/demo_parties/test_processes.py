"""Each party as the process that the demo starts: made by `init`, serving over real TLS, knowing who calls."""

import json
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from parties import identity

from api.certificates import create_authority
from api.demo.party import Tls, trusting
from api.tls import client_context

CITIZEN = {
    "name": "見本花子",
    "sex": "2",
    "born": "1990-02-03",
    "address": "架空県見本市見本町1-2-3",
    "authenticationPin": "1234",
    "signaturePin": "ABC123",
}


def config(folder: Path, tls: Tls, **fields: Any) -> Path:
    files = {"certificate": str(tls.certificate), "key": str(tls.key), "party_ca": str(tls.party_ca)}
    path = folder / "config.json"
    path.write_text(json.dumps({"tls": files} | fields))
    return path


def run(party: str, command: str, folder: Path, *options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", f"api.demo.{party}", command, "--folder", str(folder), *options]
    return subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def made(party: str, folder: Path) -> dict[str, Any]:
    """What `init` prints for the operator."""
    done = run(party, "init", folder)
    assert done.returncode == 0, done.stderr
    public: dict[str, Any] = json.loads(done.stdout)
    return public


@contextmanager
def serving(party: str, folder: Path) -> Iterator[str]:
    """The URL of a party that serves."""
    arguments = [sys.executable, "-m", f"api.demo.{party}", "serve", "--folder", str(folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        try:
            assert line, process.stderr.read()
            yield json.loads(line)["url"]
        finally:
            process.terminate()
    assert process.returncode in (0, -15)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def ca(place: Path) -> Path:
    create_authority(place / "ca")
    return place / "ca"


@pytest.fixture(scope="module")
def provider(place: Path, ca: Path) -> tuple[Path, dict[str, Any]]:
    folder = place / "provider"
    tls = identity(ca, folder, "JPKI0001", "provider")
    fields = {"provider": "JPKI0001", "name": "Simulated JPKI issuer", "domain": "A000000151535044"}
    config(folder, tls, **fields, kek_file="../provider.kek", authority="CA000001", tsm_certificate_fingerprint="00")
    return folder, made("provider", folder)


@pytest.fixture(scope="module")
def authority(place: Path, ca: Path, provider: tuple[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    folder = place / "authority"
    tls = identity(ca, folder, "CA000001", "authority")
    enrolled = {name: provider[1][name] for name in ("certificate_fingerprint", "transport_key")}
    fields = {"authority": "CA000001", "name": "Simulated JPKI", "providers": {"JPKI0001": enrolled}}
    config(folder, tls, **fields, kek_file="../authority.kek")
    return folder, made("authority", folder)


def test_init_prints_what_the_operator_enrols_and_no_private_key(
    provider: tuple[Path, dict[str, Any]], authority: tuple[Path, dict[str, Any]]
) -> None:
    assert set(provider[1]) == {
        "provider", "name", "certificate_fingerprint", "public_key", "transport_key", "notify_url", "return_urls",
        "domain", "authority",
    }  # fmt: skip
    assert set(authority[1]) == {
        "authority", "name", "certificate_fingerprint", "url", "signature_ca", "authentication_ca",
        "signature_crl_url", "authentication_crl_url", "signature_ocsp_url", "authentication_ocsp_url",
    }  # fmt: skip


def test_init_twice_is_refused(provider: tuple[Path, dict[str, Any]]) -> None:
    done = run("provider", "init", provider[0])
    assert (done.returncode, json.loads(done.stderr)["code"]) == (2, "ALREADY_EXISTS")


def test_a_config_with_an_unknown_field_is_refused(place: Path, ca: Path) -> None:
    folder = place / "mistaken"
    config(folder, identity(ca, folder, "RP000001", "relying-party"), relying_party="RP000001", prot=1)
    done = run("relying_party", "init", folder)
    assert (done.returncode, json.loads(done.stderr)["code"]) == (2, "INVALID_INPUT")


def test_the_provider_serves_anybody_a_page_and_its_notifications_to_nobody_unknown(
    ca: Path, place: Path, provider: tuple[Path, dict[str, Any]]
) -> None:
    tls = identity(ca, place / "somebody", "SOME0001", "provider")
    with serving("provider", provider[0]) as url:
        with httpx.Client(verify=trusting(ca / "ca.pem")) as anybody:
            assert anybody.get(f"{url}/mobile/prepare").status_code == 403  # a page: begin again
            assert anybody.post(f"{url}/notify").status_code == 401
        with httpx.Client(verify=client_context(tls)) as other:
            assert other.post(f"{url}/notify").status_code == 403


def test_a_client_that_trusts_others_does_not_connect(provider: tuple[Path, dict[str, Any]]) -> None:
    with serving("provider", provider[0]) as url, pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/mobile/prepare", verify=ssl.create_default_context())


def test_the_authority_publishes_certificates_and_lists_and_keeps_keys_from_strangers(
    ca: Path, authority: tuple[Path, dict[str, Any]]
) -> None:
    with serving("authority", authority[0]) as url, httpx.Client(verify=trusting(ca / "ca.pem")) as anybody:
        assert anybody.get(f"{url}/ca/signature.der").content.hex() == authority[1]["signature_ca"]
        assert anybody.get(f"{url}/crl/authentication.crl").status_code == 200
        assert anybody.get(f"{url}/credentials/x/keys").status_code == 401


def test_the_factory_makes_a_my_number_card_and_takes_the_pins_from_standard_input(
    place: Path, authority: tuple[Path, dict[str, Any]]
) -> None:
    card = place / "my-number.card"
    done = run("authority", "my-number-card", authority[0], "--out", str(card), stdin=json.dumps(CITIZEN))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(card.stat().st_mode) == 0o600
    assert "ABC123" not in done.stdout + done.stderr


def test_a_wrong_citizen_is_refused_without_repeating_what_was_given(
    place: Path, authority: tuple[Path, dict[str, Any]]
) -> None:
    wrong = json.dumps(CITIZEN | {"signaturePin": ["SECRET99"]})
    done = run("authority", "my-number-card", authority[0], "--out", str(place / "no.card"), stdin=wrong)
    assert done.returncode == 2
    assert "SECRET99" not in done.stdout + done.stderr
