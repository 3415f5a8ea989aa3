"""JSON over TLS with client certificates: the provider's back end, the counter, the authority, the operator's way back."""
