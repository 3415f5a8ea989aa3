"""Bytes on the wire: TLV, APDUs, one class per command. Pure: no keys, no state."""
