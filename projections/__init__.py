"""Read models: each answers one question from the events, and can be deleted and rebuilt."""

from projections.domain_tree import DOMAIN_TREE
from projections.event_index import EVENT_INDEX
from projections.line_swaps import LINE_SWAPS
from projections.projection import Projection
from projections.registry import REGISTRY

PROJECTIONS: tuple[Projection, ...] = (DOMAIN_TREE, EVENT_INDEX, REGISTRY, LINE_SWAPS)
