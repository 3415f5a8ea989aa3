"""Who could have written a domain's keys, when, and in which session: one query.

Each row of the answer is one set of keys, oldest first. It says who delegated the session that put them, through which
channel (the session's domain and key version), and when. Who else could have written them follows from the keys before:
whoever had those could open the domain's channel. The row of those says that, too: the operator whose domain put them,
the provider to which they were handed out, the provider that shared them with this server, and when they left it.
"""

from typing import NamedTuple

from projections.registry import REGISTRY
from projections.registry.listings import KEYS, page_query
from projections.registry.rows import KeyRow, SessionRow
from projections.viewer import Viewer
from projections.views import Views

WIDTH = len(KEYS.columns)


class Writing(NamedTuple):
    """Keys, and the session that put them: None for those that the card was made with."""

    keys: KeyRow
    session: SessionRow | None


def key_history(
    views: Views, viewer: Viewer, iccid: str, domain: str, after: int = 0, limit: int = 100
) -> list[Writing]:
    """At most `limit` key sets that a domain was given after a position. Empty when the viewer sees none of them.

    Whoever sees the keys sees the session as well, though another party delegated it: it is the answer.
    """
    keys, values = page_query(KEYS, viewer, {"iccid": iccid, "domain": domain}, after, None, limit)
    if not keys:
        return []
    query = (
        f"SELECT put.*, carried.* FROM ({keys}) AS put"  # noqa: S608 - a query of ours
        " LEFT JOIN {sessions} AS carried ON carried.key = put.session ORDER BY put.position"
    )
    return [
        Writing(KeyRow._make(row[:WIDTH]), None if row[WIDTH] is None else SessionRow._make(row[WIDTH:]))
        for row in views.read(REGISTRY, query, values)
    ]
