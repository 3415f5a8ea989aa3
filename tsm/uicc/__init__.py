"""The other end of the wire: a simulated UICC."""
