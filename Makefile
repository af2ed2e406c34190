# Every target installs what it lacks (apt on Debian and its kin, as root or through sudo) and needs nothing typed before.
# make run ARGS="--name n1"     make test     make bench BENCH_ONLY=put64,get BENCH_RUNS=3

SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export ORACLE_DIR ?= $(TARGET)/oracle
CARGO_FLAGS ?= --locked
.DEFAULT_GOAL := build
.PHONY: run build test lint doc unit man deny advisories oracle clients interop differential crash sim cluster hostile bench bench-auth bench-grpc-proxy bench-kubernetes bench-snapshot fuzz-short \
	package-programs package-tool-deb package-tool-rpm deb rpm package-test systemd-test fresh-test
.NOTPARALLEL:

deps-%:
	@tests/support/deps.sh $*

build: deps-build
	cargo build --release $(CARGO_FLAGS)

run: deps-build
	cargo run --release $(CARGO_FLAGS) --bin quorate -- $(ARGS)

# Everything CI runs, cheapest first.
test: deps-test lint doc oracle clients unit

lint: deps-build
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

doc: deps-build
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps

unit: deps-test
	tests/support/run.sh $(CARGO_FLAGS)

# The manual pages under man/, written anew from the tables.
man: deps-test
	WRITE_MANUALS=1 cargo test $(CARGO_FLAGS) --test manuals

# The real etcd, built from its released modules into target/, to compare answers with.
oracle: deps-test
	@tests/support/oracle.sh $(ORACLE_DIR)

# Programs that use other people's client libraries, built into target/.
clients: oracle
	@tests/clients/build.sh $(TARGET)/clients

# The long forms of what `make test` runs short.
interop: oracle clients
	ETCD_MINORS=1 MIXED_WITH_3_5=1 MIXED_OPS=5000 MIXED_ROUNDS=$(or $(ROUNDS),5) \
	cargo test $(CARGO_FLAGS) --test 'compat_*' -- --nocapture
	CLUSTER_MIXED=1 ROUNDS=$(or $(ROUNDS),6) \
	cargo test $(CARGO_FLAGS) $(addprefix --test cluster_,kill pause partition disk) -- --nocapture --test-threads=1

differential: oracle
	DIFF_OPS=$(or $(DIFF_OPS),1000000) cargo test --release $(CARGO_FLAGS) --test differential -- --nocapture

crash: deps-test
	CRASH_ROUNDS=$(or $(CRASH_ROUNDS),200) cargo test --release $(CARGO_FLAGS) --test crash_kill -- --nocapture
	POWER_ROUNDS=$(or $(POWER_ROUNDS),20000) cargo test --release $(CARGO_FLAGS) --test crash_power -- --nocapture

# Whole clusters in one thread: SEEDS worlds from SIM_FIRST on, the kinds of trouble met and what went wrong.
sim: deps-test
	SIM_SEEDS=$(or $(SEEDS),10000) cargo test --release $(CARGO_FLAGS) --test sim chaos -- --nocapture

CLUSTER_SIZES ?= 3,5,7
# Every fault against clusters on hosts of their own, and the same against etcd: when writes go on, side by side.
cluster: oracle
	ROUNDS=$(or $(ROUNDS),100) CLUSTER_SIZES=$(CLUSTER_SIZES) CLUSTER_COMPARE=1 CLUSTER_GROW_TO=7 \
	PAUSE_SECONDS=10 STALL_SECONDS=30 LEARNER_BASELINE_SECONDS=30 LEARNER_MEGABYTES=$(or $(LEARNER_MEGABYTES),2048) \
	cargo test --release $(CARGO_FLAGS) --no-fail-fast --test 'cluster_*' -- --nocapture --test-threads=1

# Ten thousand clients that mean harm and a million malformed frames.
hostile: deps-test
	HOSTILE_CONNECTIONS=$(or $(CONNECTIONS),10000) HOSTILE_FRAMES=1000000 HOSTILE_SECONDS=10 \
	cargo test --release $(CARGO_FLAGS) --test hostile -- --nocapture --test-threads=1

bench: oracle
	cargo bench $(CARGO_FLAGS) --bench compare

# Ten thousand client watches through our gRPC proxy and through etcd's: watches on the member, memory, events.
bench-grpc-proxy: oracle
	cargo bench $(CARGO_FLAGS) --bench grpc_proxy

# Logging in, and saying with every request who one is, with each kind of token, beside etcd.
bench-auth: oracle
	cargo bench $(CARGO_FLAGS) --bench auth

# What a snapshot of GIGABYTES costs the clients and the memory of a member, beside etcd.
bench-snapshot: oracle
	BENCH_GIGABYTES=$(or $(GIGABYTES),4) BENCH_RUNS=$(or $(RUNS),1) cargo bench $(CARGO_FLAGS) --bench snapshot

# Three members over TLS under what a Kubernetes cluster does, for MINUTES each, RUNS times by turns with etcd.
bench-kubernetes: oracle
	BENCH_MINUTES=$(or $(MINUTES),10) BENCH_RUNS=$(or $(RUNS),1) cargo bench $(CARGO_FLAGS) --bench kubernetes

fuzz-short: deps-fuzz
	fuzz/run.sh $(TARGET)/fuzz $(or $(FUZZ_SECONDS),60)

# Packages of the built programs, in target/package. PACKAGE_BIN names a directory of programs built otherwise.
PACKAGE_BIN ?=
PACKAGES := $(abspath target/package)
package-programs: deps-package $(if $(PACKAGE_BIN),,build)

package-tool-deb:
	@cargo deb --version >/dev/null 2>&1 || cargo install cargo-deb --locked

package-tool-rpm:
	@cargo generate-rpm --version >/dev/null 2>&1 || cargo install cargo-generate-rpm --locked

deb rpm: %: package-programs package-tool-%
	packaging/build.sh $@ $(or $(PACKAGE_BIN),$(TARGET)/release) $(PACKAGES)

# The packages under a real systemd and in an rpm root, from Debian's etcd and back, then the deployment guide's cluster on
# three machines.
package-test: deps-package-test oracle package-programs package-tool-deb package-tool-rpm
	tests/support/package.sh $(TARGET) $(or $(PACKAGE_BIN),$(TARGET)/release)
	tests/support/guide.sh $(TARGET) $(or $(PACKAGE_BIN),$(TARGET)/release)

systemd-test: deps-systemd build
	tests/support/systemd.sh $(TARGET)

# `make run` and `make test` of the last commit in a fresh Debian 12 of its own, where port 2379 must be free.
fresh-test: deps-systemd
	tests/support/fresh.sh $(TARGET)/fresh $(FRESH)

# Licences, bans and sources need no network; the advisory database does.
deny:
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked
	cargo deny --offline check --hide-inclusion-graph bans licenses sources

advisories:
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked
	cargo deny check advisories
