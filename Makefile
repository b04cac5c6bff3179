# SPDX-License-Identifier: MIT OR Apache-2.0
# The targets people use are described by `make help`.

VERSION   := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOVERSION := 0
PREFIX    ?= /usr/local
LIBDIR    ?= $(PREFIX)/lib
DESTDIR   ?=
CARGO     ?= cargo
CC        ?= cc
CFLAGS    ?= -O2 -g
BUILD     := build
RUST      := Cargo.toml build.rs $(shell find src -name '*.rs')

SONAME := libmptcpapi.so.$(SOVERSION)
SOFILE := $(SONAME).$(VERSION)

.PHONY: all stage lib daemon header check-header check-header-counted install check check-rust check-c check-python check-go \
	check-man check-docs check-examples check-switch check-fuzz fuzz demo bench clean help deps

all: lib daemon $(BUILD)/mptcpapi.pc

help:
	@echo 'make            release build, into build/'
	@echo 'make check      every test (installs missing Debian packages when root)'
	@echo 'make demo       two hosts, two paths, a transfer in C, Python and Go'
	@echo 'make bench      benchmarks, as ratios against raw system calls and other path managers'
	@echo 'make fuzz       SECONDS= TARGET= looks for bytes that break something'
	@echo 'make install    DESTDIR= PREFIX=/usr/local LIBDIR='
	@echo 'make header     writes include/mptcp.h afresh from src/capi'

lib: $(BUILD)/libmptcpapi.so $(BUILD)/libmptcpapi.a

daemon: $(BUILD)/mptcpapid

$(BUILD)/mptcpapid: $(RUST) daemon/Cargo.toml $(shell find daemon/src -name '*.rs')
	@mkdir -p $(BUILD)
	$(CARGO) build --release -p mptcpapid
	strip --strip-debug -o $@ target/release/mptcpapid

# One static library first; both installed files are made from it.
$(BUILD)/rust/libmptcpapi.a: $(RUST)
	@mkdir -p $(BUILD)/rust
	$(CARGO) rustc --lib --release --crate-type staticlib -- --print native-static-libs=$(abspath $(BUILD))/rust/native-libs
	cp target/release/libmptcpapi.a $@

# rustc passes a version script of its own to any cdylib, so the shared object
# is linked here, where each symbol gets its version.
$(BUILD)/$(SOFILE): $(BUILD)/rust/libmptcpapi.a libmptcpapi.map
	$(CC) -shared -o $@ $(LDFLAGS) -Wl,-soname,$(SONAME) \
		-Wl,--version-script=libmptcpapi.map -Wl,--gc-sections \
		-Wl,-z,nodelete -Wl,-z,defs -Wl,-z,relro -Wl,-z,now \
		-Wl,--whole-archive $< -Wl,--no-whole-archive -static-libgcc -lgcc_eh -lc
	strip --strip-debug $@

$(BUILD)/libmptcpapi.so: $(BUILD)/$(SOFILE)
	ln -sf $(SOFILE) $(BUILD)/$(SONAME)
	ln -sf $(SONAME) $@

# All in one object whose only global symbols are the interface.
$(BUILD)/libmptcpapi.a: $(BUILD)/rust/libmptcpapi.a libmptcpapi.map
	@sed -n 's/^[[:space:]]*\(mptcp_[a-z0-9_]*\);/\1/p' libmptcpapi.map > $(BUILD)/rust/exports
	ld -r --gc-sections $$(sed 's/^/-u /' $(BUILD)/rust/exports) -o $(BUILD)/rust/mptcpapi.o $<
	# rustc's bitcode, which tools with a plugin for LTO would try to read.
	objcopy --keep-global-symbols=$(BUILD)/rust/exports --strip-debug \
		--remove-section=.llvmbc --remove-section=.llvmcmd $(BUILD)/rust/mptcpapi.o
	rm -f $@
	ar rcs $@ $(BUILD)/rust/mptcpapi.o

$(BUILD)/mptcpapi.pc: mptcpapi.pc.in Makefile $(BUILD)/rust/libmptcpapi.a
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' \
		-e "s|@PRIVATE@|$$(cat $(BUILD)/rust/native-libs)|" $< > $@

header:
	$(CARGO) build --lib --features header

check-header:
	@mkdir -p $(BUILD)
	MPTCPAPI_HEADER=$(abspath $(BUILD))/mptcp.h $(CARGO) check -q --lib --features header
	diff -u include/mptcp.h $(BUILD)/mptcp.h || { echo 'include/mptcp.h is out of step: make header'; exit 1; }

# The same as a test with a count.
check-header-counted:
	@$(MAKE) --no-print-directory check-header && echo 'header: 1 passed, 0 failed, 0 skipped'

install: lib daemon
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 include/mptcp.h $(DESTDIR)$(PREFIX)/include/mptcp.h
	install -m 755 $(BUILD)/$(SOFILE) $(DESTDIR)$(LIBDIR)/$(SOFILE)
	ln -sf $(SOFILE) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libmptcpapi.so
	install -m 644 $(BUILD)/libmptcpapi.a $(DESTDIR)$(LIBDIR)/libmptcpapi.a
	install -d $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(BUILD)/mptcpapid $(DESTDIR)$(PREFIX)/sbin/mptcpapid
	for s in 3 5 7 8; do \
		install -d $(DESTDIR)$(PREFIX)/share/man/man$$s && \
		install -m 644 man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s || exit; \
	done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 daemon/systemd/mptcpapid.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/mptcpapid.socket
	sed 's|/usr/sbin/|$(PREFIX)/sbin/|' daemon/systemd/mptcpapid.service > $(BUILD)/mptcpapid.service
	install -m 644 $(BUILD)/mptcpapid.service $(DESTDIR)$(PREFIX)/lib/systemd/system/mptcpapid.service
	install -d $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	install -m 644 daemon/systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/mptcpapi.conf
	install -m 644 daemon/systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/mptcpapi.conf
	install -d $(DESTDIR)$(PREFIX)/share/doc/libmptcpapi
	install -m 644 daemon/systemd/mptcpapid.conf $(DESTDIR)$(PREFIX)/share/doc/libmptcpapi/mptcpapid.conf
	rm -f $(BUILD)/mptcpapi.pc
	$(MAKE) --no-print-directory $(BUILD)/mptcpapi.pc
	install -m 644 $(BUILD)/mptcpapi.pc $(DESTDIR)$(LIBDIR)/pkgconfig/mptcpapi.pc

# What building and testing needs, as Debian names it. Nothing is installed
# where all of it is there, or where we are not root.
DEPS := gcc g++ make pkg-config iproute2 iputils-ping nftables util-linux strace valgrind \
	python3 python3-pytest golang-go man-db groff mandoc linux-libc-dev libc6-dev procps

deps:
	@missing=; for p in $(DEPS); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		apt-get update -q >/dev/null 2>&1; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q $$missing >/dev/null; \
	elif [ "$$missing" ]; then echo "not installed:$$missing"; fi
	@# Debian's is too old to know ctypes; without one types aren't checked, which is said.
	@if [ "$$(id -u)" = 0 ] && ! python3 -c 'import mypy' 2>/dev/null; then \
		timeout 120 python3 -m pip install -q mypy >/dev/null 2>&1 || true; fi

check: deps
	tests/run

STAGE := $(BUILD)/stage
stage: lib daemon
	rm -rf $(STAGE)
	$(MAKE) --no-print-directory install DESTDIR=$(abspath $(STAGE)) PREFIX=/usr >/dev/null

check-rust:
	$(CARGO) test

check-c: stage
	ctests/run $(STAGE)/usr

check-python: lib daemon
	bindings/python/tests/run

check-go: lib daemon
	bindings/go/tests/run

check-man:
	man/check

check-docs:
	docs/check

check-examples: lib daemon
	tests/examples

check-switch: lib
	tests/switch
	tests/guest

check-fuzz:
	fuzz/run check

fuzz:
	fuzz/run $(or $(SECONDS),60) $(TARGET)

demo: deps lib daemon
	demo/run

bench: deps lib daemon
	benches/run

clean:
	rm -rf $(BUILD) target
