"""A reading: somebody was shown personal data, for a purpose.

One for each request that unsealed any, recorded before its answer leaves. It tells whose data by their subjects, which
are pseudonyms, and never what was read.

Stream: `reading-<request id>`.
"""

from collections.abc import Sequence
from typing import ClassVar

from tsm.model.checks import SHA256_OCTETS, check_hex, check_text, refusal
from tsm.model.event import Fact


class DataAccessed(Fact, frozen=True, kw_only=True):
    """Personal data of these subjects was unsealed and shown."""

    topic: ClassVar[str] = "reading.data_accessed"
    purpose: str  # as the reader said
    query_sha256: str  # of what was asked, without whom it was asked about, hex
    subjects: tuple[str, ...]  # sorted


def stream(request: str) -> str:
    """The stream of a request's reading: the same request is recorded once."""
    return f"reading-{request}"


def access(purpose: str, query_sha256: str, subjects: Sequence[str]) -> list[DataAccessed]:
    """Decide to let the data be read. INVALID_INPUT without a purpose or subjects."""
    check_text(purpose, "purpose")
    check_hex(query_sha256, "query_sha256", SHA256_OCTETS)
    if not subjects:
        raise refusal("subjects", "nobody's data was read")
    return [DataAccessed(purpose=purpose, query_sha256=query_sha256, subjects=tuple(sorted(set(subjects))))]


FACTS: tuple[type[Fact], ...] = (DataAccessed,)
