"""The types of the schema, and where their values come from: a module for each thing that is asked about."""
