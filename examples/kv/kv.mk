# The command-line tool: included by the top Makefile, which builds the library into $(BUILT) by `build`.
#
#   make kv        $(BUILT)/kv, which holds the library and runs anywhere

KV_DIR := examples/kv
KV_SOURCES := $(wildcard $(KV_DIR)/*.c)

.PHONY: kv
kv: $(BUILT)/kv

# Made each time, in a second, because it holds the library.
$(BUILT)/kv: $(KV_SOURCES) $(KV_DIR)/kv.h build
	$(CC) -std=c99 -O2 $(STRICT) $(CFLAGS) $(KV_SOURCES) -o $@ $(BUILT)/libkvstore.a $(LDFLAGS) $(NATIVE_LIBS)
