# `make demo` and `make test` each do everything that they need, on a fresh Debian 12 machine with Rust.

CARGO := scripts/cargo.sh

.PHONY: help setup build demo test test-all fmt lint

help:
	@echo 'make demo      a three-node cluster that survives losing its primary'
	@echo 'make test      formatting, lints, and all tests on real PostgreSQL and real stores'
	@echo 'make build     the executable, target/debug/primacy'
	@echo 'make setup     what the others need and is missing (they call it themselves)'
	@echo 'make test-all  make test, then examples in the documentation and the long tests'
	@echo 'make fmt       format the code'
	@echo 'make lint      formatting and lints only'

setup:
	@scripts/setup.sh

build: setup
	$(CARGO) build --locked

# A debug build: it is the one that tests and development have made already.
demo: build
	@exec $(CARGO) run --locked --quiet -- demo $(ARGS)

test:
	@scripts/setup.sh --with-tests
	$(MAKE) lint
	$(CARGO) nextest run --workspace --locked

test-all: test
	$(CARGO) test --workspace --locked --doc
	$(CARGO) nextest run --workspace --locked --run-ignored only --no-tests pass

fmt:
	$(CARGO) fmt --all

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
