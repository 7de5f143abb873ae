# The one definition of every routine task; CI and CONTRIBUTING.md call these targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out
RUST   := Cargo.toml Cargo.lock $(shell find src -name '*.rs' -o -name '*.cu')

.PHONY: demo test lint bench doc clean

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "maturin>=1.14,<2"
	touch $@

# What a user installs for the demo: no torch.
$(VENV)/.demo: $(VENV)/.made pyproject.toml $(RUST)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --extras demo,plot
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml $(RUST)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --extras dev,download,demo,plot
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/pspc-rs demo --outdir $(OUT)/demo

test: $(VENV)/.dev
	cargo test --quiet
	cargo test --quiet --features cuda cuda
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --features python -- -D warnings
	cargo clippy --quiet --features python,cuda -- -D warnings
	cargo clippy --quiet --features cuda --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest pspc_rs._core

bench: $(VENV)/.dev
	cargo bench
	$(BIN)/python benchmarks/compare.py --out $(OUT)/bench

doc:
	cargo doc --no-deps --open

clean:
	rm -rf target $(OUT) $(VENV)
