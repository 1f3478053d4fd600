# `make demo` and `make test` each do everything that they need, on a fresh Debian 12 machine with Rust.

CARGO := scripts/cargo.sh

.PHONY: help setup build deb demo test test-container test-deb test-stores test-versions test-all fuzz sim sim-mutants bench fmt lint

help:
	@echo 'make demo      a three-node cluster that survives losing its primary'
	@echo 'make test      formatting, lints, and all tests on real PostgreSQL and real stores'
	@echo 'make build     the executable, target/debug/primacy'
	@echo 'make deb       a Debian package, below target/deb'
	@echo 'make setup     what the others need and is missing (they call it themselves)'
	@echo 'make test-versions  the tests with PostgreSQL, on versions 17 and 18'
	@echo 'make test-deb  install that package in a Debian of its own, and run a cluster from it (as root)'
	@echo 'make test-container  build the container image, and run a cluster from it (as root)'
	@echo 'make test-stores  the end-to-end tests on the store that make test did not use'
	@echo 'make test-all  make test and the four above, then examples in the documentation and the long tests'
	@echo 'make sim       simulate clusters by the hour: make sim ARGS="--hours 1000"'
	@echo 'make sim-mutants    break rules on purpose, one at a time, and have the simulator find each'
	@echo 'make fuzz      spoiled inputs for every parser of what comes from outside'
	@echo 'make bench     measure Primacy and Patroni side by side, as ratios'
	@echo 'make fmt       format the code'
	@echo 'make lint      formatting and lints only'

setup:
	@scripts/setup.sh

build: setup
	$(CARGO) build --locked

deb: setup
	@scripts/deb.sh

# A debug build: it is the one that tests and development have made already.
demo: build
	@exec $(CARGO) run --locked --quiet -- demo $(ARGS)

test:
	@scripts/setup.sh --with-tests
	$(MAKE) lint
	$(CARGO) nextest run --workspace --locked

# On what this system's PostgreSQL is too old for as well. The servers come from later Debians, see scripts/pg-root.sh. This
# system's pgBackRest is too old for them.
test-versions:
	@scripts/setup.sh --with-tests
	@set -e; for major in 17 18; do \
	    bin=$$(scripts/pg-root.sh $$major); \
	    echo "--- PostgreSQL $$major"; \
	    PRIMACY_TEST_PG_BIN=$$bin $(CARGO) nextest run --locked -p primacy -p primacy-postgres --run-ignored all \
	        -E 'not test(/^clients::pgbackrest::/)'; \
	done

# `make test` runs every guarantee on at least one store, this the rest on the other. Patroni knows only one of them, what
# needs PostgreSQL 17 is `make test-versions`' own, and without two of three members the embedded store has no majority.
test-stores:
	@scripts/setup.sh --with-tests
	PRIMACY_TEST_STORES=swapped $(CARGO) nextest run --locked --test e2e --run-ignored all -E \
	    'not test(/(::embedded|::etcd3)$$/) and not test(/^(auxiliary|bad_input|clients|commands\w*|config_commands|mixed\w*|packaging|reload|rest|systemd|witness)::|failover_slots|with_patroni|killed_standby_is_ahead|^former_primary/)'

# Built as whoever calls it, tested as root.
test-deb:
	@scripts/setup.sh --with-tests
	@package=$$(scripts/deb.sh); as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; $$as_root scripts/test-deb.sh "$$package"

test-container:
	@scripts/setup.sh --with-containers
	$(CARGO) fetch --locked
	@as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; PATH="$$PATH:$$HOME/.cargo/bin"; \
	    $$as_root scripts/test-container.sh "$$(rustc --print sysroot)" "$${CARGO_HOME:-$$HOME/.cargo}/registry"

test-all: test test-stores test-versions test-deb test-container
	$(CARGO) test --workspace --locked --doc
	$(CARGO) nextest run --workspace --exclude primacy --locked --run-ignored only --no-tests pass

# Seeds that were never used, unless `--seed` says otherwise; `primacy-sim minimise SEED` makes a failing one smaller.
sim:
	@scripts/setup.sh
	@exec $(CARGO) run --release --locked --quiet -p primacy-sim -- run $(ARGS)

# docs/mutants.md has what comes of it. MUTANTS="NAME ..." for some of them.
sim-mutants:
	@scripts/sim-mutants.sh $(MUTANTS)

# Feeds every parser of what comes from outside with spoiled inputs, EXECUTIONS for each target (docs/fuzzing.md).
EXECUTIONS ?= 1000000
fuzz:
	@scripts/setup.sh --with-tests
	PRIMACY_FUZZ_EXECUTIONS=$(EXECUTIONS) $(CARGO) nextest run --profile fuzz --cargo-profile fuzz --workspace --locked --lib --test fuzz \
	    --run-ignored only --no-fail-fast -E 'test(/(^|::)fuzz::/) | binary(fuzz) | test(protocol::tests::packets)'

# Optimized builds of both: the measuring client must not be what is measured.
bench:
	@scripts/setup.sh --with-tests
	$(CARGO) build --release --locked --workspace --bins
	@exec $(CARGO) run --release --locked --quiet -p primacy-bench -- $(ARGS)

fmt:
	$(CARGO) fmt --all

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
