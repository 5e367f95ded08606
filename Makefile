# make            the library, shared and static, and its header
# make run        the same, and the example that shows what it does; TEXT=file for a text of your own
# make test       all tests, Rust and C
# make check      what a change must pass before it is merged, tests apart
# make memcheck   the C tests under valgrind
# make crash      power cuts and kills on the simulated disk, for BUDGET seconds (60)
# make install    into PREFIX, below DESTDIR
# make uninstall  removes what install put there

CARGO   ?= cargo
CC      ?= cc
CXX     ?= c++
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig

CARGO_TARGET_DIR ?= target
BUILT   := $(CARGO_TARGET_DIR)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ABI     := 0

ifeq ($(shell uname -s),Darwin)
SHARED   := libkvstore.dylib
SONAME   := libkvstore.$(ABI).dylib
REALNAME := libkvstore.$(VERSION).dylib
EXPORTED  = nm -gU $(BUILT)/$(SHARED) | sed 's/ _/ /'
else
SHARED   := libkvstore.so
SONAME   := libkvstore.so.$(ABI)
REALNAME := libkvstore.so.$(VERSION)
EXPORTED  = nm -D --defined-only $(BUILT)/$(SHARED)
endif

STRICT := -pedantic -Wall -Wextra -Werror -Iinclude

.PHONY: all build run test check fmt memcheck crash install uninstall clean
all: build

# One type at a time: cargo leaves link-time optimization out if an rlib is built along.
build:
	$(CARGO) rustc --locked --lib --release --crate-type cdylib
	$(CARGO) rustc --locked --lib --release --crate-type staticlib
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

check: build
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@# The build above has put an edited header back and written a missing one.
	test ! -e .git || git diff --exit-code include/
	for std in c99 c11 c17; do \
		echo '#include "kvstore.h"' | $(CC) -std=$$std $(STRICT) -fsyntax-only -x c - || exit 1; done
	for std in c++11 c++14 c++17 c++20; do \
		echo '#include "kvstore.h"' | $(CXX) -std=$$std $(STRICT) -fsyntax-only -x c++ - || exit 1; done
	@# Nothing but the functions of the header, and all of them.
	! $(EXPORTED) | grep -v ' T kv_'
	for name in $$(sed -n 's/^[a-z].*[ *]\(kv_[a-z_]*\)(.*/\1/p' include/kvstore.h); do \
		$(EXPORTED) | grep -q " T $$name$$" || { echo "$$name is not exported"; exit 1; }; done

fmt:
	$(CARGO) fmt

memcheck:
	KV_QUICK=1 KV_C_WRAPPER="valgrind -q --error-exitcode=9 --leak-check=full" $(CARGO) test --locked --test c shared_

# Without link-time optimization, which takes longer than it gives here.
BUDGET ?= 60
crash:
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true KV_CRASH_BUDGET=$(BUDGET) \
		$(CARGO) test --locked --release --lib crash_tests::prefix -- --nocapture

install: build
	install -d $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PKGCONFIGDIR)
	install -m 644 include/kvstore.h $(DESTDIR)$(INCLUDEDIR)/
	install -m 644 $(BUILT)/libkvstore.a $(DESTDIR)$(LIBDIR)/
	install -m 755 $(BUILT)/$(SHARED) $(DESTDIR)$(LIBDIR)/$(REALNAME)
	ln -sf $(REALNAME) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/$(SHARED)
	printf '%s\n' \
		'prefix=$(PREFIX)' \
		'libdir=$(LIBDIR)' \
		'includedir=$(INCLUDEDIR)' \
		'' \
		'Name: kvstore' \
		'Description: An embedded, log-structured key-value store' \
		'Version: $(VERSION)' \
		'Cflags: -I$${includedir}' \
		'Libs: -L$${libdir} -lkvstore' \
		'Libs.private: $(if $(filter Darwin,$(shell uname -s)),,-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc)' \
		> $(DESTDIR)$(PKGCONFIGDIR)/kvstore.pc
	chmod 644 $(DESTDIR)$(PKGCONFIGDIR)/kvstore.pc

uninstall:
	rm -f $(DESTDIR)$(INCLUDEDIR)/kvstore.h $(DESTDIR)$(LIBDIR)/libkvstore.a \
		$(DESTDIR)$(LIBDIR)/$(SHARED) $(DESTDIR)$(LIBDIR)/$(SONAME) $(DESTDIR)$(LIBDIR)/$(REALNAME) \
		$(DESTDIR)$(PKGCONFIGDIR)/kvstore.pc

clean:
	$(CARGO) clean

include $(wildcard examples/bench/bench.mk)
