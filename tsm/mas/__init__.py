"""The Mobile Access Server's protocol (ARIB MC-05) without I/O."""
