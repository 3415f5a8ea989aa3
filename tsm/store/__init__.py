"""How events become bytes that last."""
