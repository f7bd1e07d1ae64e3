# Two commands for a new user: `make demo` and `make test`. The rest is for developers.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BOTH ?= --both
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test test-all lint docs sanitize clean

demo: $(STAMP)
	$(BIN)/ugmm-ppl fit models/iris_classifier.py --backend numpyro --out runs/iris

test: $(STAMP) # two processes, so one thread each: OpenMP's threads spin, and more of them than cores stand in each other's way
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not long' $(PYTEST_ARGS)

test-all: $(STAMP) # the long tests too, and what lies above the backends on both of them, unless BOTH is empty
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(BOTH) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet

sanitize: # the native kernel, under the address and undefined-behaviour sanitizers
	cmake -S ugmm_ppl/kernels -B build/sanitize -DUGMM_SANITIZE=ON
	cmake --build build/sanitize --parallel
	build/sanitize/kernel_sanitize

clean:
	rm -rf $(VENV) build runs site *.egg-info

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@
