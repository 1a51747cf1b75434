/*
 * tests/unit/test_tls_locks.c - no lock on the message path: a handshake, reads and writes take no
 * mutex.
 *
 * The test's own pthread_mutex_lock and its kin stand before libc's. They count calls that come
 * from this program (wolfSSL and our code are linked into it), and not those of the allocator or of
 * Criterion, which are shared libraries.
 */
#include <criterion/criterion.h>

#include "gateway/base/sanitizers.h"

#if !defined(SANITIZES_ADDRESS) && !defined(SANITIZES_THREAD)

#include <dlfcn.h>
#include <pthread.h>

#include "tests/unit/tls_pair.h"

extern const char __executable_start, etext;
static _Thread_local uint64_t lock_count;

#define COUNTED(name, type)                                  \
    __attribute__((noinline)) int name(type *lock);          \
    int name(type *lock)                                     \
    {                                                        \
        static int (*real)(type *);                          \
        const char *from = __builtin_return_address(0);      \
        if (!real)                                           \
            real = (int (*)(type *))dlsym(RTLD_NEXT, #name); \
        if (from >= &__executable_start && from < &etext)    \
            lock_count++;                                    \
        return real(lock);                                   \
    }

COUNTED(pthread_mutex_lock, pthread_mutex_t)
COUNTED(pthread_mutex_trylock, pthread_mutex_t)
COUNTED(pthread_rwlock_rdlock, pthread_rwlock_t)
COUNTED(pthread_rwlock_wrlock, pthread_rwlock_t)

static const uint8_t ticket_key[48] = "forty-eight bytes that all shards have in common";

static void exchange(struct tls_pair *p)
{
    static const uint8_t data[50000];
    cr_assert(pair_handshake(p), "%s / %s", p->client_why.text, p->server_why.text);
    cr_assert(pair_transfer(p, false, slice_of(data, sizeof data)));
    cr_assert(pair_transfer(p, true, slice_of(data, sizeof data)));
}

Test(tls_locks, the_counter_counts)
{
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    uint64_t before = lock_count;
    pthread_mutex_lock(&m);
    pthread_mutex_unlock(&m);
    cr_assert_eq(lock_count, before + 1);
}

Test(tls_locks, none_on_the_message_path)
{
    static const char *const ids[] = {"mail", "other"};
    for (int i = 0; i < 2; i++) {
        struct tls_pair p;
        struct tls_identity id = pair_identity(ids[i]);
        struct tls_server_params s = pair_server_params(&id);
        struct tls_client_params c = pair_client_params(i == 0);
        s.ticket_key = ticket_key;
        pair_init(&p, &s, &c);
        for (int tls12 = 0; tls12 < 2; tls12++) {
            uint64_t before = lock_count;
            pair_connect(&p, "mail.example.test");
            if (tls12)
                pair_force_tls12(&p);
            exchange(&p);
            struct tls_session *session = tls12 ? NULL : tls_session_get(p.client);
            if (session) { /* and once more, resumed */
                pair_connect(&p, "mail.example.test");
                cr_assert(tls_session_set(p.client, session));
                exchange(&p);
                tls_session_free(session);
            }
            pair_disconnect(&p);
            cr_assert_eq(lock_count, before, "TLS 1.%d, %s: %llu locks", tls12 ? 2 : 3, ids[i],
                         (unsigned long long)(lock_count - before));
        }
        pair_free(&p);
    }
}

#endif
