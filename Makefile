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
GIT_COMMON := $(shell git rev-parse --path-format=absolute --git-common-dir 2>/dev/null)
WOLFSSL_PREFIX ?= $(if $(filter %/.git,$(GIT_COMMON)),$(GIT_COMMON:/.git=)/build/wolfssl,build/wolfssl)
WOLFSSL_LIB := $(WOLFSSL_PREFIX)/lib/libwolfssl.a

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man

# ---- sources ----------------------------------------------------------------------------------

wild = $(sort $(foreach d,$(1),$(wildcard $(d)/*.c $(d)/*/*.c)))

CTL_SRC    := $(call wild,gateway/ctl)
LIB_SRC    := $(filter-out gateway/main.c $(CTL_SRC),$(call wild,gateway queue tls routing))
BENCH_SRC  := $(call wild,bench)
TESTER_SRC := $(filter-out tests/unit/test_%.c,$(wildcard tests/unit/*.c))
SIM_SRC    := $(filter-out tests/sim/test_%.c,$(wildcard tests/sim/*.c))
UNIT_SRC   := $(sort $(wildcard tests/unit/test_*.c tests/sim/test_*.c))
FUZZ_SRC   := $(sort $(wildcard tests/fuzz/fuzz_*.c))

obj = $(patsubst %.c,$(O)/%.o,$(1))

PROGRAMS := $(if $(wildcard gateway/main.c),$(B)/hikyaku) \
            $(if $(wildcard gateway/ctl/main.c),$(B)/hikyakuctl) \
            $(if $(wildcard bench/main.c),$(B)/hikyaku-bench)
UNIT_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(UNIT_SRC))
FUZZ_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(FUZZ_SRC))

LIB     := $(B)/libhikyaku.a
CTL_LIB := $(B)/libctl.a
BENCH_LIB := $(B)/libbench.a
TESTER_LIB := $(B)/libtester.a
SIM_LIB := $(B)/libsim.a

# ---- compilers and flags ----------------------------------------------------------------------

ifeq ($(origin CC),default)
CC := gcc
endif
AR := ar
CC_MAJOR := $(firstword $(subst ., ,$(shell $(CC) -dumpversion 2>/dev/null)))
CC_CLANG := $(findstring clang,$(shell $(CC) --version 2>/dev/null))

# Warnings are errors with the compilers the project is tested with, and advice with others.
WERROR ?= $(if $(CC_CLANG),$(if $(filter 14,$(CC_MAJOR)),-Werror),$(if $(filter 12,$(CC_MAJOR)),-Werror))
LTO ?=

PKGS := liburing yaml-0.1 libunbound libmicrohttpd libcurl libidn2 jansson libcrypt
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS = $(shell pkg-config --libs $(PKGS) 2>/dev/null)

OPT := $(if $(SAN),-O1 -fno-omit-frame-pointer,-O2)
CPPFLAGS_ALL = -I. -D_GNU_SOURCE -DHIKYAKU_VERSION='"$(VERSION)"' -I$(WOLFSSL_PREFIX)/include $(PKG_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 $(OPT) -g -Wall -Wextra $(WERROR) -fPIE -pthread $(CFLAGS)
LDFLAGS_ALL = -pie -pthread -Wl,--as-needed,-z,relro,-z,now $(LDFLAGS)
LIBS = $(wildcard $(WOLFSSL_LIB)) $(PKG_LIBS) -lm

ifeq ($(SAN),)
CPPFLAGS_ALL += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
CFLAGS_ALL += -fstack-protector-strong -fstack-clash-protection
LIBS += -ljemalloc
else
CFLAGS_ALL += -fsanitize=$(SAN) $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined)
LDFLAGS_ALL += -fsanitize=$(SAN:fuzzer-no-link=fuzzer)
endif
ifneq ($(LTO),)
CFLAGS_ALL += -flto=auto
LDFLAGS_ALL += -flto=auto $(OPT)
AR := $(if $(CC_CLANG),llvm-ar,gcc-ar)
endif

# ---- rules ------------------------------------------------------------------------------------

.PHONY: all unit clean help

all: $(PROGRAMS) $(LIB)

FLAGS_NOW := $(CC) $(CFLAGS_ALL) $(CPPFLAGS_ALL) $(LDFLAGS_ALL)
$(shell mkdir -p $(B) && { [ "$$(cat $(B)/.flags 2>/dev/null)" = '$(subst ','"'"',$(FLAGS_NOW))' ] || \
    echo '$(subst ','"'"',$(FLAGS_NOW))' >$(B)/.flags; })

$(O)/%.o: %.c $(B)/.flags
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

define archive
$(1): $(2)
	@echo "  AR    $$@"
	@rm -f $$@ && $$(AR) rcs $$@ $$(filter %.o,$$^)
endef
$(eval $(call archive,$(LIB),$(call obj,$(LIB_SRC))))
$(eval $(call archive,$(CTL_LIB),$(call obj,$(filter-out %/main.c,$(CTL_SRC)))))
$(eval $(call archive,$(BENCH_LIB),$(call obj,$(filter-out bench/main.c,$(BENCH_SRC)))))
$(eval $(call archive,$(TESTER_LIB),$(call obj,$(TESTER_SRC))))
$(eval $(call archive,$(SIM_LIB),$(call obj,$(SIM_SRC))))

link = @mkdir -p $(@D); echo "  LD    $@"; \
       $(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $(filter %.o %.a,$^)

$(B)/hikyaku: $(O)/gateway/main.o $(LIB)
	$(link) $(LIBS)
$(B)/hikyakuctl: $(O)/gateway/ctl/main.o $(CTL_LIB) $(LIB)
	$(link) $(LIBS)
$(B)/hikyaku-bench: $(O)/bench/main.o $(BENCH_LIB) $(LIB)
	$(link) $(LIBS)
$(B)/tests/unit/%: $(O)/tests/unit/%.o $(TESTER_LIB) $(CTL_LIB) $(BENCH_LIB) $(LIB)
	$(link) $(LIBS) -lcriterion
$(B)/tests/sim/%: $(O)/tests/sim/%.o $(SIM_LIB) $(TESTER_LIB) $(LIB)
	$(link) $(LIBS) -lcriterion
$(B)/tests/fuzz/%: $(O)/tests/fuzz/%.o $(LIB)
	$(link) $(LIBS)
.SECONDARY:

unit: $(UNIT_BIN) ## build and run the unit tests
	@rc=0; for t in $(UNIT_BIN); do echo "  TEST  $$t"; $$t || rc=1; done; exit $$rc

clean: ## remove what was built, but keep wolfSSL and peers
	@rm -rf build/obj build/asan build/tsan build/fuzz build/tests build/*.a build/.flags \
	    build/hikyaku build/hikyakuctl build/hikyaku-bench

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

-include $(shell find $(O) -name '*.d' 2>/dev/null)
