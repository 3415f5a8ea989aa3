"""The admin GraphQL API."""
