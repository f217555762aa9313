# Fogline: everything a developer or a first-time visitor runs. Needs make and a Debian, Ubuntu or
# Raspberry Pi OS; the rest is set up here, inside .venv. PYTHON=... chooses the Python.

VENV := .venv
BIN := $(VENV)/bin
# Flower wants older versions of several packages than the rest runs with.
FEDERATED := .venv-federated
NATIVE := fog_node/pow/native fog_node/protocol/native

# What an installation is made from. Everything else is used where it lies.
SOURCES := pyproject.toml requirements.txt setup.py $(wildcard $(NATIVE:=/*.c) $(NATIVE:=/*.h))
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements.txt

# For the programs that tests and demonstration start: a micropython of the system's own or else
# that of .venv, and Debian's daemons.
export PATH := $(PATH):$(CURDIR)/$(BIN):/usr/sbin
# Hundreds of them are started: reading their sources in anew each time takes long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
	| while IFS='|' read -r name text; do printf '  make %-7s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: $(VENV)/installed-all ## set up .venv for development, with everything in it

.PHONY: check
check: $(VENV)/installed-all $(VENV)/installed-stubs ## look over the code: style, types, warnings of the C compiler, README files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.board_types
	@include=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') && \
	for source in $(NATIVE:=/*.c); do \
		echo "$(CC) $$source" && \
		$(CC) -std=c11 -pedantic -Wall -Wextra -Werror -O3 -isystem "$$include" -c "$$source" -o /dev/null || exit 1; \
	done
	$(BIN)/python -m tools.checks

.PHONY: fix
fix: $(VENV)/installed-all ## mend what `make check` finds and a program can mend
	$(BIN)/python -m tools.board_tables
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: test
test: $(VENV)/installed-all $(VENV)/installed-programs $(FEDERATED)/installed ## run the tests on all cores; ARGS="..." goes to pytest instead
	$(BIN)/python -m pytest $(or $(ARGS),-n auto)

.PHONY: qemu
qemu: $(VENV)/installed-all ## build MicroPython for QEMU's two boards, once; prints the versions
	@tools/system.sh qemu
	@$(BIN)/python -m tools.hil.build

.PHONY: pico
pico: $(VENV)/installed-all ## build MicroPython for an emulated Pico, once; fogline hil run --target pico-emu runs it
	@tools/system.sh pico
	@$(BIN)/python -m tools.hil.build_pico

.PHONY: fuzz
fuzz: $(VENV)/installed-fuzz ## fuzz the parsers, 20 s each; ARGS="--seconds 60 --only proof" changes that
	$(BIN)/python tests/fuzz/campaign.py $(ARGS)

.PHONY: demo
demo: $(VENV)/installed-demo ## run the whole loop once on this machine; ARGS="..." goes to fogline demo
	@$(BIN)/fogline demo $(ARGS)

# One after the other: each wants the machine for itself.
BENCHES := pow board admission network clients "network --table3" growth

.PHONY: bench
bench: $(VENV)/installed-demo ## measure everything, about an hour; ARGS="pow --seconds 5" one of them
ifdef ARGS
	@$(BIN)/fogline bench $(ARGS)
else
	@$(MAKE) --no-print-directory qemu
	@for bench in $(BENCHES); do \
		echo "== fogline bench $$bench" && $(BIN)/fogline bench $$bench || exit 1; \
	done
endif

.PHONY: clean
clean: ## remove .venv and everything that was built
	rm -rf $(VENV) $(FEDERATED) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f fog_node/pow/*.so fog_node/protocol/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@tools/system.sh venv $(VENV)

# setuptools in the environment instead of a fresh one per build: a rebuild needs no network.
$(VENV)/installed-demo: $(SOURCES) | $(BIN)/python
	$(INSTALL) setuptools
	$(INSTALL) -e '.[demo,cloud]'
	@touch $@

$(VENV)/installed-all: $(SOURCES) | $(BIN)/python
	$(INSTALL) setuptools
	$(INSTALL) -e '.[demo,boards,cloud,ray,test,dev]'
	@touch $@ $(VENV)/installed-demo

$(FEDERATED)/installed: pyproject.toml requirements-federated.txt setup.py
	@tools/system.sh venv $(FEDERATED)
	$(FEDERATED)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		-c requirements-federated.txt setuptools
	$(FEDERATED)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		-c requirements-federated.txt -e '.[federated]'
	@touch $@

# MicroPython's stubs stand in for the standard library, so they lie where only that check looks.
$(VENV)/installed-stubs: requirements.txt tools/board_types.py | $(VENV)/installed-all
	$(BIN)/python -m tools.board_types install
	@touch $@

$(VENV)/installed-fuzz: $(VENV)/installed-all
	$(INSTALL) -e '.[fuzz]'
	@touch $@

$(VENV)/installed-programs: tools/system.sh | $(BIN)/python
	@tools/system.sh test
	@touch $@
