# Installing: included by the top Makefile, which builds the library into $(BUILT) by `build`.
#
#   make install         into PREFIX (and LIBDIR, INCLUDEDIR, BINDIR, MANDIR), below DESTDIR
#   make install-debug   the debug information of the shared library, where debuggers look for it
#   make uninstall       removes what these put there
#   make check-install   tests all that in a scratch directory

INSTALL_DIR := include/install
STRIPPED    := $(BUILT)/stripped
CMAKEDIR     = $(LIBDIR)/cmake/kvstore
HEADERS     := $(wildcard include/*.h include/*.hpp)
TEMPLATES   := kvstore.pc kvstoreConfig.cmake kvstoreConfigVersion.cmake
# The tool, if it is there.
KV          := $(if $(wildcard examples/kv/kv.mk),kv)

ifeq ($(APPLE),)
INSTALL_NAME  = $(SONAME)
else
INSTALL_NAME  = @rpath/$(SONAME)
endif

INSTALLED = $(HEADERS:include/%=$(INCLUDEDIR)/%) $(INCLUDEDIR)/kvstore/module.modulemap \
	$(addprefix $(LIBDIR)/,libkvstore.a $(REALNAME) $(SONAME) $(SHARED) pkgconfig/kvstore.pc) \
	$(addprefix $(CMAKEDIR)/,kvstoreConfig.cmake kvstoreConfigVersion.cmake) \
	$(if $(KV),$(BINDIR)/kv $(MANDIR)/man1/kv.1)
DEBUGFILE = $(LIBDIR)/.debug/$(REALNAME).debug

# What a program must be linked with besides the static library, by the compiler's own account. A C compiler adds
# libgcc and libc by itself, and knows which of them there is for a program without any shared library.
NATIVE_LIBS = $(filter-out -lgcc_s -lc,$(shell cat $(NATIVE)))
# ../../include, say, so that the CMake package does not depend on where it is.
INCLUDEDIR_FROM_LIBDIR = $(if $(filter $(PREFIX)/%,$(LIBDIR)),$(shell echo '$(LIBDIR:$(PREFIX)/%=%)' | \
	sed 's|[^/][^/]*|..|g')/$(INCLUDEDIR:$(PREFIX)/%=%),$(INCLUDEDIR))
POINTER_SIZE = $(shell echo __SIZEOF_POINTER__ | $(CC) -E -P -)

fill = sed $(foreach name,PREFIX LIBDIR INCLUDEDIR VERSION NATIVE_LIBS REALNAME INSTALL_NAME POINTER_SIZE \
	INCLUDEDIR_FROM_LIBDIR,-e 's|@$(name)@|$(strip $($(name)))|') \
	-e 's|@VERSION_MAJOR@|$(firstword $(subst ., ,$(VERSION)))|'

# The libraries as they are shipped. The debug information is kept apart, and the shared library names it.
.PHONY: strip
strip: build
	rm -rf $(STRIPPED) && mkdir -p $(STRIPPED)
	cp $(BUILT)/$(SHARED) $(STRIPPED)/$(REALNAME)
	cp $(BUILT)/libkvstore.a $(STRIPPED)/
ifeq ($(APPLE),)
	$(OBJCOPY) --only-keep-debug $(STRIPPED)/$(REALNAME) $(STRIPPED)/$(REALNAME).debug
	chmod 644 $(STRIPPED)/$(REALNAME).debug
	$(OBJCOPY) --strip-unneeded --add-gnu-debuglink=$(STRIPPED)/$(REALNAME).debug $(STRIPPED)/$(REALNAME)
	$(OBJCOPY) --strip-debug $(STRIPPED)/libkvstore.a
else
	dsymutil --flat -o $(STRIPPED)/$(REALNAME).debug $(STRIPPED)/$(REALNAME)
	strip -x $(STRIPPED)/$(REALNAME)
	strip -S $(STRIPPED)/libkvstore.a
endif

.PHONY: install install-debug uninstall check-install check-size
install: strip $(KV:%=$(BUILT)/%)
	install -d $(addprefix $(DESTDIR),$(sort $(dir $(INSTALLED))))
	install -m 644 $(HEADERS) $(DESTDIR)$(INCLUDEDIR)/
	install -m 644 include/kvstore/module.modulemap $(DESTDIR)$(INCLUDEDIR)/kvstore/
	install -m 644 $(STRIPPED)/libkvstore.a $(DESTDIR)$(LIBDIR)/
	install -m 755 $(STRIPPED)/$(REALNAME) $(DESTDIR)$(LIBDIR)/
	ln -sf $(REALNAME) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/$(SHARED)
	@$(foreach file,$(TEMPLATES),$(fill) $(INSTALL_DIR)/$(file).in > $(STRIPPED)/$(file) &&) true
	install -m 644 $(STRIPPED)/kvstore.pc $(DESTDIR)$(LIBDIR)/pkgconfig/
	install -m 644 $(STRIPPED)/kvstoreConfig.cmake $(STRIPPED)/kvstoreConfigVersion.cmake $(DESTDIR)$(CMAKEDIR)/
ifneq ($(KV),)
	install -m 755 $(BUILT)/kv $(DESTDIR)$(BINDIR)/
	$(if $(APPLE),strip,$(OBJCOPY) --strip-all) $(DESTDIR)$(BINDIR)/kv
	install -m 644 examples/kv/kv.1 $(DESTDIR)$(MANDIR)/man1/
endif

install-debug: strip
	install -d $(DESTDIR)$(LIBDIR)/.debug
	install -m 644 $(STRIPPED)/$(REALNAME).debug $(DESTDIR)$(DEBUGFILE)

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED) $(DEBUGFILE))
	@# Folders of others may hold something else.
	rmdir $(addprefix $(DESTDIR),$(INCLUDEDIR)/kvstore $(CMAKEDIR) $(LIBDIR)/.debug) 2>/dev/null || true

# Last: it installs, and so makes the stripped libraries again.
check-install: strip | check-size
	CC='$(CC)' MAKE='$(MAKE)' sh c_tests/install/test.sh $(VERSION)

# A library that is to be embedded stays small. Raise this knowingly, and what README.md says of it.
MAX_KIB := 1024
check-size: strip
	@bytes=$$(wc -c < $(STRIPPED)/$(REALNAME)); \
	echo "the shared library has $$((bytes / 1024)) KiB, at most $(MAX_KIB) are allowed"; \
	test $$bytes -le $$(($(MAX_KIB) * 1024))
