"""Access tokens: what an issuer signed for us is taken, and nothing else, however it is dressed up.

The tokens are made by a signer of its own (`jwt_signer`), and once by OpenSSL.
"""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

import api.tokens
from api.access import TENANTS
from api.issuer_keys import IssuerKeys, read_keys
from api.tokens import AccessTokens, Granted, Issuer
from tests.api.jwt_signer import (
    AUDIENCE,
    ISSUER,
    NOW,
    Signer,
    base64url,
    claims_of,
    key_set,
    mac_token,
    part,
)
from tsm.errors import ErrorCode, TsmError

EC, RSA, STRANGER = Signer.elliptic("ec"), Signer.rsa("rsa"), Signer.elliptic("ec")


class Clock:
    def __init__(self):
        self.now = datetime.fromtimestamp(NOW, UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def keys(tmp_path, threads):
    (tmp_path / "jwks.json").write_bytes(key_set(EC, RSA))
    return IssuerKeys("jwks.json", tmp_path, threads)


@pytest.fixture
def tokens(keys, clock):
    return AccessTokens([Issuer(ISSUER, AUDIENCE, ("ES256", "PS256", "RS256"), keys, clock)], TENANTS, clock)


def refused(tokens, token, code=ErrorCode.UNAUTHENTICATED):
    with pytest.raises(TsmError) as refusal:
        tokens.granted(token)
    assert refusal.value.code == code
    return refusal.value.detail


# --- What is taken ---


@pytest.mark.parametrize(("signer", "algorithm"), [(EC, "ES256"), (RSA, "RS256"), (RSA, "PS256")])
def test_a_token_of_the_issuer_grants_what_it_says(tokens, signer, algorithm):
    assert tokens.granted(signer.token(algorithm=algorithm)) == Granted(
        role="operator",
        tenant="operator:MNO00001",
        person="alice",
        client=f"{ISSUER}|console|alice",
        expires_at=datetime.fromtimestamp(NOW + 600, UTC),
        identity=f"{ISSUER}|alice",
        thumbprint="",
    )


def test_a_person_is_the_same_by_whatever_client_in_whatever_role_and_a_program_is_none(tokens):
    alice = tokens.granted(EC.token()).identity
    officer = claims_of(client_id="phone", roles=["security-officer"], tenant="*", jti="two")
    assert tokens.granted(EC.token(officer)).identity == alice
    assert tokens.granted(EC.token(claims_of(sub="bob"))).identity != alice
    assert tokens.granted(EC.token(claims_of(sub="console"))).identity == ""  # client credentials: RFC 9068 section 2.2


def test_a_token_that_openssl_signed_is_taken(tokens, tmp_path):
    key = RSA.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(key)
    signed = f"{part({'typ': 'at+jwt', 'alg': 'RS256', 'kid': 'rsa'})}.{part(claims_of())}"
    signature = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", tmp_path / "key.pem"],
        input=signed.encode(),
        capture_output=True,
        check=True,
    ).stdout
    assert tokens.granted(f"{signed}.{base64url(signature)}").person == "alice"


@pytest.mark.parametrize(
    "token",
    [
        EC.token(claims_of(aud=["https://other.example", AUDIENCE])),
        EC.token(claims_of(exp=NOW + 600.5, nbf=NOW)),
        EC.token(claims_of(roles=["offline_access", "operator", "uma_authorization"])),
        EC.token(claims_of(sub="auth0|1234", scope="openid", azp="console", realm_access={"roles": ["x"]})),
        EC.token(typ="application/at+jwt"),
        EC.token(typ="AT+JWT"),
        EC.token(claims_of(iat=NOW + 20, nbf=NOW + 20)),
        EC.token(claims_of(exp=NOW - 20)),
    ],
    ids=[
        "of two audiences",
        "not before",
        "other roles",
        "other claims",
        "typ",
        "TYP",
        "clocks ahead",
        "clocks behind",
    ],
)
def test_what_the_specifications_leave_open_is_taken(tokens, token):
    assert tokens.granted(token).tenant == "operator:MNO00001"


def test_a_bound_token_tells_its_certificate(tokens):
    granted = tokens.granted(EC.token(claims_of(cnf={"x5t#S256": "abc"})))
    assert granted.thumbprint == "abc"


# --- What is not: the signature ---


def test_an_unsigned_token_is_refused_whatever_it_calls_its_algorithm(tokens):
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        head, claims, _ = EC.token(algorithm="ES256", alg=algorithm).split(".")
        refused(tokens, f"{head}.{claims}.")
        refused(tokens, f"{head}.{claims}.AAAA")
    head, claims, _ = EC.token().split(".")
    refused(tokens, f"{head}.{claims}.")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_never_the_secret_of_a_mac(tokens, algorithm):
    published = json.loads(key_set(EC, RSA))["keys"]
    for signer in (EC, RSA):
        der = signer.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for secret in (signer.pem(), signer.pem().strip(), der, json.dumps(published[0]).encode(), b""):
            refused(tokens, mac_token(secret, algorithm, signer.kid))


def test_a_published_symmetric_key_is_no_key(tmp_path, threads, clock):
    entry = {"kty": "oct", "kid": "mac", "k": base64url(b"a secret of thirty two octets...")}
    (tmp_path / "set.json").write_text(json.dumps({"keys": [entry, EC.jwk]}))
    keys = IssuerKeys("set.json", tmp_path, threads)
    tokens = AccessTokens([Issuer(ISSUER, AUDIENCE, ("ES256",), keys, clock)], TENANTS, clock)
    refused(tokens, mac_token(b"a secret of thirty two octets...", kid="mac"))
    assert tokens.granted(EC.token())


@pytest.mark.parametrize(
    "token",
    [
        STRANGER.token(),
        EC.token(kid="rsa"),
        RSA.token(algorithm="RS256", kid="ec"),
        RSA.token(algorithm="RS256", alg="PS256"),
        RSA.token(algorithm="RS256", alg="ES256"),
        EC.token(alg="ES384"),
        EC.token(alg="RS256"),
    ],
    ids=["a stranger's key", "another's kid", "kid of another kind", "RS as PS", "RS as ES", "other curve", "ES as RS"],
)
def test_a_signature_counts_with_its_own_key_and_algorithm_only(tokens, token):
    refused(tokens, token)


def test_an_algorithm_that_is_not_pinned_for_the_issuer_is_refused_though_the_key_would_do(keys, clock):
    tokens = AccessTokens([Issuer(ISSUER, AUDIENCE, ("PS256",), keys, clock)], TENANTS, clock)
    refused(tokens, RSA.token(algorithm="RS256"))
    assert tokens.granted(RSA.token(algorithm="PS256"))


@pytest.mark.parametrize("which", [0, 1, 2])
@given(data=st.data())
def test_a_changed_token_is_refused(which, data):
    parts = GOOD.split(".")
    place = data.draw(st.integers(0, len(parts[which]) - 1))
    other = data.draw(st.sampled_from("ABCabc019-_.= \x00é"))
    changed = parts[which][:place] + other + parts[which][place + 1 :]
    if changed == parts[which]:
        return
    parts[which] = changed
    refused(PLAIN, ".".join(parts))


class FixedKeys:
    def __init__(self, *signers):
        self.find = self.get = read_keys(key_set(*signers)).get


GOOD = EC.token()
PLAIN = AccessTokens([Issuer(ISSUER, AUDIENCE, ("ES256",), FixedKeys(EC, RSA), Clock())], TENANTS, Clock())


@given(st.text())
def test_anything_else_is_refused_and_nothing_breaks(text):
    refused(PLAIN, text)


@pytest.mark.parametrize(
    "head",
    [
        ["alg", "kid"],
        "alg",
        7,
        None,
        {"alg": ["ES256"], "typ": "at+jwt", "kid": "ec"},
        {"alg": "ES256", "typ": ["at+jwt"], "kid": "ec"},
        {"alg": "ES256", "typ": "at+jwt", "kid": {"kid": "ec"}},
        {"alg": "ES256", "typ": "at+jwt", "kid": 1},
        {"alg": "ES256", "typ": "at+jwt", "kid": "ec", "jwk": 5},
    ],
)
def test_a_header_of_another_shape_is_refused(tokens, head):
    refused(tokens, f"{part(head)}.{part(claims_of())}.{base64url(bytes(64))}")


@pytest.mark.parametrize(
    "claims", [[], "iss", 7, None, {"iss": [ISSUER]}, {"iss": {}}, {"iss": ISSUER, "exp": 10**400}]
)
def test_claims_of_another_shape_are_refused(tokens, claims):
    signed = f"{part({'typ': 'at+jwt', 'alg': 'ES256', 'kid': 'ec'})}.{part(claims)}"
    refused(tokens, f"{signed}.{base64url(EC.sign('ES256', signed.encode()))}")


def test_deep_nesting_and_length_are_refused(tokens):
    deep = "[" * 2000 + "]" * 2000
    signed = f"{part({'typ': 'at+jwt', 'alg': 'ES256', 'kid': 'ec'})}.{base64url(deep.encode())}"
    refused(tokens, f"{signed}.{base64url(bytes(64))}")
    assert "long" in refused(tokens, EC.token(claims_of(more="x" * api.tokens.LARGEST)))


# --- What is not: the header ---


def test_a_token_of_another_type_is_refused(tokens):
    for typ in ("JWT", "jwt", "at", "id_token+jwt", "logout+jwt", "", None):
        refused(tokens, EC.token(typ=typ))


def test_a_key_or_an_address_in_the_header_is_ignored(tokens, monkeypatch):
    """A good token stays good, and one of a stranger who brings its own key stays a stranger's; nobody is asked."""
    monkeypatch.setattr("api.issuer_keys.fetch", lambda url: pytest.fail("an address of the header was asked"))
    for brought in (
        {"jwk": STRANGER.jwk},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["AAAA"]},
    ):
        refused(tokens, STRANGER.token(**brought))
        refused(tokens, STRANGER.token(**brought, kid=None))
        assert tokens.granted(EC.token(**brought)).person == "alice"


def test_critical_extensions_are_refused_known_to_the_library_or_not(tokens):
    for crit in (["b64"], ["exp"], ["unknown"], [], "exp", 5):
        refused(tokens, EC.token(crit=crit, exp=NOW + 600, unknown=1))
        refused(tokens, EC.token(crit=crit, b64=True))
    refused(tokens, EC.token(b64=False))
    refused(tokens, EC.token(b64=False, crit=["b64"]))


def test_a_token_without_a_key_name_or_with_an_unknown_one_is_refused(tokens):
    refused(tokens, EC.token(kid=None))
    refused(tokens, EC.token(kid="another"))
    refused(tokens, EC.token(kid="../../etc/passwd"))


# --- What is not: the claims ---


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat", "sub", "client_id", "jti", "roles", "tenant"])
def test_a_claim_that_is_missing_or_of_another_kind_is_refused(tokens, claim):
    refused(tokens, EC.token(claims_of(**{claim: None})))
    for wrong in ({}, {"a": 1}, True, "", [1]):
        refused(tokens, EC.token(claims_of(**{claim: wrong})))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example/realms/other"},
        {"iss": ISSUER + "/"},
        {"aud": "https://other.example"},
        {"aud": ["https://other.example"]},
        {"aud": []},
        {"exp": NOW - 31},
        {"exp": "never"},
        {"nbf": NOW + 31},
        {"iat": NOW + 31},
        {"client_id": "a|b"},
        {"sub": "alice\nadmin"},
        {"sub": "x" * 256},
        {"cnf": {"jkt": "a key of DPoP"}},
        {"cnf": {}},
        {"cnf": {"x5t#S256": ""}},
        {"cnf": "x"},
    ],
    ids=str,
)
def test_a_token_for_others_or_for_another_time_is_refused(tokens, changes):
    refused(tokens, EC.token(claims_of(**changes)))


@pytest.mark.parametrize("roles", [[], ["other"], ["operator", "auditor"], ["terminal"], ["authority"], ["Operator"]])
def test_a_token_names_exactly_one_role_that_a_token_may_name(tokens, roles):
    refused(tokens, EC.token(claims_of(roles=roles)), ErrorCode.FORBIDDEN)


def test_the_keys_of_one_issuer_open_nothing_under_another_name(tmp_path, threads, clock, keys):
    (tmp_path / "other.json").write_bytes(key_set(STRANGER))
    other = Issuer("https://other.example", AUDIENCE, ("ES256",), IssuerKeys("other.json", tmp_path, threads), clock)
    tokens = AccessTokens([Issuer(ISSUER, AUDIENCE, ("ES256",), keys, clock), other], TENANTS, clock)
    refused(tokens, STRANGER.token())
    assert tokens.granted(STRANGER.token(claims_of(iss="https://other.example"))).client.startswith("https://other")


# --- Remembering ---


@pytest.fixture
def verified(monkeypatch):
    """Counts signatures that are verified."""
    calls, real = [], api.tokens.jws.validate_compact
    monkeypatch.setattr(api.tokens.jws, "validate_compact", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def test_a_token_is_verified_once_and_not_beyond_its_end(tokens, clock, verified):
    token = EC.token()
    for _ in range(5):
        tokens.granted(token)
    assert len(verified) == 1
    clock.now += timedelta(seconds=600)
    tokens.granted(token)  # within the leeway, and so verified each time
    assert len(verified) == 2
    clock.now += timedelta(seconds=30)
    refused(tokens, token)


def test_a_refused_token_is_refused_again(tokens):
    token = STRANGER.token()
    assert refused(tokens, token) == refused(tokens, token)


def test_not_more_than_a_number_of_tokens_is_remembered(tokens, verified, monkeypatch):
    monkeypatch.setattr(api.tokens, "REMEMBERED", 2)
    first, second, third = (EC.token(claims_of(jti=jti)) for jti in "abc")
    for token in (first, second, first, third, first):
        tokens.granted(token)
    assert len(verified) == 3  # the one that was not used for longest went
    tokens.granted(second)
    assert len(verified) == 4


def test_a_key_that_its_issuer_withdraws_opens_nothing_any_more_though_the_token_was_known(tmp_path, threads, clock):
    seconds = [1000.0]
    place = tmp_path / "set.json"
    place.write_bytes(key_set(EC, RSA))
    keys = IssuerKeys("set.json", tmp_path, threads, lambda: seconds[0])
    tokens = AccessTokens([Issuer(ISSUER, AUDIENCE, ("ES256", "RS256"), keys, clock)], TENANTS, clock)
    token = EC.token()
    assert tokens.granted(token)
    place.write_bytes(key_set(RSA))
    assert tokens.granted(token)  # nobody has looked yet
    seconds[0] += 300
    assert tokens.granted(RSA.token(algorithm="RS256"))
    threads.submit(lambda: None).result()  # the look that this began is over
    refused(tokens, token)


# --- What is told ---


def test_a_refusal_repeats_nothing_of_the_token(tokens, caplog):
    caplog.set_level("DEBUG")
    claims = claims_of(sub="Secretperson", tenant="Secrettenant", jti="Secretjti", exp=NOW - 100)
    for token in (
        EC.token(claims),
        STRANGER.token(claims),
        EC.token(claims, kid="Secretkid"),
        EC.token(claims, alg="Secretalg"),
        EC.token(claims, typ="Secrettyp"),
        EC.token(claims_of(iss="Secretissuer")),
        EC.token(claims_of(Secretclaim=1, roles=["Secretrole"], tenant="Secrettenant")),
        "Secret.Secret.Secret",
    ):
        with pytest.raises(TsmError) as refusal:
            tokens.granted(token)
        said = str(refusal.value) + caplog.text
        assert "Secret" not in said
        assert not any(piece in said for piece in token.split(".") if len(piece) > 8)
