"""The whole server over real TLS: tokens and certificates at the GraphQL door, and what its log says afterwards."""

import base64
import hashlib
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api import administration, cli
from api.app import create_app
from api.bootstrap import CONFIG_FILE, Settings, build, utc_now
from api.certificates import fingerprint, request
from tests.api.https import serving
from tests.api.jwt_signer import AUDIENCE, ISSUER, Signer, claims_of, key_set

SIGNER = Signer.elliptic("ec")
QUERY = {"query": "{ logPosition }"}
OPERATOR = "MNO00001"


@dataclass
class Server:
    """Where it listens, and how one comes to it."""

    url: str
    data: Path
    operator: Path  # the folder with its certificate and key

    def ask(self, token=None, certificate=False):
        trust = ssl.create_default_context(cafile=str(self.data / "tls" / "ca.pem"))
        if certificate:
            trust.load_cert_chain(self.operator / "cert.pem", self.operator / "key.pem")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(verify=trust, trust_env=False, headers=headers) as http:
            return http.post(f"{self.url}/graphql", json=QUERY)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    data, operator = folder / "data", folder / "operator"
    administration.initialise(data, folder / "kek", "127.0.0.1", 8443)
    wanted = request(operator, OPERATOR).read_bytes()
    pem = administration.certify_party(data, wanted, OPERATOR, "operator", [])
    (operator / "cert.pem").write_bytes(pem)
    said = {"operator": OPERATOR, "name": "Simulated Mobile", "certificate_fingerprint": fingerprint(pem)}
    administration.enrol(data, "operator", json.dumps(said).encode())
    (data / "idp.json").write_bytes(key_set(SIGNER))
    config = json.loads((data / CONFIG_FILE).read_text())
    issuer = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": "idp.json"}
    (data / CONFIG_FILE).write_text(json.dumps({**config, "access": {"issuers": [issuer]}}))
    settings = Settings.load(data)
    with serving(create_app(build(settings)), settings.tls) as url:
        yield Server(url, data, operator)


def token(role="operator", tenant=f"operator:{OPERATOR}", **changes):
    now = int(utc_now().timestamp())
    return SIGNER.token(claims_of(**{"iat": now, "exp": now + 300, "roles": [role], "tenant": tenant, **changes}))


def admin(capsys, server, *words):
    given = cli.parser().parse_args(["admin", *words, "--data", str(server.data), "--json"])
    given.run(given)
    return json.loads(capsys.readouterr().out)


def answered(answer):
    return answer.status_code == 200 and answer.json()["data"]["logPosition"] is not None


def test_each_way_to_show_who_one_is_opens_the_door(server, capsys):
    assert answered(server.ask(certificate=True))
    assert answered(server.ask(token()))
    assert answered(server.ask(token("auditor", "*"), certificate=True))
    assert answered(server.ask(admin(capsys, server, "token", "--role", "auditor")["token"]))
    issued = admin(capsys, server, "service-token", "issue", "--role", "auditor", "--name", "n", "--reason", "r")
    assert answered(server.ask(issued["token"]))
    admin(capsys, server, "service-token", "revoke", issued["id"], "--reason", "test")
    assert server.ask(issued["token"]).status_code == 401


def test_whoever_shows_nothing_is_challenged(server):
    answer = server.ask()
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "bad",
    [
        token(exp=1),
        token(nbf=2**40),
        token(aud="https://other.example"),
        token(iss="https://other.example"),
        Signer.elliptic("ec").token(claims_of()),
        SIGNER.token(claims_of(), typ="JWT"),
        "tsm_0000000000000000_" + "A" * 43,
        "x.y.z",
    ],
    ids=["expired", "not yet", "audience", "issuer", "signature", "type", "service token", "nonsense"],
)
def test_a_bad_token_is_refused_with_and_without_a_certificate_and_nothing_of_it_is_told_or_logged(server, bad, caplog):
    caplog.set_level("DEBUG")
    for certificate in (False, True):
        answer = server.ask(bad, certificate)
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        logged = [record.getMessage() for record in caplog.records if record.name.startswith(("api", "tsm"))]
        assert any(answer.json()["requestId"] in line for line in logged)
        for part in bad.split("."):
            assert len(part) < 8 or part not in answer.text + "".join(logged)


def test_a_bound_token_needs_the_certificate_of_its_connection(server):
    der = x509.load_pem_x509_certificate((server.operator / "cert.pem").read_bytes()).public_bytes(Encoding.DER)
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    bound = token(cnf={"x5t#S256": thumbprint})
    assert answered(server.ask(bound, certificate=True))
    assert server.ask(bound).status_code == 401
    assert server.ask(token(cnf={"x5t#S256": thumbprint[::-1]}), certificate=True).status_code == 401


def test_a_role_that_does_not_fit_its_tenant_is_forbidden_and_not_challenged(server):
    answer = server.ask(token("operator", "*"))
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert "www-authenticate" not in answer.headers
