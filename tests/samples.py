"""Parties, a card and a load file, as the tests of the model and of the application enrol them."""

from hashlib import sha256

from tsm.model.authority import AuthorityEnrolled
from tsm.model.card import CardRegistered
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.operator import OperatorEnrolled
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.terminal import TerminalEnrolled

FINGERPRINT = "ab" * 32
ICCID = "8981100000000000010"
ISD = "A000000151000000"
SSD = "A000000151535041AA"
KDD = "000102030405060708ff"
BLOCK = b"load file data block"

OPERATOR = OperatorEnrolled(
    operator="MNO00001",
    name="Operator One",
    certificate_fingerprint=FINGERPRINT,
    public_key="30aa",
    signing_key="operator/MNO00001/signing",
    return_urls=("https://tsm.example/mno/return",),
)
PROVIDER = ProviderEnrolled(
    provider="JPKI0001",
    name="公的個人認証サービス",
    certificate_fingerprint=FINGERPRINT,
    public_key="30bb",
    transport_key="30cc",
    notify_url="https://sp.example/notify",
    return_urls=("https://sp.example/mobile/return",),
    domain=SSD,
    authority="jpki",
)
TERMINAL = TerminalEnrolled(terminal="T-13101-01", municipality="千代田区", certificate_fingerprint=FINGERPRINT)
AUTHORITY = AuthorityEnrolled(
    authority="jpki",
    name="Simulated JPKI",
    certificate_fingerprint=FINGERPRINT,
    url="https://ca.example",
    signature_ca="30dd",
    authentication_ca="30ee",
    signature_crl_url="https://ca.example/crl/signature.crl",
    authentication_crl_url="https://ca.example/crl/authentication.crl",
)
LOAD_FILE = LoadFileRegistered(
    load_file="D392F0002601FF",
    provider="JPKI0001",
    version="1.0",
    sha256=sha256(BLOCK).hexdigest(),
    size=len(BLOCK),
    module="D392F0002601FF01",
    application="D392F000260100000001",
)
CARD = CardRegistered(
    iccid=ICCID,
    iin="8981100F",
    cin="000102030405",
    operator="MNO00001",
    profile="uicc-128k",
    diversification=KDD,
    isd=ISD,
    key_set="isd",
    key_version=1,
    key=f"operator/MNO00001/isd?kdf3={KDD}",
)
