/*
 * gateway/base/sanitizers.h - which sanitizer this is compiled for: SANITIZES_ADDRESS,
 * SANITIZES_THREAD. gcc defines macros, clang answers __has_feature.
 */
#ifndef HIKYAKU_SANITIZERS_H
#define HIKYAKU_SANITIZERS_H

#if defined(__has_feature)
#define HAS_SANITIZER(name) __has_feature(name)
#else
#define HAS_SANITIZER(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || HAS_SANITIZER(address_sanitizer)
#define SANITIZES_ADDRESS 1
#endif
#if defined(__SANITIZE_THREAD__) || HAS_SANITIZER(thread_sanitizer)
#define SANITIZES_THREAD 1
#endif

#endif
