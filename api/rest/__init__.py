"""JSON over TLS with client certificates: provider, counter, authority, and the operator's way back."""
