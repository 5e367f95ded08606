# Packages: included by the top Makefile.
#
#   make dist        a source archive with all dependencies, which builds without a network
#   make check-dist  builds it so, in a scratch directory
#   make deb         Debian packages: libkvstore0, libkvstore-dev, and kvstore-tools if there is the tool
#   make check-deb   installs them in a fresh Debian, compiles a program there, removes them; as root, with debootstrap
#
# All go to $(DIST). `make dist` needs GNU tar.

DIST        := $(CARGO_TARGET_DIR)/dist
SOURCE      := kvstore-$(VERSION)
# Archives of one commit are equal to the byte.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
export SOURCE_DATE_EPOCH

.PHONY: dist check-dist deb check-deb
dist:
	rm -rf $(DIST)/$(SOURCE) && mkdir -p $(DIST)/$(SOURCE)/.cargo
	$(CARGO) package --list --locked --allow-dirty 2>/dev/null | grep -vxE 'Cargo.toml.orig|\.cargo_vcs_info.json' \
		| tar -cf - -T - | tar -xf - -C $(DIST)/$(SOURCE)
	cd $(DIST)/$(SOURCE) && $(CARGO) vendor --locked --quiet vendor
	printf '%s\n' '[source.crates-io]' 'replace-with = "vendored-sources"' '' \
		'[source.vendored-sources]' 'directory = "vendor"' > $(DIST)/$(SOURCE)/.cargo/config.toml
	tar --sort=name --mtime=@$(SOURCE_DATE_EPOCH) --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX \
		-C $(DIST) -cf - $(SOURCE) | gzip -9n > $(DIST)/$(SOURCE).tar.gz
	@ls -l $(DIST)/$(SOURCE).tar.gz

check-dist: dist
	rm -rf $(DIST)/check && mkdir -p $(DIST)/check/cargo
	tar -xzf $(DIST)/$(SOURCE).tar.gz -C $(DIST)/check
	cd $(DIST)/check/$(SOURCE) && env -u CARGO_TARGET_DIR CARGO_HOME=$(abspath $(DIST))/check/cargo CARGO_NET_OFFLINE=true \
		$(MAKE) build run
	rm -rf $(DIST)/check

DEB_STAGE   := $(DIST)/deb
DEB_TRIPLE  ?= $(shell $(CC) -dumpmachine)
# Whoever publishes the packages gives a name.
DEB_MAINTAINER ?= kvstore developers <kvstore@localhost>
deb:
	rm -rf $(DEB_STAGE)
	$(MAKE) install DESTDIR=$(DEB_STAGE)/all PREFIX=/usr \
		LIBDIR=/usr/lib/$$(dpkg-architecture -t $(DEB_TRIPLE) -qDEB_HOST_MULTIARCH)
	DEB_MAINTAINER='$(DEB_MAINTAINER)' sh include/install/deb.sh $(VERSION) \
		$$(dpkg-architecture -t $(DEB_TRIPLE) -qDEB_HOST_ARCH) $(DEB_STAGE) $(DIST)

DEB_SUITE   ?= stable
DEB_ROOT    := $(DIST)/root
check-deb: deb
	test -e $(DEB_ROOT)/var/lib/dpkg/status || \
		debootstrap --variant=minbase --include=gcc,libc6-dev,pkg-config $(DEB_SUITE) $(DEB_ROOT)
	rm -rf $(DEB_ROOT)/tmp/check && mkdir $(DEB_ROOT)/tmp/check
	cp $(DIST)/*_$(VERSION)-1_$$(dpkg --print-architecture).deb c_tests/install/program.c $(DEB_ROOT)/tmp/check/
	chroot $(DEB_ROOT) sh -euxc 'cd /tmp/check; dpkg -i *.deb; \
		cc -Wall -Wextra -Werror program.c -o program $$(pkg-config --cflags --libs kvstore); ./program db; \
		dpkg --verify libkvstore0 libkvstore-dev; dpkg --purge $$(dpkg-query -W -f "\$${Package} " "*kvstore*"); \
		test -z "$$(find /usr /etc /var/lib/dpkg/info -name "*kvstore*")"'
