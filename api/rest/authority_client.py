"""The certificate authority port over HTTPS, with the server's own client certificate.

    POST <url>/credentials      {"credentialId", "provider", "mainCertificate": base64 DER}
                                -> {"authentication": base64 DER, "signature": base64 DER}
    POST <url>/credentials/<id>/revoked
                                {"authenticationSha256": hex, "signatureSha256": hex, "reason": "keyCompromise"}
                                -> 200, once both certificates will be on the next revocation lists
    POST <url>/credentials/<id>/held
                                {"authenticationSha256": hex, "signatureSha256": hex} -> 200, once both are on hold
    POST <url>/credentials/<id>/released
                                {"authenticationSha256": hex, "signatureSha256": hex}, of those that were held
                                -> {"signature": base64 DER}, the new certificate for signatures
    GET  <revocation list>      -> DER

An authority that is silent, slow or unintelligible is UPSTREAM_UNAVAILABLE: the caller keeps its application and
repeats. What the authority refuses about a certificate is handed on with its code.
"""

import base64
import binascii
import ssl

import httpx

from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificate_authority import (
    CertificateRequest,
    HoldRequest,
    IssuedCertificates,
    ReleaseRequest,
    RevocationRequest,
)

TIMEOUT = httpx.Timeout(20.0, connect=5.0)  # seconds; making two RSA keys takes a while
LARGEST_ANSWER = 4 * 1024 * 1024  # octets
HANDED_ON = {
    code.value: code
    for code in (ErrorCode.CERTIFICATE_INVALID, ErrorCode.CERTIFICATE_EXPIRED, ErrorCode.CERTIFICATE_REVOKED)
}


class AuthorityClient:
    """Satisfies `CertificateAuthority`. Safe to use from several threads."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._http = httpx.Client(verify=tls, timeout=TIMEOUT, trust_env=False)

    def issue(self, url: str, request: CertificateRequest) -> IssuedCertificates:
        body = {
            "credentialId": request.credential,
            "provider": request.provider,
            "mainCertificate": base64.b64encode(request.main_certificate).decode(),
        }
        answer = self._ask("POST", f"{url.rstrip('/')}/credentials", body)
        authentication, signature = members_of(answer, "authentication", "signature")
        return IssuedCertificates(authentication, signature)

    def revoke(self, url: str, request: RevocationRequest) -> None:
        body = named(request) | {"reason": request.reason.value}
        self._ask("POST", f"{url.rstrip('/')}/credentials/{request.credential}/revoked", body)

    def hold(self, url: str, request: HoldRequest) -> None:
        self._ask("POST", f"{url.rstrip('/')}/credentials/{request.credential}/held", named(request))

    def release(self, url: str, request: ReleaseRequest) -> bytes:
        answer = self._ask("POST", f"{url.rstrip('/')}/credentials/{request.credential}/released", named(request))
        [signature] = members_of(answer, "signature")
        return signature

    def revocation_list(self, url: str) -> bytes:
        return self._ask("GET", url).content

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, url: str, body: dict[str, str] | None = None) -> httpx.Response:
        try:
            answer = self._http.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"authority: {type(error).__name__}") from error
        if answer.status_code != httpx.codes.OK:
            raise TsmError(refusal_of(answer), f"the authority answered {answer.status_code}")
        if len(answer.content) > LARGEST_ANSWER:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "the authority's answer is too large")
        return answer


def named(request: RevocationRequest | HoldRequest | ReleaseRequest) -> dict[str, str]:
    """The two certificates of a credential, as a request names them."""
    return {
        "authenticationSha256": request.authentication_sha256,
        "signatureSha256": request.signature_sha256,
    }


def members_of(answer: httpx.Response, *names: str) -> list[bytes]:
    """The octets under these names; UPSTREAM_UNAVAILABLE when the answer has others."""
    try:
        members = answer.json()
        return [base64.b64decode(members[name], validate=True) for name in names]
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "the authority's answer is not as specified") from error


def refusal_of(answer: httpx.Response) -> ErrorCode:
    try:
        code = answer.json()["code"]
    except (ValueError, KeyError, TypeError):
        return ErrorCode.UPSTREAM_UNAVAILABLE
    return HANDED_ON.get(code, ErrorCode.UPSTREAM_UNAVAILABLE)
