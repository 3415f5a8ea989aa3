"""A bank of the demo: it asks before it trusts: is this certificate good, and did SIM or phone of that line change?

The status comes from the address that the certificate names (OCSP), the other from CAMARA's APIs, with a token that the
operator gave to the bank.
"""

import secrets
from datetime import UTC, datetime

import httpx
from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus, load_der_ocsp_response
from cryptography.x509.oid import AuthorityInformationAccessOID

from api.demo.party import checked, reaching
from tsm.errors import ErrorCode, TsmError
from tsm.jpki import ocsp
from tsm.jpki.certificates import read_certificate

SIM_SWAP, DEVICE_SWAP = "/sim-swap/v2/check", "/device-swap/v1/check"
SCOPES = ("sim-swap:check", "device-swap:check", "dpv:FraudPreventionAndDetection")


class Bank:
    """Asks; learns nothing else of anybody."""

    def __init__(self, http: httpx.Client, tsm_url: str, token: str) -> None:
        self._http = http
        self._tsm_url = tsm_url
        self._token = token

    def status(self, certificate_der: bytes, authority_der: bytes) -> str:
        """ "good", or "revoked" with the reason, as the authority says now. REVOCATION_UNKNOWN when it does not."""
        certificate, authority = read_certificate(certificate_der), read_certificate(authority_der)
        nonce = secrets.token_bytes(ocsp.NONCE_SIZE)
        asked = ocsp.ask(certificate, authority, nonce)
        with reaching():
            headers = {"Content-Type": ocsp.REQUEST_TYPE}
            said = self._http.post(ocsp_address(certificate), content=asked, headers=headers)
        answer = load_der_ocsp_response(checked(said).content)
        if not ocsp.is_answer(answer, certificate, authority, nonce, datetime.now(UTC)):
            raise TsmError(ErrorCode.REVOCATION_UNKNOWN, "the OCSP response does not answer")
        if answer.certificate_status is OCSPCertStatus.REVOKED:
            return f"revoked, {answer.revocation_reason.value if answer.revocation_reason else 'unspecified'}"
        return answer.certificate_status.name.lower()

    def swapped(self, path: str, number: str) -> bool:
        """Whether it changed within the last ten days, which is what CAMARA asks when nobody says how many."""
        with reaching():
            headers = {"Authorization": f"Bearer {self._token}"}
            said = self._http.post(f"{self._tsm_url}{path}", json={"phoneNumber": number}, headers=headers)
        return bool(checked(said).json()["swapped"])


def ocsp_address(certificate: x509.Certificate) -> str:
    """The responder that the certificate names."""
    described = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    (address,) = (d for d in described if d.access_method == AuthorityInformationAccessOID.OCSP)
    return str(address.access_location.value)
