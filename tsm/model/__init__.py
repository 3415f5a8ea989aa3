"""What is true and what happened: one aggregate per file, immutable events, decide and evolve apart."""
