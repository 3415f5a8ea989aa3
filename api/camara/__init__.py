"""CAMARA: what relying parties ask about telephone lines, in the words of CAMARA's OpenAPI definitions."""
