"""Keys and what is done with them; callers hold references, never bytes."""
