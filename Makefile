# make demo   set up and run both workflows on real images (one to two minutes after installation)
# make test   set up and check everything
# make label-studio  what needs a Label Studio server
# make clean  remove what these made
PYTHON ?= python3
BIN := .venv/bin
.PHONY: demo test bare label-studio clean

demo: .venv/.demo
	$(BIN)/svp demo

test: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The wheel without extras: what works without torch works, and what does not says what to install.
bare: .venv/.test
	rm -rf build/bare build/wheel && $(PYTHON) -m venv build/bare
	$(BIN)/python -m pip wheel -q --no-deps -w build/wheel .
	build/bare/bin/pip install -q build/wheel/*.whl
	$(BIN)/python -m tests.bare build/bare/bin

# A real Label Studio server (800 MB to install, a minute to come up), filled by a session and read back.
label-studio: .venv/.test
	$(PYTHON) -m venv build/label-studio
	build/label-studio/bin/pip install -q label-studio
	$(BIN)/python -m pytest tests/with_label_studio.py

.venv/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[torch,text,report,serve]'
	touch $@

.venv/.test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[torch,text,report,serve,dev]'
	touch .venv/.demo $@

clean:
	rm -rf .venv build dist runs/demo-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
