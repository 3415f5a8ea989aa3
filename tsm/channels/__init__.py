"""Secure channels: open, wrap, unwrap."""
