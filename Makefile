# Each chore is a word. Every target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo demo-swap serve test lint bench bench-large lock schema clean
demo: $(READY) ; $(VENV)/bin/tsm demo $(ARGS)
demo-swap: $(READY) ; $(VENV)/bin/tsm demo --act swap $(ARGS)
serve: $(READY)
	$(VENV)/bin/tsm init --if-missing
	$(VENV)/bin/tsm serve $(ARGS)
test: $(READY) ; $(VENV)/bin/python -m pytest $(ARGS)
lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
bench: $(READY) ; $(VENV)/bin/python -m api.bench $(ARGS)
bench-large: $(READY) ; $(VENV)/bin/python -m api.bench large lines $(ARGS)
schema: $(READY) ; $(VENV)/bin/tsm schema > schema.graphql
lock: ; uv pip compile --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	--python-version 3.11 --extra dev -q -o requirements.lock pyproject.toml
clean: ; rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
