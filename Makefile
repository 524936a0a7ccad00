# Everything runs from a virtual environment that the first target makes. Needs Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt
# Torch spins on idle cores by default, and a busy neighbour then makes it tenfold slower.
export OMP_WAIT_POLICY = PASSIVE
export KMP_BLOCKTIME = 0

PROTOS = $(wildcard protos/coin_protocol/v1/*.proto)
# A comma inside $(if) would end it.
PEER = pymerkle>=7,<8
# Test files are shared out among so many processes.
JOBS ?= 2
SERVICES = $(wildcard protos/coin_protocol/v1/*_service.proto)

.PHONY: demo test test-deep bench fuzz mutate check proto proto-check proto-image vectors clean

demo: $(VENV)/.demo  ## Watch an honest reply pass an audit, and nine lies get caught
	$(BIN)/coin demo $(ARGS)

test: $(VENV)/.dev  ## All tests, with coverage of coin_protocol
	rm -f .coverage .coverage.*
	$(BIN)/coin table build
	$(BIN)/python -m coverage run -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

bench: $(VENV)/.dev  ## One JSON line a claim; PYMERKLE=1 installs the GPL peer for one of them
	$(if $(PYMERKLE),$(PIP) '$(PEER)')
	$(BIN)/python -m benchmarks $(ARGS)

test-deep: $(VENV)/.dev  ## 10,000 examples of each property, 2,000 steps of each machine
	$(BIN)/python -m pytest --numprocesses $(JOBS) --timeout 1800 --hypothesis-profile deep \
		tests/property tests/unit/kit/test_mutations_properties.py
	$(BIN)/python -m pytest --numprocesses $(JOBS) --timeout 1800 --hypothesis-profile long \
		-k runTest tests/machines

fuzz: $(VENV)/.dev  ## Fuzz every parser, a minute each; ARGS="stream --seconds 600" for one
	$(BIN)/python -m tests.fuzz $(ARGS)

mutate: $(VENV)/.dev  ## Mutants that no test notices; ARGS="run 'coin_protocol.merkle*'" for some
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -P tests/mutate.py $(ARGS)

check: $(VENV)/.dev proto-check  ## Formatting, lint, layers, types, drift of generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml \
		coin_protocol provider_sdk verifier_sdk
	$(BIN)/mypy
	$(BIN)/python -m coin_protocol.testing.generate --check

proto: $(VENV)/.dev  ## Generate coin_protocol/v1 from protos/
	rm -f coin_protocol/v1/*_pb2*
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
		--python_out=. --mypy_out=quiet:. $(PROTOS)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
		--grpc_python_out=. --mypy_grpc_out=quiet:. $(SERVICES)

proto-check: proto
	cd protos && $(abspath $(BIN))/buf lint
	cd protos && $(abspath $(BIN))/buf breaking --against image.binpb
	git diff --exit-code -- coin_protocol/v1
	test -z "$$(git ls-files --others --exclude-standard coin_protocol/v1)"

proto-image: $(VENV)/.dev  ## Accept the wire as it is, after a deliberate change
	cd protos && $(abspath $(BIN))/buf build -o image.binpb

vectors: $(VENV)/.dev  ## Write test vectors and the files that ship
	$(BIN)/python -m coin_protocol.testing.generate

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml .ci/constraints.txt
	@echo "installing (once; torch is large)"
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "installing what tests and checks need"
	$(PIP) --editable '.[demo,testing,dev]'
	@touch $@
