UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -rs --no-fold-skipped

.DEFAULT_GOAL := help
.PHONY: help setup book preview publish test weights results bench gpu serve address clean

help: ## show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(UV) ## make .venv as uv.lock says, with a uv of its own where there is none
	@$(UV) sync --locked --compile-bytecode

.uv/bin/uv:
	@sh tools/install_uv.sh

book: setup ## execute the chapters that changed and build the book
	@$(PYTHON) -m tools.book

preview: setup ## show the text as it stands, with the figures of the last run, executing nothing
	@$(PYTHON) -m tools.book --preview

publish: setup ## the book, or a refusal where something stood in for the real thing
	@$(PYTHON) -m tools.book --publish

test: setup ## everything: style, notebooks, library, book, pages
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m nbstripout --verify --keep-id book/*.ipynb
	$(PYTEST) -m "not book" tests mmgan_lib tools
	$(PYTHON) -m tools.book
	$(PYTEST) -m book tests

weights: setup ## train again the weights that the library ships
	@$(PYTHON) -m tools.weights

results: setup ## train again what the book's tables over seeds record
	@$(PYTHON) -m tools.results
	@$(PYTHON) -m tools.coverage

bench: setup ## training and metrics beside the plain tutorial loop and reference libraries
	@$(PYTHON) -m tools.bench

gpu: setup ## try all on a GPU, or on a stand-in that refuses what a GPU would (PART=03: that chapter)
	@$(PYTHON) -m tools.gpu --limit inf $(PART)

serve: book ## build the book and serve it on this machine
	@$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html 8000

address: setup ## write pyproject's repository address everywhere (URL=https://github.com/me/fork sets it first)
	@$(PYTHON) tools/address.py $(URL)

clean: ## forget everything that was built, the executed chapters too
	rm -rf _build
