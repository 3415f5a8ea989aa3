"""The domain and its protocols: knows nothing of HTTP servers or screens."""
