# Two commands for a new user: `make demo` and `make test`. Both make their environment first; neither needs the network after that.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready

.PHONY: demo demo-quick test test-slow lint lock docs clean

demo: $(READY)
	$(RUN) cgeartheye demo --out demo

demo-quick: $(READY)
	$(RUN) cgeartheye demo --quick --out demo-quick

test: $(READY)
	$(RUN) pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: $(READY)
	$(RUN) pytest -q -n 2 --dist loadfile -m slow

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/python -c 'import sys; from importlinter.cli import lint_imports_command as run; sys.argv = ["lint-imports"]; run()'

docs: $(READY)
	$(VENV)/bin/python docs/make_reference.py

# the environment, from one lock with hashes; uv comes from the same lock
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; give it as: make PYTHON=python3.11 ...")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	$(RUN) pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	$(RUN) uv pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements.lock
	$(RUN) uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --offline -e .
	touch $(READY)

lock:
	$(RUN) uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --output-file requirements.lock

clean:
	rm -rf $(VENV) demo demo-quick
