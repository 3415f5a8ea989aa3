"""The schema's `Mutation`: every mutation there is."""

from api.graphql.mutations import alerts, card_operations, cards, load_files, operations, parties, people
from api.graphql.mutations.rows import mutation_type

ROWS = (
    *parties.ROWS,
    *cards.ROWS,
    *load_files.ROWS,
    *card_operations.ROWS,
    *people.ROWS,
    *alerts.ROWS,
    *operations.ROWS,
)

Mutation = mutation_type(ROWS)
