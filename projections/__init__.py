"""Read models: each answers one question from the events, and can be deleted and rebuilt."""

from projections.domain_tree import DOMAIN_TREE
from projections.issuance_history import ISSUANCE_HISTORY
from projections.projection import Projection

PROJECTIONS: tuple[Projection, ...] = (ISSUANCE_HISTORY, DOMAIN_TREE)
