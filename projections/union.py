"""Several queries of one kind as one: the rows beneath each of several rows, or those of several keys.

Each part is the range of an index that it would be alone. So a page whose rows have lists of their own costs one query
more for each of these lists, not one for each row.
"""

from collections.abc import Sequence
from typing import Any

from projections.projection import Projection
from projections.views import Views

PARTS = 100  # of one query: SQLite takes at most 500

Query = tuple[str, Sequence[object]]  # as `Views.read` takes it; an empty one finds nothing


def read_all(views: Views, projection: Projection, queries: Sequence[Query]) -> list[list[Any]]:
    """What `Views.read` gives for each of the queries, whose rows are all of the same columns."""
    found: list[list[Any]] = [[] for _ in queries]
    asked = [(number, *query) for number, query in enumerate(queries) if query[0]]
    for begin in range(0, len(asked), PARTS):
        some = asked[begin : begin + PARTS]
        united = " UNION ALL ".join(
            f"SELECT {number} AS part, found.* FROM ({query}) AS found"  # noqa: S608 - numbers and queries of ours
            for number, query, _ in some
        )
        values = [value for _, _, values in some for value in values]
        for number, *row in views.read(projection, united, values):
            found[number].append(row)
    return found
