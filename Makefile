# Two commands do everything on a fresh machine: `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help demo test newest oldest gpu notebooks study summary mutate coverage lint format audit docs wheel pictures check lock licences clean

PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := build/uv/bin/uv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The environment is rebuilt whenever what defines it is newer, or its interpreter is gone, or it was made in another
# folder; the mark, which holds that folder, is written last, so that a broken set-up is never taken for a finished one.
ifneq ($(wildcard $(BIN)/python)$(shell cat $(READY) 2>/dev/null),$(BIN)/python$(CURDIR))
.PHONY: $(READY)
endif
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON) on the PATH. Try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "etfopt needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[all,docs,dev,integrations]'
	@printf '%s' '$(CURDIR)' > $@

demo: $(READY) ## train three heads on digits, certify the nearest ETF, draw the figures (runs/demo/)
	$(BIN)/etfopt demo

test: $(READY) ## run the test suite, in two processes (WORKERS=0: in one)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# What a user gets, and the least that a user may have: resolved from pyproject.toml alone, without constraints.txt.
# The tools that test it are the newest in both. PyTorch from the default index brings some gigabytes of CUDA.
$(UV):
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet uv

define suite_resolved_to
	rm -rf build/$@ && $(UV) venv --quiet --python $(PYTHON) build/$@
	$(UV) pip compile --quiet --python build/$@ --resolution $(1) --extra all pyproject.toml --output-file build/$@.txt
	$(UV) pip install --quiet --python build/$@ --constraint build/$@.txt --editable '.[all,docs,dev,integrations]'
	build/$@/bin/etfopt doctor
	build/$@/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal
endef

newest: $(UV) ## the suite with the newest versions that pyproject.toml allows (build/newest.txt names them)
	$(call suite_resolved_to,highest)

oldest: $(UV) ## the suite with the lowest versions that pyproject.toml allows (build/oldest.txt names them)
	$(call suite_resolved_to,lowest-direct)

gpu: $(READY) ## what needs a GPU, in less than eight minutes: tests, peers, a study (notebooks/results/gpu/)
	PYTHON=$(BIN)/python sh notebooks/gpu.sh

notebooks: $(READY) ## execute the notebooks anew and write them with their outputs
	$(BIN)/python -m tests.tools.notebook_runs

study: $(READY) ## train notebooks/studies/NAME.toml and publish its report: make study NAME=heads
	$(BIN)/etfopt train notebooks/studies/$(NAME).toml
	$(BIN)/etfopt report runs/$(NAME) --out notebooks/results/$(NAME)
	$(BIN)/python docs/summary.py

summary: $(READY) ## write the summary of all published studies anew: notebooks/results/summary/
	$(BIN)/python docs/summary.py

mutate: $(READY) ## break the code on purpose, some hundred times, and see that the tests notice
	$(BIN)/python -m tests.tools.mutation --jobs 2 --json build/mutation.json

# PyTorch's compiler does not bear a tracer beside it, so what it compiles is left out
coverage: $(READY) ## lines and branches that the tests reach; at least 98 % of all but bench, experiments and cli
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --ignore tests/nn/test_modes.py --ignore tests/package/test_mutation.py
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --show-missing --skip-covered --fail-under 98 \
	  --include 'etfopt/*.py,etfopt/solvers/*,etfopt/nn/*,etfopt/metrics/*'

lint: $(READY) ## ruff, mypy --strict, the layering rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python .ci/licences.py --check

format: $(READY) ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: $(READY) ## look the pinned versions up among known vulnerabilities
	$(BIN)/python .ci/audit.py

docs: $(READY) ## build the documentation (build/docs/index.html); a warning is an error
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs build/docs

wheel: $(READY) ## build the wheel and try it with each extra alone, outside the checkout (EXTRA=torch: one)
	$(BIN)/python .ci/wheel.py $(if $(EXTRA),--extra $(EXTRA))

pictures: $(READY) ## run the demonstration and draw README's pictures from it (docs/images/)
	mkdir -p build && $(BIN)/etfopt demo --out build/demo --overwrite --quiet > build/demo.txt
	$(BIN)/python docs/pictures.py build/demo.txt build/demo/report/curves-1.png
	$(BIN)/python docs/idea_picture.py
	$(BIN)/python docs/gallery.py

check: lint audit docs test ## all that CI runs

lock: ## pin everything anew, in a fresh environment, within pyproject.toml's ranges
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet -c .ci/lock-seed.txt '.[all,docs,dev,integrations]'
	{ sed -n '/^#/p' .ci/lock-seed.txt; build/lock/bin/python -m pip freeze --exclude etfopt | sed 's/+cpu$$//'; \
	  sed -n '/!=/p' .ci/lock-seed.txt; } > constraints.txt

licences: $(READY) ## write DEPENDENCIES.md from the installed packages' metadata
	$(BIN)/python .ci/licences.py

clean: ## remove the environment, caches and build output (runs/ stays)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
