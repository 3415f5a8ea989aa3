"""Stories across aggregates."""
