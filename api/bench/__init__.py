"""What it costs, side by side in one run with what it is measured against: `make bench`, `python -m api.bench PART`."""
