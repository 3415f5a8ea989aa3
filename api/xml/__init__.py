"""MC-05 over HTTP: interfaces 2, 3 and 4."""
