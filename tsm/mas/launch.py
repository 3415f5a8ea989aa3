"""Launch (interface 1) and re-access (interface 5): the two messages that pass through the browser, with signatures.

    LAUNCH     commonApl: spId=..&rcptNum=..&rtnUrl=..&masUrl=..&spSign=..        (MC-05 tables 1-2 to 1-5)
    RE-ACCESS  https://<rtnUrl>?rcptNum=..&masSign=..                             (tables 1-21 and 1-22)

Values are percent-encoded (RFC 3986, all but unreserved characters), for a URL holds `&` and Base64 holds `+/=`. What
is signed is text in ASCII, exactly as it is transmitted:

    spSign     spId=<8>&rcptNum=<16>&rtnUrl=<percent-encoded>&masUrl=<percent-encoded>
    masSign    spId=<8>&rcptNum=<16>&procStatus=<2>

Both are ECDSA over P-256 with SHA-256, written as r || s (64 octets) in Base64: 88 characters. The field has room for
256, which RSA-2048 would not fit. START carries spSign but no rtnUrl, so the server tries each return URL that the
party registered. RE-ACCESS carries masSign but no status, so the site tries each final status.

Keys stay with the callers: `sign` and `verify` are functions bound to one.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from tsm.errors import ErrorCode, TsmError
from tsm.identifiers import ReceptionNumber, SpId
from tsm.mas.status import FINAL_STATUSES, Status

SCHEME = "commonApl:"
PARAMETERS = ("spId", "rcptNum", "rtnUrl", "masUrl", "spSign")
SIGNATURE_OCTETS = 64
MAX_PARAMETERS = 4096  # characters: more than any browser hands to an application

Sign = Callable[[bytes], bytes]  # data -> r || s
Verify = Callable[[bytes, bytes], bool]  # data, r || s


@dataclass(frozen=True, slots=True)
class LaunchParameters:
    """The run-time parameter of the common app (tables 1-4 and 1-5); all five values are mandatory."""

    provider: SpId
    reception: ReceptionNumber
    return_url: str
    mas_url: str
    signature: str  # spSign, Base64

    def encode(self) -> str:
        """`param` of table 1-3, without the scheme."""
        values = (self.provider, self.reception, self.return_url, self.mas_url, self.signature)
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in zip(PARAMETERS, values, strict=True))

    def href(self) -> str:
        """What the page puts into `location.href` (table 1-2, with its space)."""
        return f"{SCHEME} {self.encode()}"

    @classmethod
    def parse(cls, text: str) -> "LaunchParameters":
        """Read `param`, with or without the scheme and its space; MALFORMED_MESSAGE unless all five are there once."""
        if len(text) > MAX_PARAMETERS:
            raise TsmError(ErrorCode.MESSAGE_TOO_LARGE, "launch parameters")
        # A browser may hand on the space of "commonApl: " as it is, encoded, or not at all.
        pairs = text.removeprefix(SCHEME).removeprefix("%20").lstrip(" ").split("&")
        values = dict(pair.partition("=")[::2] for pair in pairs)
        if len(pairs) != len(PARAMETERS) or set(values) != set(PARAMETERS) or not all(values.values()):
            raise TsmError(ErrorCode.MALFORMED_MESSAGE, "launch parameters: five values, each once")
        provider, reception, return_url, mas_url, signature = (decoded(values[name]) for name in PARAMETERS)
        signature_octets(signature)
        return cls(
            SpId(provider),
            ReceptionNumber(reception),
            https_url(return_url),
            https_url(mas_url),
            signature,
        )


def launch(provider: SpId, reception: ReceptionNumber, return_url: str, mas_url: str, sign: Sign) -> LaunchParameters:
    """LAUNCH as the site makes it: the parameters, signed with the party's key."""
    data = sp_signed(provider, reception, return_url, mas_url)
    return LaunchParameters(provider, reception, return_url, mas_url, base64.b64encode(sign(data)).decode())


def sp_signed(provider: str, reception: str, return_url: str, mas_url: str) -> bytes:
    """The data under spSign."""
    urls = f"rtnUrl={quote(return_url, safe='')}&masUrl={quote(mas_url, safe='')}"
    return f"spId={provider}&rcptNum={reception}&{urls}".encode("ascii")


def mas_signed(provider: str, reception: str, status: str) -> bytes:
    """The data under masSign."""
    return f"spId={provider}&rcptNum={reception}&procStatus={status}".encode("ascii")


def signed_return_url(
    verify: Verify, provider: str, reception: str, return_urls: tuple[str, ...], mas_url: str, signature: str
) -> str:
    """Which of the party's registered return URLs spSign covers: the server authenticates the party (MC-05 2.3).

    BAD_SIGNATURE when none.
    """
    raw = signature_octets(signature)
    for url in return_urls:
        if verify(sp_signed(provider, reception, url, mas_url), raw):
            return url
    raise TsmError(ErrorCode.BAD_SIGNATURE, "spSign")


def verify_mas_sign(verify: Verify, provider: str, reception: str, signature: str) -> Status:
    """The final status that masSign covers: the site authenticates the server (MC-05 2.3). BAD_SIGNATURE when none."""
    raw = signature_octets(signature)
    for status in FINAL_STATUSES:
        if verify(mas_signed(provider, reception, status), raw):
            return status
    raise TsmError(ErrorCode.BAD_SIGNATURE, "masSign")


def re_access_url(return_url: str, reception: str, mas_sign: str) -> str:
    """RE-ACCESS: where the common app sends the browser. The return URL may carry a query of its own."""
    joint = "&" if urlsplit(return_url).query else "?"
    return f"{return_url}{joint}rcptNum={reception}&masSign={quote(mas_sign, safe='')}"


def https_url(text: str) -> str:
    """`text`, if it is an absolute https URL without fragment and credentials; INVALID_INPUT otherwise."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise TsmError(ErrorCode.INVALID_INPUT, "not a URL") from error
    sound = parts.scheme == "https" and parts.hostname and not parts.fragment and "@" not in parts.netloc
    if not sound or not text.isascii() or not text.isprintable() or " " in text:
        raise TsmError(ErrorCode.INVALID_INPUT, "not an https URL")
    return text


def signature_octets(text: str) -> bytes:
    """The 64 octets of a signature in Base64; BAD_SIGNATURE for anything else."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TsmError(ErrorCode.BAD_SIGNATURE, "not Base64") from error
    if len(raw) != SIGNATURE_OCTETS:
        raise TsmError(ErrorCode.BAD_SIGNATURE, f"{len(raw)} octets")
    return raw


def decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise TsmError(ErrorCode.MALFORMED_MESSAGE, "not percent-encoded UTF-8") from error
