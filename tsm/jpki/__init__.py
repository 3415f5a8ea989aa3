"""The Japanese public key infrastructure for individuals: application, access code, authority, personalisation."""
