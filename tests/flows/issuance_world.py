"""A world for credentials: the sessions' world with a terminal, an authority that can be silent, and a citizen."""

from dataclasses import dataclass, field
from datetime import date
from functools import cache
from hashlib import sha256
from os import urandom

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from mas_world import ICCID, PROVIDER, World

from tsm.errors import ErrorCode, TsmError
from tsm.flows.follower import StoredPosition
from tsm.flows.issuance import Counter, Issuance
from tsm.flows.issuance_follower import IssuanceFollower
from tsm.jpki import authority as authority_module
from tsm.jpki.application import ApplicationDocument, SignedApplication
from tsm.jpki.authority import Authority
from tsm.jpki.certificates import Holder, Kind
from tsm.keys.vault import SoftwareVault
from tsm.model import credential as credentials
from tsm.model.authority import AuthorityEnrolled

AUTHORITY, URL, STATUS = "jpki", "https://ca.example", "http://status.ca.example"
COUNTER = Counter("T-13101-01", "13101", "request-1")
HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")


@dataclass
class Line:
    """The way to the authority: may be cut, may be tampered with."""

    authority: Authority
    silent: bool = False
    silent_lists: bool = False
    asked: list = field(default_factory=list)

    def issue(self, url, request):
        self.asked.append((url, request))
        if self.silent:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "silent")
        return self.authority.issue(request)

    def revoke(self, url, request):
        self.asked.append((url, request))
        if self.silent:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "silent")
        self.authority.revoke_credential(request)

    def hold(self, url, request):
        self.asked.append((url, request))
        if self.silent:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "silent")
        self.authority.hold(request)

    def release(self, url, request):
        self.asked.append((url, request))
        if self.silent:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "silent")
        return self.authority.release(request)

    def revocation_list(self, url):
        if self.silent_lists:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "silent")
        return self.authority.revocation_list(Kind(url.removeprefix(f"{URL}/crl/").removesuffix(".crl")))


@cache
def key_pool():
    """RSA keys take a while to make, so all worlds use the same few: enough for two authorities and two credentials."""
    return [authority_module.new_key() for _ in range(8)]


class IssuanceWorld(World):
    """The sessions' world, and all that a credential needs."""

    def __post_init__(self):
        super().__post_init__()
        self.authority_vault = SoftwareVault.create(self.folder / "ca" / "vault", self.folder / "ca-kek")
        self.authority = Authority(self.folder / "ca", self.authority_vault, self.clock, STATUS)
        self.main = self.authority.issue_main(HANAKO)
        self.line = Line(self.authority)
        self.issuance = Issuance(self.tsm, self.vault, self.line, self.tsm.now, urandom)
        self.follower = IssuanceFollower(self.tsm, StoredPosition(self.folder / "position"))
        self.record(
            f"authority-{AUTHORITY}",
            AuthorityEnrolled(
                authority=AUTHORITY,
                name="Simulated JPKI",
                certificate_fingerprint="22" * 32,
                url=URL,
                signature_ca=self.authority.certificate(Kind.SIGNATURE).hex(),
                authentication_ca=self.authority.certificate(Kind.AUTHENTICATION).hex(),
                signature_crl_url=f"{URL}/crl/signature.crl",
                authentication_crl_url=f"{URL}/crl/authentication.crl",
            ),
        )

    def close(self):
        super().close()
        self.authority.close()
        self.authority_vault.close()

    def destroy_key_copies(self, credential):
        """The authority's receipts for both certificates, as the provider reports them written."""
        issued = self.authority.certificates(credential)
        written = [sha256(issued.of(kind)).hexdigest() for kind in Kind]
        return self.authority.destroy_key_copies(credential, PROVIDER, written)

    def enrol_other_provider(self, provider):
        enrolled = self.facts(f"provider-{PROVIDER}")[0]
        self.record(f"provider-{provider}", msgspec.structs.replace(enrolled, provider=provider))

    def document(self, **changes):
        values = {"iccid": ICCID, "provider": PROVIDER, "applicant": HANAKO.name} | changes
        challenge = values.pop("challenge", None) or self.issuance.challenge(COUNTER)
        return ApplicationDocument(challenge, **values)

    def signed(self, document=None, key=None, certificate=None):
        """What the counter sends, signed by Hanako's card unless said otherwise."""
        octets = (document or self.document()).encode()
        signature = (key or self.main.signature_key).sign(octets, padding.PKCS1v15(), hashes.SHA256())
        return SignedApplication(octets, signature, certificate or self.main.signature_certificate)

    def apply(self, signed=None, counter=COUNTER):
        return self.issuance.apply(signed or self.signed(), counter)

    def check(self, slip, iccid=ICCID, provider=PROVIDER):
        return self.issuance.check_access_code(provider, iccid, slip.code)

    def follow(self):
        """Let the follower read the whole log."""
        for event in self.events():
            self.follower.see(event)
        self.follower.act()

    def credential(self, credential):
        return self.tsm.load(credentials.stream(credential), credentials.evolve).state

    def the_credential_topics(self):
        """Of the only credential there is."""
        return [topic.removeprefix("credential.") for topic in self.topics("credential-")]
