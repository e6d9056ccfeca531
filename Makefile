# make hello    build everything, run one container, leave nothing behind
# make test     all tests, and a look for leaks
# make help     the rest

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
DIST    := dist
TARGET  := $(or $(CARGO_TARGET_DIR),target)
HOST    := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

PROGRAMS := corten cortend corten-shim corten-oci
# Programs that stand alone: no shared library, no relocation at start.
STATIC_FLAGS := -C target-feature=+crt-static -C relocation-model=static
STATIC_BUILD := RUSTFLAGS='$(STATIC_FLAGS)' CARGO_TARGET_DIR='$(TARGET)/static' $(CARGO) build --locked --profile shim --target $(HOST)
STATIC_OUT   := $(TARGET)/static/$(HOST)/shim

# Tests start containers, so they run as root; what they build does not.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
RUNNER   = $(if $(AS_ROOT),CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_RUNNER="$(AS_ROOT) env PATH=$$PATH")

.PHONY: help build hello test lint bench fuzz install clean toolchain

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo 'make build    programs into $(DIST)/'
	@echo 'make lint     formatting and clippy'
	@echo 'make bench    measure, against the kernel and other engines, into docs/benchmarks.md'
	@echo 'make fuzz     each fuzz target for FUZZ_SECONDS (60), guided by coverage; FUZZ names some'
	@echo 'make install  to $$(DESTDIR)$$(PREFIX), with unit file and completions'
	@echo 'make clean'

toolchain:
	@command -v $(CARGO) >/dev/null || { echo 'Rust is missing: https://rustup.rs tells how to get it' >&2; exit 1; }
	@packaging/need cc=gcc /usr/include/stdio.h=libc6-dev

build: toolchain
	$(CARGO) build --locked --release -p corten -p cortend
	$(STATIC_BUILD) -p corten-shim -p corten-oci
	@mkdir -p $(DIST)
	@install -m 755 $(TARGET)/release/corten $(TARGET)/release/cortend $(STATIC_OUT)/corten-shim $(STATIC_OUT)/corten-oci $(DIST)/

hello: build
	$(STATIC_BUILD) -p hello
	@packaging/need unshare=util-linux ip=iproute2
	@$(AS_ROOT) examples/hello/run $(DIST) $(STATIC_OUT)/hello

test: build
	@packaging/need unshare=util-linux nsenter=util-linux ip=iproute2 nft=nftables ps=procps \
		openssl=openssl mkfs.btrfs=btrfs-progs skopeo=skopeo dpkg=busybox-static
	@packaging/fetch-client '$(TARGET)/client'
	$(CARGO) build --locked -p testkit
	@$(AS_ROOT) $(TARGET)/debug/leaks --before '$(TARGET)/leaks-before'
	export PATH="$$PATH:$(abspath $(TARGET))/client" CORTEN_DIST='$(abspath $(DIST))' && \
		$(RUNNER) packaging/run-tests $(CARGO)
	@$(AS_ROOT) $(TARGET)/debug/leaks '$(TARGET)/leaks-before'

lint: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

bench: build
	@packaging/need unshare=util-linux nsenter=util-linux ip=iproute2 nft=nftables \
		dpkg=busybox-static
	@packaging/fetch-client '$(TARGET)/client'
	@packaging/fetch-peers '$(TARGET)/peers'
	@mkdir -p $(TARGET)/bench docs
	$(CC) -O2 -Wall -Wextra -static -o $(TARGET)/bench/floor bench/floor.c
	$(CARGO) build --locked --release -p bench
	export PATH="$$PATH:$(abspath $(TARGET))/client" && CORTEN_DIST='$(abspath $(DIST))' CORTEN_PEERS='$(abspath $(TARGET))/peers' $(AS_ROOT) $(TARGET)/release/bench \
		--floor '$(TARGET)/bench/floor' --out docs/benchmarks.md $(BENCH)

# What cargo-fuzz would set; it needs no other toolchain without sanitizers.
FUZZ_FLAGS := -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
	-C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
	-C llvm-args=-sanitizer-coverage-trace-compares -C codegen-units=1 --cfg fuzzing
FUZZ_SECONDS ?= 60
FUZZ ?= reference manifest tar
FUZZ_OUT := $(abspath $(TARGET))/fuzz

# A finding is left in $(TARGET)/fuzz, as the input that shows it. The lock file follows what the crates need meanwhile.
fuzz: toolchain
	@packaging/need c++=g++
	cd fuzz && RUSTFLAGS='$(FUZZ_FLAGS)' CARGO_TARGET_DIR='$(FUZZ_OUT)' $(CARGO) build --release --target $(HOST)
	@for target in $(FUZZ); do \
		mkdir -p "$(FUZZ_OUT)/corpus/$$target" && echo "fuzzing $$target" && \
		TMPDIR=$(firstword $(wildcard /dev/shm /tmp)) "$(FUZZ_OUT)/$(HOST)/release/$$target" \
			-max_total_time=$(FUZZ_SECONDS) -max_len=16384 -rss_limit_mb=1024 -timeout=10 \
			-artifact_prefix="$(FUZZ_OUT)/$$target-" -print_final_stats=1 -verbosity=0 \
			"$(FUZZ_OUT)/corpus/$$target" "fuzz/seeds/$$target" || exit 1; \
	done

install: build
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)/usr/lib/systemd/system' \
		'$(DESTDIR)$(PREFIX)/share/bash-completion/completions' \
		'$(DESTDIR)$(PREFIX)/share/zsh/site-functions' '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	install -m 755 $(addprefix $(DIST)/,$(PROGRAMS)) '$(DESTDIR)$(PREFIX)/bin/'
	sed 's|@BIN@|$(PREFIX)/bin|' packaging/corten.service >'$(DESTDIR)/usr/lib/systemd/system/corten.service'
	chmod 644 '$(DESTDIR)/usr/lib/systemd/system/corten.service'
	$(DIST)/corten completion bash >'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/corten'
	$(DIST)/corten completion zsh >'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_corten'
	$(DIST)/corten completion fish >'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/corten.fish'

clean:
	$(CARGO) clean
	rm -rf $(DIST) $(TARGET)/static $(TARGET)/bench
