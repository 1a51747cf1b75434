# Hikyaku's one Makefile. `make help` lists the targets.
#
# Everything that is built lies under build/: release in build/ itself, SAN=address,undefined in
# build/asan, SAN=thread in build/tsan, coverage-guided fuzzing in build/fuzz. A change of compiler
# or flags rebuilds what it concerns (the .flags stamp). Personal settings go into local.mk.

-include local.mk

VERSION := 0.1.0
SHELL := /bin/bash
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
JOBS ?= $(shell nproc)

# ---- where things go --------------------------------------------------------------------------

SAN ?=
ifeq ($(SAN),)
B := build
else ifneq ($(findstring fuzzer,$(SAN)),)
B := build/fuzz
else ifneq ($(findstring thread,$(SAN)),)
B := build/tsan
else
B := build/asan
endif
O := $(B)/obj

# A git worktree shares the wolfSSL of the checkout it belongs to.
GIT_COMMON := $(patsubst %/.git,%,$(shell git rev-parse --git-common-dir 2>/dev/null))
WOLFSSL_PREFIX ?= $(if $(filter /%,$(GIT_COMMON)),$(GIT_COMMON)/)build/wolfssl
WOLFSSL_LIB := $(WOLFSSL_PREFIX)/lib/libwolfssl.a

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/hikyaku
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
SHAREDIR ?= $(PREFIX)/share/hikyaku

# ---- sources ----------------------------------------------------------------------------------

wild = $(sort $(foreach d,$(1),$(wildcard $(d)/*.c $(d)/*/*.c)))

CTL_SRC    := $(call wild,gateway/ctl)
LIB_SRC    := $(filter-out gateway/main.c $(CTL_SRC),$(call wild,gateway queue tls routing))
BENCH_SRC  := $(call wild,bench)
TESTER_SRC := $(filter-out tests/unit/test_%.c,$(wildcard tests/unit/*.c tests/io/*.c))
SIM_MAIN   := $(patsubst %,tests/sim/%.c,main run sweep)
SIM_SRC    := $(filter-out tests/sim/test_%.c $(SIM_MAIN),$(wildcard tests/sim/*.c))
# Compiled once more for the simulator: files with bugs planted for it (gateway/base/plant.h), and
# those whose calls of io.h are to be known by their place (tests/sim/places.h).
SIM_LEFT_OUT := gateway/io/% gateway/control% gateway/admin% routing/dns_%
PLANTED_SRC := $(filter-out $(SIM_LEFT_OUT),$(shell grep -lP '\b(PLANT|io_[a-z_]+)\x28' $(LIB_SRC)))
UNIT_SRC   := $(sort $(wildcard tests/unit/test_*.c tests/sim/test_*.c))
FUZZ_SRC   := $(sort $(wildcard tests/fuzz/fuzz_*.c))

obj = $(patsubst %.c,$(O)/%.o,$(1))
planted = $(patsubst %.c,$(O)/again/%.o,$(1))

PROGRAMS := $(if $(wildcard gateway/main.c),$(B)/hikyaku) \
            $(if $(wildcard gateway/ctl/main.c),$(B)/hikyakuctl) \
            $(if $(wildcard bench/main.c),$(B)/hikyaku-bench)
UNIT_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(UNIT_SRC))
FUZZ_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(FUZZ_SRC))

# Some two hundred test programs are linked: gold takes a sixth of the time, where it is there.
TEST_LD := $(if $(LTO)$(shell command -v ld.gold >/dev/null || echo none),,-fuse-ld=gold)

LIB     := $(B)/libhikyaku.a
CTL_LIB := $(B)/libctl.a
BENCH_LIB := $(B)/libbench.a
TESTER_LIB := $(B)/libtester.a

# ---- compilers and flags ----------------------------------------------------------------------

ifeq ($(origin CC),default)
CC := gcc
endif
AR := ar
CC_MAJOR := $(firstword $(subst ., ,$(shell $(CC) -dumpversion 2>/dev/null)))
CC_CLANG := $(findstring clang,$(shell $(CC) --version 2>/dev/null))

# Warnings are errors with the compilers the project is tested with, and advice with others.
WERROR ?= $(if $(filter $(if $(CC_CLANG),14,12),$(CC_MAJOR)),-Werror)
LTO ?=

PKGS := zlib liburing yaml-0.1 libunbound libmicrohttpd libcurl libidn2 jansson libcrypt
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS = $(shell pkg-config --libs $(PKGS) 2>/dev/null)

OPT := $(if $(SAN),-O1 -fno-omit-frame-pointer,-O2)
TSAN := $(findstring thread,$(SAN))
CPPFLAGS_ALL = $(if $(TSAN),-Itests/thread) -I. -D_GNU_SOURCE -DHIKYAKU_VERSION='"$(VERSION)"' \
               -DHIKYAKU_SHARE='"$(SHAREDIR)"' -I$(WOLFSSL_PREFIX)/include $(PKG_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 $(OPT) -g -Wall -Wextra $(WERROR) -fPIE -pthread $(CFLAGS)
LDFLAGS_ALL = -pie -pthread -Wl,--as-needed,-z,relro,-z,now $(LDFLAGS)
LIBS = $(WOLFSSL_LIB) $(PKG_LIBS) -lm

ifeq ($(SAN),)
CPPFLAGS_ALL += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
CFLAGS_ALL += -fstack-protector-strong -fstack-clash-protection
LIBS += -ljemalloc
else
CFLAGS_ALL += -fsanitize=$(SAN) $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined)
LDFLAGS_ALL += -fsanitize=$(subst fuzzer-no-link,fuzzer,$(SAN))
endif
ifneq ($(LTO),)
# The compiler looks at everything at once, and believes less of what callers promise.
CFLAGS_ALL += -flto=auto -Wno-maybe-uninitialized
LDFLAGS_ALL += -flto=auto $(OPT)
AR := $(if $(CC_CLANG),llvm-ar,gcc-ar)
endif

# ---- dependencies -----------------------------------------------------------------------------

# Packages are looked at before anything else, since pkg-config must see them; silent and quick when
# nothing is missing. DEPS=skip leaves them alone.
GOALS := $(or $(MAKECMDGOALS),all)
NEEDS := $(if $(filter-out help clean distclean format,$(GOALS)),build) \
         $(if $(wildcard $(WOLFSSL_LIB)),,wolfssl) \
         $(if $(filter test system unit unit-build peers fuzz crash-points,$(GOALS)),test) \
         $(if $(filter deps,$(GOALS)),wolfssl run test) $(if $(filter run,$(GOALS)),run) \
         $(if $(filter lint format,$(GOALS)),lint) \
         $(if $(filter fuzz,$(GOALS))$(findstring clang,$(CC)),clang)
DEPS ?= install
ifeq ($(DEPS)$(findstring n,$(filter-out --%,$(firstword -$(MAKEFLAGS)))),install)
ifneq ($(filter build lint,$(NEEDS)),)
ifneq ($(shell deploy/packages/install $(NEEDS) 1>&2; echo $$?),0)
$(error packages are missing)
endif
endif
endif

# ---- rules ------------------------------------------------------------------------------------

.PHONY: all deps run test system unit unit-build sim sim-build fuzz fuzz-build crash \
        crash-points cuts lint format install install-files deb deploy-check deploy-test \
        image-test peers fresh clean distclean help

all: $(PROGRAMS) $(LIB) ## build the programs (SAN=address,undefined | SAN=thread, CC=clang, LTO=1)

deps: $(WOLFSSL_LIB) ## install what is missing and build wolfSSL (WOLFSSL_TARBALL=FILE)

# stamp FILE,TEXT: rewrite FILE when TEXT has changed, so that what depends on it is made again.
quoted = '$(subst ','"'"',$(1))'
stamp = $(shell mkdir -p $(B); [ "$$(cat $(1) 2>/dev/null)" = $(call quoted,$(2)) ] || \
          echo $(call quoted,$(2)) >$(1))
$(call stamp,$(B)/.flags,$(CC) $(CFLAGS_ALL) $(CPPFLAGS_ALL) $(LDFLAGS_ALL))
$(call stamp,$(B)/.sources,$(LIB_SRC) $(CTL_SRC) $(BENCH_SRC) $(TESTER_SRC) $(SIM_SRC))

# A shared wolfSSL is only built when it is absent; one's own also when its recipe changes.
$(WOLFSSL_LIB): $(if $(filter /%,$(WOLFSSL_PREFIX)),,deploy/packages/build-wolfssl)
	@JOBS=$(JOBS) WOLFSSL_TARBALL='$(WOLFSSL_TARBALL)' deploy/packages/build-wolfssl $(WOLFSSL_PREFIX)

$(O)/%.o: %.c $(B)/.flags | $(WOLFSSL_LIB)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(O)/again/%.o: %.c $(B)/.flags | $(WOLFSSL_LIB)
	@mkdir -p $(@D)
	@echo "  CC    $< (again)"
	@$(CC) $(CPPFLAGS_ALL) -DHIKYAKU_PLANTS -include tests/sim/places.h \
	    $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# Files that lie in the program, which the compiler does not tell of.
$(O)/gateway/admin_page.o: $(wildcard gateway/page/*)

define archive
$(1): $(2) $(B)/.sources
	@echo "  AR    $$@"
	@rm -f $$@ && $$(AR) rcs $$@ $$(filter %.o,$$^)
endef
$(eval $(call archive,$(LIB),$(call obj,$(LIB_SRC))))
$(eval $(call archive,$(CTL_LIB),$(call obj,$(filter-out %/main.c,$(CTL_SRC)))))
$(eval $(call archive,$(BENCH_LIB),$(call obj,$(filter-out bench/main.c,$(BENCH_SRC)))))
$(eval $(call archive,$(TESTER_LIB),$(call obj,$(TESTER_SRC))))

link = @mkdir -p $(@D); echo "  LD    $@"; \
       $(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $(filter %.o %.a,$^)

$(B)/hikyaku: $(O)/gateway/main.o $(LIB)
	$(link) $(LIBS)
$(B)/hikyakuctl: $(O)/gateway/ctl/main.o $(CTL_LIB) $(LIB)
	$(link) $(LIBS)
$(B)/hikyaku-bench: $(O)/bench/main.o $(BENCH_LIB) $(LIB)
	$(link) $(LIBS)
$(B)/tests/unit/%: $(O)/tests/unit/%.o $(TESTER_LIB) $(CTL_LIB) $(BENCH_LIB) $(LIB)
	$(link) $(TEST_LD) $(LIBS) $(if $(TSAN),,-lcriterion)
$(B)/tests/unit/test_lane_direct: LDFLAGS += -Wl,--wrap=io_write_sync
$(B)/tests/unit/test_uring_writer: \
    LDFLAGS += -Wl,--wrap=pthread_create,--wrap=eventfd,--wrap=fdatasync,--wrap=uring_file_next
# All objects of the simulator come first: none of the real backend may be taken in their place.
$(B)/tests/sim/%: $(O)/tests/sim/%.o $(call obj,$(SIM_SRC)) $(TESTER_LIB) $(LIB)
	$(link) $(TEST_LD) $(LIBS) $(if $(TSAN),,-lcriterion)
$(B)/tests/sim/sim: LDFLAGS += -Wl,--wrap=mmap,--wrap=lane_open
$(B)/tests/sim/sim: $(call obj,$(SIM_MAIN) $(SIM_SRC)) $(call planted,$(PLANTED_SRC)) $(LIB)
	$(link) $(LIBS)
$(B)/tests/fuzz/%: $(O)/tests/fuzz/%.o $(LIB)
	$(link) $(LIBS)
$(B)/tests/trace/fill: $(O)/tests/trace/fill.o $(LIB)
	$(link) $(LIBS)
.SECONDARY:

# ---- tests ------------------------------------------------------------------------------------

# What also runs under SAN=thread: the parts that threads share.
TSAN_PARTS := ring event counter worker io_ uring shard log
has_part = $(strip $(foreach p,$(TSAN_PARTS),$(findstring $(p),$(notdir $(1)))))
TSAN_UNITS := $(foreach t,$(UNIT_BIN),$(if $(call has_part,$(t)),$(t)))

unit-build: $(UNIT_BIN)
tsan-build: $(TSAN_UNITS)

unit: $(UNIT_BIN) ## build and run the unit tests (T=queue: only those whose name has it)
	@tests/run --build $(B) --only '$(T)' unit

system: all $(if $(SAN),,sim-build) peers ## all system tests (SAN=address,undefined T=queue)
	@tests/run --build $(B) --only '$(T)' system

test: ## everything: packages, build, unit tests (also under sanitizers), style, system tests
	@$(MAKE) --no-print-directory -j$(JOBS) all unit-build sim-build peers
	@$(MAKE) --no-print-directory -j$(JOBS) SAN=address,undefined all unit-build
	@$(MAKE) --no-print-directory -j$(JOBS) SAN=thread all tsan-build
	@tests/run $(if $(AGAIN),--again) --only '$(T)' unit asan tsan tidy system

crash: all ## kill -9 under load and start again, ROUNDS times (default 200)
	@tests/crash/test_kill.py --rounds $(or $(ROUNDS),200)

cuts: all ## cut the power under load and start again, ROUNDS times (default 500; root)
	@tests/crash/test_cut.py --rounds $(or $(ROUNDS),500) $(if $(SUMMARY),--summary $(SUMMARY))

sim-build: $(B)/tests/sim/sim
sim: ## simulate SEEDS=n disasters [FIRST=k]; SEED=0x... repeats one; SWEEP=1: every single fault
	@$(MAKE) --no-print-directory -j$(JOBS) SAN='$(SAN)' sim-build
	@$(B)/tests/sim/sim --jobs $(JOBS) $(if $(AT),--at $(AT)) $(if $(BARE),--bare) \
	    $(if $(SWEEP),--sweep --seeds $(or $(SEEDS),120),$(if $(SEED),--seed $(SEED) --trace,\
	    --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),1))) $(if $(SITES),--sites)

.PHONY: trace-million
trace-million: all $(B)/tests/trace/fill ## trace over MESSAGES=n (a million), timed (FIRST=1)
	@tests/trace/million.py --build $(B) $(if $(MESSAGES),--messages $(MESSAGES)) \
	    $(if $(FIRST),--first)

.PHONY: scoreboard
scoreboard: all ## the same power cut for five other servers, CUTS times (default 3; root)
	@deploy/packages/fetch-peers postfix exim4-daemon-light opensmtpd chasquid || true
	@deploy/packages/fetch-haraka || true
	@tests/crash/scoreboard.py --cuts $(or $(CUTS),3)

.PHONY: bench-peers
bench-peers: ## unpack the mail servers that hikyaku-bench run --peers measures (bench/peers.md)
	@deploy/packages/fetch-peers postfix exim4-daemon-light opensmtpd chasquid
	@deploy/packages/fetch-haraka

CRASH_BIN := $(B)/tests/sim/test_bit_rot $(B)/tests/sim/test_crash_points
crash-points: $(CRASH_BIN) ## crash the spool at every point, change every byte of it (hours)
	@for t in $(CRASH_BIN); do CRASH_POINTS=all nice $$t --jobs $(JOBS) || exit 1; done

fuzz: ## run every fuzz target for FUZZ_TIME seconds (default 10)
	@$(MAKE) --no-print-directory -j$(JOBS) CC=clang SAN=fuzzer-no-link,address fuzz-build
	@for f in $(patsubst tests/fuzz/%.c,%,$(FUZZ_SRC)); do \
	    mkdir -p build/fuzz/corpus/$$f tests/fuzz/corpus/$$f; echo "  FUZZ  $$f"; \
	    dict=tests/fuzz/$$f.dict; \
	    build/fuzz/tests/fuzz/$$f -max_total_time=$(or $(FUZZ_TIME),10) \
	        -artifact_prefix=build/fuzz/$$f- \
	        $$([ ! -f $$dict ] || echo -dict=$$dict) build/fuzz/corpus/$$f tests/fuzz/corpus/$$f \
	        >build/fuzz/$$f.log 2>&1 || { tail -40 build/fuzz/$$f.log; exit 1; }; done
fuzz-build: $(FUZZ_BIN)

peers: ## unpack mail and name servers for the tests (nothing is installed)
	@deploy/packages/fetch-peers || echo "peers: some are missing; their tests will say so"
	@deploy/packages/fetch-npm || echo "peers: nodemailer is missing; its tests will say so"
	@deploy/packages/fetch-npm -page || echo "peers: jsdom is missing; its test will say so"

# What takes longer, or more to fetch, than belongs into `make test`. Continuous integration runs
# the first part.
deploy-check: all ## manifests and alert rules, by their own validators, and the image
	@deploy/packages/install test image
	@ALONE=1 deploy/packages/fetch-peers prometheus
	@deploy/packages/fetch-npm -kubernetes
	@tests/system/test_kubernetes.py
	@tests/system/test_monitoring.py
	@$(MAKE) --no-print-directory image-test

deploy-test: deploy-check ## deploy-check, a rolling restart, the package, the guide
	@deploy/packages/fetch-peers haproxy
	@tests/system/test_rolling.py
	@$(MAKE) --no-print-directory deb
	@tests/image/guide

.PHONY: handoff
handoff: all ## hand MESSAGES queued messages (default 100000) to two peers, with kills on the way
	@tests/handoff/run $(or $(MESSAGES),100000)

image-test: all ## build the container image without a registry, send mail through it (root)
	@deploy/packages/install image
	@tests/image/build
	@tests/image/test_image.py

fresh: ## try make test and make run in a fresh minimal system (root, debootstrap)
	@tests/fresh/run

# ---- layout and lint --------------------------------------------------------------------------

format: ## lay every C file out as .clang-format says
	@tests/lint format

lint: $(WOLFSSL_LIB) ## clang-format (check), clang-tidy, cppcheck
	@JOBS=$(JOBS) tests/lint check -I. -D_GNU_SOURCE -DHIKYAKU_VERSION='""' -std=gnu11 \
	    -I$(WOLFSSL_PREFIX)/include $(PKG_CFLAGS)

# ---- running and installing -------------------------------------------------------------------

run: ## build, then start a gateway on loopback with a mailbox sink behind it; Ctrl-C stops it
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@exec deploy/run-demo

install: all ## install programs, man pages, units, examples (PREFIX=/usr/local, DESTDIR=)
	@$(MAKE) --no-print-directory DEPS=skip install-files

# Of what is built already; B= says where.
install-files:
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) \
	    $(DESTDIR)$(DOCDIR)/examples
	install -m 755 $(B)/hikyaku $(DESTDIR)$(SBINDIR)/
	install -m 755 $(B)/hikyakuctl $(B)/hikyaku-bench $(DESTDIR)$(BINDIR)/
	for page in $(wildcard deploy/man/*.[1-8]); do \
	    install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/} || exit 1; done
	install -d $(DESTDIR)$(SHAREDIR)/bench/suite $(DESTDIR)$(SHAREDIR)/bench/scenarios
	install -m 644 bench/suite/*.py $(DESTDIR)$(SHAREDIR)/bench/suite/
	install -m 644 bench/scenarios/*.toml $(DESTDIR)$(SHAREDIR)/bench/scenarios/
	sed 's|@SBINDIR@|$(SBINDIR)|; s|@BINDIR@|$(BINDIR)|' deploy/systemd/hikyaku.service \
	    >$(DESTDIR)$(UNITDIR)/hikyaku.service
	chmod 644 $(DESTDIR)$(UNITDIR)/hikyaku.service
	install -D -m 644 deploy/completion/hikyakuctl \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/hikyakuctl
	install -m 644 deploy/systemd/hikyaku.socket $(DESTDIR)$(UNITDIR)/
	install -D -m 644 deploy/systemd/hikyaku.sysusers $(DESTDIR)$(SYSUSERSDIR)/hikyaku.conf
	install -D -m 644 deploy/systemd/hikyaku.tmpfiles $(DESTDIR)$(TMPFILESDIR)/hikyaku.conf
	install -m 644 deploy/examples/* $(DESTDIR)$(DOCDIR)/examples/

deb: ## build a Debian package below build/deb (lintian has nothing to say about it)
	@deploy/packages/install deb
	@JOBS=$(JOBS) VERSION=$(VERSION) WOLFSSL_PREFIX=$(abspath $(WOLFSSL_PREFIX)) deploy/debian/build

clean: ## remove what was built, but keep wolfSSL and peers
	@rm -rf build/obj build/asan build/tsan build/fuzz build/tests build/*.a build/.flags \
	    build/.sources build/hikyaku build/hikyakuctl build/hikyaku-bench

distclean: ## remove all that was built or fetched
	@rm -rf build run

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
	    printf '  %-11s %s\n' "$$name" "$$text"; done

-include $(shell find $(O) -name '*.d' 2>/dev/null)
