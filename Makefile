# The one definition of every routine task; CI and CONTRIBUTING.md call these targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out
# Whatever the compiled module is built from. Python files and page templates are used in place and need no rebuild.
BUILT  := Cargo.toml Cargo.lock pyproject.toml $(shell find src -type f)

.PHONY: demo test test-long fuzz lint docs bench table claims doc clean

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "maturin>=1.14,<2"
	touch $@

# What a user installs for the demo: no torch.
$(VENV)/.demo: $(VENV)/.made $(BUILT)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --extras demo,plot
	touch $@

$(VENV)/.dev: $(VENV)/.made $(BUILT)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --extras dev,test,browser,download,demo,plot
	touch $@ $(VENV)/.demo

# The tools of the documentation site.
$(VENV)/.docs: $(VENV)/.dev
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --extras dev,test,browser,download,demo,plot,docs
	touch $@

demo: $(VENV)/.demo
	$(BIN)/pspc-rs demo --outdir $(OUT)/demo

# One build of the core's tests has all of them; test-long also runs them without the GPU engine.
test: $(VENV)/.dev
	cargo test --quiet --features cuda
	$(BIN)/python -m pytest

# The same tests with many more random examples, for nights and before a release.
test-long: $(VENV)/.dev
	PROPTEST_CASES=5000 PROPTEST_MAX_GLOBAL_REJECTS=1000000 cargo test --quiet
	PROPTEST_CASES=5000 PROPTEST_MAX_GLOBAL_REJECTS=1000000 cargo test --quiet --features cuda cuda
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest

# 100,000 damaged files and odd calls, then mutations guided by coverage where the extra fuzz is installed.
fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzzing/run.py --count 100000
	$(BIN)/python tests/fuzzing/coverage.py --seconds 20

lint: $(VENV)/.dev
	cargo fmt --check
	cargo clippy --quiet --features stages --all-targets -- -D warnings
	cargo clippy --quiet --features python -- -D warnings
	cargo clippy --quiet --features python,cuda -- -D warnings
	cargo clippy --quiet --features cuda --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest pspc_rs._core

# The documentation site in out/site; a broken link or an unknown name is an error. REPOSITORY=URL links to source files.
docs: $(VENV)/.docs
	$(BIN)/python website/build_site.py --repository "$(REPOSITORY)"

bench: $(VENV)/.dev
	cargo bench --features stages
	$(BIN)/python benchmarks/compare.py --out $(OUT)/bench

# Training-free denoisers beside published numbers: make table DATA=... TEST=... PUBLISHED=...; hours, and it resumes.
table: $(VENV)/.dev
	$(BIN)/python benchmarks/public_table.py --data $(DATA) --test $(TEST) --published $(PUBLISHED) --seeds 0,1 \
		--out $(OUT)/table

# The PSPC paper's figures on CIFAR-10 with the network in assets/: make claims DATA=... TEST=... N=256 Z=8; a day, and it
# resumes.
N ?= 256
Z ?= 8
claims: $(VENV)/.dev
	PSPC=$(BIN)/pspc-rs benchmarks/claims.sh $(DATA) $(TEST) $(OUT)/claims $(N) $(Z)

doc:
	cargo doc --no-deps --open

clean:
	rm -rf target $(OUT) $(VENV)
