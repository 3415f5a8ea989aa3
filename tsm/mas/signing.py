"""Which keys of the vault are the server's own: it signs END with one, and receives key sets under the other."""

MAS_SIGNING_KEY = "mas/signing"  # ECDSA P-256, for masSign
MAS_TRANSPORT_KEY = "mas/transport"  # RSA, for key sets that parties share
