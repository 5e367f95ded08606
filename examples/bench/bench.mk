# The benchmark: included by the top Makefile, which builds the library into $(BUILT) by `build`.
#
#   make bench        measure all stores found on this machine, in less than ten minutes
#   make bench-plot   draw what was measured: examples/bench/results.svg
#   make bench-calls  kv_get_many and batches against the same one by one, on CALLS_RECORDS records
#
# BENCH_FLAGS="--quick", or any other option of the program, is passed on: `bench --help`.

BENCH_DIR := examples/bench
BENCH_OUT ?= $(BUILT)/bench
BENCH_TSV := $(BENCH_OUT)/results.tsv
BENCH_FLAGS ?= --records 150000 --threads 1,2 --seconds 0.5
BENCH_CFLAGS := -std=c99 -D_GNU_SOURCE -O2 -Wall -Wextra -Wpedantic -pthread

# macro:header:library. A peer is used if a program with its header and its library links.
BENCH_PEERS := \
	HAVE_LMDB:lmdb.h:lmdb \
	HAVE_ROCKSDB:rocksdb/c.h:rocksdb \
	HAVE_LEVELDB:leveldb/c.h:leveldb \
	HAVE_SQLITE:sqlite3.h:sqlite3 \
	HAVE_TKRZW:tkrzw_langc.h:tkrzw \
	HAVE_KYOTO:kclangc.h:kyotocabinet \
	HAVE_BDB:db.h:db

# Expanded in the recipe only: no other target of the Makefile waits for these trials.
bench_links = $(shell printf '\043include <$(1)>\nint main(void) { return 0; }\n' | \
	$(CC) -x c - -o /dev/null -l$(2) 2>/dev/null && echo yes)
bench_peer = $(if $(call bench_links,$(word 2,$(1)),$(word 3,$(1))), \
	-D$(word 1,$(1)) -l$(word 3,$(1)))
bench_peers = $(foreach peer,$(BENCH_PEERS),$(call bench_peer,$(subst :, ,$(peer))))
bench_has = $(shell grep -qs '$(1)' include/kvstore.h && echo -D$(2))
bench_ours = $(call bench_has,kv_open,HAVE_KVSTORE) $(call bench_has,kv_batch_new,KV_HAS_BATCH) \
	$(call bench_has,kv_iter_new,KV_HAS_ITER)
bench_rocksdb = $(shell pkg-config --modversion rocksdb 2>/dev/null)

BENCH_COMMON := $(addprefix $(BENCH_DIR)/,data.c measure.c talk.c)
BENCH_SOURCES := $(BENCH_COMMON) $(wildcard $(BENCH_DIR)/driver*.c) \
	$(addprefix $(BENCH_DIR)/,main.c steps.c operations.c loop.c report.c)

$(BENCH_OUT)/bench: $(BENCH_SOURCES) $(BENCH_DIR)/bench.h include/kvstore.h | build
	@mkdir -p $(BENCH_OUT)
	peers="$(strip $(bench_peers))"; \
	$(CC) $(BENCH_CFLAGS) $(bench_ours) $$peers -DROCKSDB_VERSION='"$(bench_rocksdb)"' -Iinclude \
		-o $@ $(BENCH_SOURCES) -L$(BUILT) -lkvstore -Wl,-rpath,$(abspath $(BUILT)) $$peers -lm

$(BENCH_OUT)/floor: $(BENCH_DIR)/floor.c $(BENCH_COMMON) $(BENCH_DIR)/bench.h
	@mkdir -p $(BENCH_OUT)
	$(CC) $(BENCH_CFLAGS) -o $@ $(BENCH_DIR)/floor.c $(BENCH_COMMON) -lm

$(BENCH_TSV):
	$(MAKE) bench

CALLS_RECORDS ?= 10000000
$(BENCH_OUT)/calls: $(BENCH_DIR)/calls.c include/kvstore.h | build
	@mkdir -p $(BENCH_OUT)
	$(CC) $(BENCH_CFLAGS) -Iinclude -o $@ $(BENCH_DIR)/calls.c -L$(BUILT) -lkvstore -Wl,-rpath,$(abspath $(BUILT))

.PHONY: bench bench-plot bench-calls
bench-calls: $(BENCH_OUT)/calls
	rm -rf $(BENCH_OUT)/calls.db
	mkdir $(BENCH_OUT)/calls.db
	$(BENCH_OUT)/calls $(BENCH_OUT)/calls.db $(CALLS_RECORDS)
	rm -rf $(BENCH_OUT)/calls.db

bench: $(BENCH_OUT)/bench $(BENCH_OUT)/floor
	$(BENCH_OUT)/bench --tsv $(BENCH_TSV) $(BENCH_FLAGS)

bench-plot: $(BENCH_TSV)
	python3 $(BENCH_DIR)/plot.py $(BENCH_TSV) $(BENCH_DIR)/results.svg
