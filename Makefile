PYTHON ?= python3.11
BIN := .venv/bin
DEMO := outputs/demo
# Libraries that Blender's module links to and a minimal Debian lacks.
LIBRARIES := libgl1 libice6 libsm6 libx11-6 libxext6 libxfixes3 libxi6 libxkbcommon0 libxrender1

.PHONY: help install demo test coverage test-slow format clean-demo

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed ## .venv for rendering, training, inference and tests (3 GB, a few minutes)

.venv/installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: Blender's module needs Python 3.11: apt install python3.11 python3.11-venv, or name yours: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is not Python 3.11, the one that Blender's module is built for" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "error: this Python makes no virtual environments: apt install python3.11-venv" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --no-input --disable-pip-version-check --editable '.[render,train,views,dev]'
	@$(BIN)/python -c 'import bpy' 2>/dev/null || $(MAKE) --no-print-directory libraries
	@touch $@

.PHONY: libraries
libraries:
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "error: Blender cannot start; install what it links to: sudo apt install $(LIBRARIES)" >&2; exit 2; }
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $(LIBRARIES)
	@$(BIN)/python -c 'import bpy' || { echo "error: Blender's module cannot be imported, see above" >&2; exit 2; }

demo: install ## render, train, sample: a report in five to eight minutes on two cores
	$(BIN)/python -m pipeline.render +experiment=demo
	$(BIN)/python -m pipeline.render +experiment=demo objects.count=4 'objects.kinds=[chair,duck,boat,truck]' output=outputs/demo/others
	$(BIN)/python -m training.finetune +experiment=demo
	$(BIN)/python -m inference.report +experiment=demo

# The web page is tested in a real browser; where this installs none, and there is none, those tests are skipped.
.PHONY: browser
browser:
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } || echo "no chromium: the tests of the web page will be skipped" >&2

test: install browser ## lint, types, import boundaries, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

coverage: install browser ## share of the lines that the tests of `make test` run, commands and loader workers included
	mkdir -p .coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --sort=cover

test-slow: install ## tests that take minutes or gigabytes
	$(BIN)/pytest -m slow

format: install ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean-demo: ## delete the demo's outputs
	rm -rf $(DEMO)
