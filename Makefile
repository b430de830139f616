# Everything runs from here. Needs Python 3.11 or newer, git and make; `make run` and `make test` do the rest.

# the first Python here that is new enough; another one: make run PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PY := .venv/bin/python
OUT ?= out/mine
# file names go to the shell as they are, through the environment: nothing in them is a command
override export TEXT := $(value TEXT)
override export OUT := $(value OUT)
.DEFAULT_GOAL := help
.PHONY: help env run page test lab lint book notebooks readme

help: ## what there is to type
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1	/' | expand -t 20

env: ## make the environment that all of these use; they do it themselves when they must
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	echo "Python 3.11 or newer was not found: install it from python.org or by your system's packages, then try again." >&2; \
	exit 1; fi
	@"$(PYTHON)" -m lab.bootstrap
	@$(if $(filter env,$(MAKECMDGOALS)),echo "The environment is ready: source .venv/bin/activate")

run: env ## run all notebooks, print the ladder, make a book of this run (QUICK=1: about a minute each)
	@$(PY) -m lab.walkthrough

page: env ## train on your own text for five minutes, then open its page here: make page TEXT="my novel.txt"
	@test -n "$$TEXT" || { echo 'Name your text: make page TEXT="my novel.txt" (a second text: OUT=out/second).' >&2; exit 1; }
	@$(PY) train_gpt2.py --text "$$TEXT" --preset cpu --out-dir "$$OUT" --resume auto || { status=$$?; \
	echo 'A second text, or one that has changed, needs a folder of its own: make page TEXT="..." OUT=out/second' >&2; \
	exit $$status; }
	@$(PY) -m space.static_site "$$OUT/best" --serve 0

test: env ## run the tests, on two cores, without network
	@$(PY) -m pytest -n 2 --dist worksteal

lab: env ## open JupyterLab on the first notebook
	@$(PY) -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) gpt_dev.ipynb

lint: env ## check the style of the code
	@$(PY) -m ruff check .

book: env ## make the book of the committed notebooks: build/book/index.html
	@$(PY) -m lab.book

notebooks: env ## run the notebooks in place, to commit their outputs: make notebooks [ONLY=gpt_dev.ipynb]
	@$(PY) -m lab.walkthrough --in-place $(ONLY)

readme: env ## rewrite what is generated in README.md and the badges, from pyproject.toml and results/
	@$(PY) -m lab.readme
