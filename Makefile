# make            the library, shared and static, and its header
# make run        the same, and the example that shows what it does; TEXT=file for a text of your own
# make kv         the command-line tool
# make test       all tests, Rust and C
# make check      what a change must pass before it is merged, tests apart
# make memcheck   the C tests under valgrind
# make crash      power cuts and kills on the simulated disk, for BUDGET seconds (60)
# make fuzz       coverage-guided fuzzing of what reads files, for BUDGET seconds; installs cargo-fuzz if it is missing
# make sanitize   the C tests under AddressSanitizer; with TSAN=1 those with threads, and some of the Rust ones, under ThreadSanitizer
# make docs       the header as HTML, by doxygen
# make install    into PREFIX, below DESTDIR; this, `make uninstall` and more are in include/install/install.mk
# make dist       a source archive that builds offline; this and `make deb` are in include/install/package.mk
#
# To compile for another machine: TARGET=aarch64-unknown-linux-gnu CC=aarch64-linux-gnu-gcc OBJCOPY=aarch64-linux-gnu-objcopy

CARGO   ?= cargo
CC      ?= cc
CXX     ?= c++
OBJCOPY ?= objcopy
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man

CARGO_TARGET_DIR ?= target
BUILT   := $(CARGO_TARGET_DIR)/$(if $(TARGET),$(TARGET)/)release
NATIVE  := $(BUILT)/native-static-libs
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ABI     := 0

ifneq ($(TARGET),)
export CARGO_TARGET_$(shell echo $(TARGET) | tr a-z- A-Z_)_LINKER := $(CC)
endif
APPLE   := $(findstring apple,$(or $(TARGET),$(if $(filter Darwin,$(shell uname -s)),apple)))

ifneq ($(APPLE),)
SHARED   := libkvstore.dylib
SONAME   := libkvstore.$(ABI).dylib
REALNAME := libkvstore.$(VERSION).dylib
else
SHARED   := libkvstore.so
SONAME   := libkvstore.so.$(ABI)
REALNAME := libkvstore.so.$(VERSION)
endif

STRICT := -pedantic -Wall -Wextra -Werror -Iinclude

.PHONY: all build run test check check-header fmt memcheck crash fuzz sanitize docs clean
all: build

# One type at a time: cargo leaves link-time optimization out if an rlib is built along.
build:
	$(CARGO) rustc --locked --lib --release $(TARGET:%=--target=%) --crate-type cdylib
	$(CARGO) rustc --locked --lib --release $(TARGET:%=--target=%) --crate-type staticlib \
		-- --print native-static-libs=$(abspath $(NATIVE))
	ln -sf $(SHARED) $(BUILT)/$(SONAME)

run: build
	mkdir -p $(BUILT)/examples
	$(CC) -std=c99 -O2 $(STRICT) examples/quickstart.c -o $(BUILT)/examples/quickstart \
		-L$(BUILT) -lkvstore -Wl,-rpath,$(abspath $(BUILT))
	rm -rf $(BUILT)/examples/quickstart.db
	$(BUILT)/examples/quickstart $(BUILT)/examples/quickstart.db $(TEXT)

test:
	$(CARGO) test --locked
	KV_TEST_IO=syscall $(CARGO) test --locked --test c shared_

check: build check-header check-size check-install
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	KV_LIBRARY=$(abspath $(BUILT)/$(SHARED)) $(CARGO) test --quiet --locked --test abi

check-header: build
	@# The build has put edited files back and written missing ones.
	test ! -e .git || git diff --exit-code include/
	for std in c99 c11 c17; do \
		echo '#include "kvstore.h"' | $(CC) -std=$$std $(STRICT) -fsyntax-only -x c - || exit 1; done
	for std in c++11 c++14 c++17 c++20; do \
		echo '#include "kvstore.h"' | $(CXX) -std=$$std $(STRICT) -fsyntax-only -x c++ - || exit 1; done
	@if command -v doxygen > /dev/null; then $(MAKE) --no-print-directory docs; \
	else echo "SKIPPED: no doxygen, so what the header says is not checked for gaps"; fi

docs: build
	mkdir -p $(CARGO_TARGET_DIR)/docs
	(cat include/docs/Doxyfile; echo PROJECT_NUMBER=$(VERSION); echo OUTPUT_DIRECTORY=$(CARGO_TARGET_DIR)/docs) | doxygen -
	@echo "see $(CARGO_TARGET_DIR)/docs/html/index.html"

fmt:
	$(CARGO) fmt

memcheck:
	KV_QUICK=1 KV_C_WRAPPER="valgrind -q --error-exitcode=9 --leak-check=full" $(CARGO) test --locked --test c shared_

# Without link-time optimization, which takes longer than it gives here.
BUDGET ?= 60
crash:
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true KV_CRASH_BUDGET=$(BUDGET) \
		$(CARGO) test --locked --release --lib crash_tests::prefix -- --nocapture

# Each target for its share of the time. What is found to be worth keeping goes to src/fuzzing/crate/corpus; what is
# committed is where it starts, and `make test` replays that.
FUZZERS := open records manifest hint import
FUZZ := RUSTC_BOOTSTRAP=1 $(CARGO) fuzz
fuzz:
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked
	for target in $(FUZZERS); do \
		mkdir -p src/fuzzing/crate/corpus/$$target && \
		$(FUZZ) run -s none --fuzz-dir src/fuzzing/crate --target-dir $(CARGO_TARGET_DIR)/fuzz $$target src/fuzzing/crate/corpus/$$target src/fuzzing/corpus/$$target -- \
			-max_total_time=$$(($(BUDGET) / $(words $(FUZZERS)) + 1)) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
			|| exit 1; done

# The sanitizers are no part of stable Rust: RUSTC_BOOTSTRAP lets it have them. ThreadSanitizer has to see the standard
# library, too, which is then built from source: `rustup component add rust-src`. The C programs get Rust's own runtime of
# it: that of the C compiler may be too old.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
TSAN_RUNTIME = $(firstword $(wildcard $(shell rustc --print sysroot)/lib/rustlib/$(HOST)/lib/librustc-*_rt.tsan.a))
ifdef TSAN
sanitize: export RUSTFLAGS = -Zsanitizer=thread --cfg tsan
sanitize: export CFLAGS = -rdynamic -Wl,--whole-archive,$(TSAN_RUNTIME),--no-whole-archive -lm -ldl -lrt
sanitize: export TSAN_OPTIONS = halt_on_error=1 die_after_fork=0
sanitize:
	RUSTC_BOOTSTRAP=1 KV_QUICK=1 $(CARGO) test --locked -Zbuild-std --target $(HOST) --target-dir $(CARGO_TARGET_DIR)/tsan \
		--test c -- shared_threads shared_batches shared_snapshots shared_checkpoint
	RUSTC_BOOTSTRAP=1 $(CARGO) test --locked -Zbuild-std --target $(HOST) --target-dir $(CARGO_TARGET_DIR)/tsan \
		--lib -- linearizability a_key_deleted_while growth append:: keys_that_look_alike_stay
else
sanitize: export RUSTFLAGS = -Zsanitizer=address
sanitize: export CFLAGS = -fsanitize=address,undefined
sanitize: export CXXFLAGS = -fsanitize=address,undefined
sanitize:
	RUSTC_BOOTSTRAP=1 KV_QUICK=1 $(CARGO) test --locked --target $(HOST) --target-dir $(CARGO_TARGET_DIR)/asan --test c shared_
endif

clean:
	$(CARGO) clean

include include/install/install.mk include/install/package.mk
include $(wildcard examples/*/*.mk)
