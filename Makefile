# Everything below can be typed by hand as well: a virtual environment, `pip install -e .`, and the tools in it.
# Three settings, given as in `make lab PORT=8899`. PYTHON: what .venv is made from, if not the first of python3,
# python3.13, ... that is new enough. PORT: where JupyterLab answers. ARGS: passed on, as in `make test ARGS="-k ddim -x"`.
PYTHON =
PORT = 8888
ARGS =

VENV_PYTHON = .venv/bin/python
LAB_READY = .venv/ready-lab
TEST_READY = .venv/ready-test

.PHONY: help lab install test check format

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

lab: install ## open the course in JupyterLab; the first time, install it
	@$(VENV_PYTHON) scripts/port.py "$(PORT)"
	@echo "Opening JupyterLab at http://localhost:$(PORT) (Ctrl-C here stops it) ..."
	JUPYTER_CONFIG_PATH="$(CURDIR)/jupyter" exec $(VENV_PYTHON) -m jupyterlab --port=$(PORT) \
	    --LabApp.default_url=/lab/tree/notebooks/00_welcome.ipynb $(ARGS)

install: $(LAB_READY) ## make .venv and install the course into it

test: $(TEST_READY) ## run every test
	$(VENV_PYTHON) -m pytest $(ARGS)

check: $(TEST_READY) ## lint, types and the fast tests: what a contributor runs all day
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV_PYTHON) -m pytest -m "not slow and not browser" $(ARGS)

format: $(TEST_READY) ## bring the code into its one form
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

# A stamp says that what pyproject.toml asks for is installed, and for which folder: a folder that was moved or copied
# takes its .venv along, but the scripts in it still name the old place.
ifneq ($(shell cat $(LAB_READY) 2>/dev/null),$(CURDIR))
.PHONY: $(LAB_READY)
endif

# One pip command for all, so that torch and torchvision are chosen as a pair.
$(LAB_READY): pyproject.toml
	@sh scripts/venv.sh $(PYTHON)
	@echo "Installing the course into .venv (once, about 2 minutes and what the download takes) ..."
	$(VENV_PYTHON) -m pip install -e .
	@echo "$(CURDIR)" > $@

$(TEST_READY): $(LAB_READY)
	@echo "Adding what the tests need (once, some seconds) ..."
	$(VENV_PYTHON) -m pip install -e ".[test]"
	@touch $@
