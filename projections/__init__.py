"""Read models: each answers one question, can be deleted and rebuilt."""
