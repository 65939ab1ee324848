# make caption FILE=clip.wav   set up on a bare machine (in seconds where uv is installed), then print what is heard
# make test                    set up, then run the tests, on all cores (WORKERS=2 on two of them)
# make setup | check | docs | browser | pocket
PYTHON ?= python3
VENV ?= .venv
FILE ?= examples/storm.flac
DATA ?= ../shared/data
WORKERS ?= logical
UV ?= uv

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install -c constraints-cpu.txt
EXTRAS := train,hub,qlora,pocket,eval,plots,serve,demo,live,mqtt,speech,ray,endpoint,docs,dev
QUIET := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false GRADIO_ANALYTICS_ENABLED=False

.PHONY: caption test setup check docs pocket browser clean

caption: $(VENV)/.runtime
	@$(QUIET) $(BIN)/earwitness caption "$(FILE)"

setup: $(VENV)/.everything

test: $(VENV)/.everything
	$(QUIET) OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= EARWITNESS_DATA="$(DATA)" $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/.everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	@$(MAKE) --no-print-directory docs

# The documentation as a site, in build/site; a broken link or a page that is missing fails.
docs: $(VENV)/.everything
	@$(QUIET) NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict --quiet

# The shipped weights, rebuilt from the data folder; every stage goes on where it was stopped.
pocket: $(VENV)/.everything
	$(QUIET) $(BIN)/python benchmarks/pocket.py --data "$(DATA)"

# The page that captions in the browser, in build/page; npm fetches onnxruntime-web.
browser: $(VENV)/.runtime
	$(BIN)/earwitness page build/page

$(VENV)/bin/python:
	@$(UV) venv -q --seed --clear --python $(PYTHON) $(VENV) 2>/dev/null || $(PYTHON) -m venv $(VENV) || { echo "cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

# What captions: numpy, onnxruntime, tokenizers and the readers of sound files; no torch.
$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints-cpu.txt
	@echo "installing earwitness (some seconds the first time)" >&2
	@$(UV) pip install -q --python $(BIN)/python -c constraints-cpu.txt -e . 2>/dev/null || $(PIP) --no-compile -e . >&2
	@touch $@

# torch comes from the constraints file, so that nothing pulls CUDA packages onto a CPU machine.
$(VENV)/.everything: $(VENV)/bin/python pyproject.toml constraints-cpu.txt
	@echo "installing earwitness and everything for tests and training (a few minutes the first time)" >&2
	@$(PIP) -e '.[$(EXTRAS)]' >&2
	@touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
