"""Who asks, as far as rows are concerned.

Whatever a party may not see is left out by the query itself, never afterwards: a page is full of what its reader may
see, a count counts that only, and an id of somebody else's finds nothing.
"""

from typing import Literal, NamedTuple

Kind = Literal["everything", "operator", "provider", "municipality", "nothing"]


class Viewer(NamedTuple):
    """Whose eyes a query is made for."""

    kind: Kind
    party: str = ""  # the operator's or provider's spId, or the municipality; empty for the first and the last kind


EVERYTHING = Viewer("everything")
NOTHING = Viewer("nothing")
