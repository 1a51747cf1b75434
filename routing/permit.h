/*
 * routing/permit.h - a site's limit of connections, shared by all shards (ARCHITECTURE.md 1.1).
 *
 * One shard, chosen by hash of the site, is its home and lends permits; every shard that delivers
 * to the site is a borrower and opens a connection only with a permit. Both sides are pure: time
 * is given, messages are plain values that the owner carries with io_post (or hands over directly
 * when home and borrower are the same shard). Messages may come late, twice or not at all.
 *
 * The rule that keeps the limit: home counts for a borrower the most it was ever told it may hold
 * and has not yet confirmed to have given up, or the connections it reported, whichever is more.
 */
#ifndef HIKYAKU_PERMIT_H
#define HIKYAKU_PERMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From borrower to home: its state. From home to borrower: a grant. The owner tells them apart. */
struct permit_message {
    uint64_t key;      /* of the site */
    uint32_t seq, ack; /* of this message; the newest of the other side's that was taken */
    uint16_t held;     /* state: permits held; grant: permits that may be held from now on */
    uint16_t used;     /* state: connections open; grant: unused */
    uint16_t waiting;  /* state: connections wanted beyond those; grant: unused */
    uint16_t max;      /* state: the site's limit; grant: not 0 when an answer is asked for */
};
/* Three numbers for struct ring_item's a, b and c, and back. */
void permit_pack(const struct permit_message *m, uint64_t out[3]);
void permit_unpack(const uint64_t in[3], struct permit_message *m);

/* ---- the borrower: one for each site of a shard ---- */

struct permit_borrower {
    uint64_t key;
    uint32_t max;               /* the site's limit, from the configuration */
    uint32_t held;              /* permits: so many connections may be open */
    uint32_t used, waiting;     /* connections open; wanted beyond them */
    struct permit_message said; /* the last state sent */
    uint32_t said_demand;
    uint32_t seq, acked; /* of the last state sent; of the last one home has seen */
    uint32_t grant;      /* last grant taken */
    bool answer_due;
    uint64_t sent_ns;
    uint64_t idle_ns; /* since when less was needed than is held or was asked for; 0: it is not */
};

/* `limit`: 0 means PERMIT_LIMIT_MAX. After a reload set b->max anew. */
void permit_borrower_init(struct permit_borrower *b, uint64_t key, uint32_t limit);
/* One connection may be opened now: true counts it. False: say permit_want, and wait for a grant.
 */
bool permit_take(struct permit_borrower *b) __attribute__((warn_unused_result));
/* A connection that permit_take allowed is closed. */
void permit_give(struct permit_borrower *b);
/* How many connections more there is work for just now (0: none). */
void permit_want(struct permit_borrower *b, uint32_t waiting);
/* More connections are open than may be: close one as soon as its message is done. */
bool permit_is_over(const struct permit_borrower *b);
/* A grant arrived. Afterwards permit_take may succeed. */
void permit_borrower_take_grant(struct permit_borrower *b, const struct permit_message *m);
/* Is there a state to send? Ask after each of the calls above, and at permit_borrower_next_ns. */
bool permit_borrower_poll(struct permit_borrower *b, uint64_t now_ns, struct permit_message *out)
    __attribute__((warn_unused_result));
/* UINT64_MAX: nothing to do until something changes. */
uint64_t permit_borrower_next_ns(const struct permit_borrower *b);
/* Holds nothing and owes nothing: it may be forgotten. */
bool permit_borrower_is_idle(const struct permit_borrower *b);

/* ---- the home: one for each site, at the shard its key leads to ---- */

struct permit_lent {
    uint32_t seen;     /* last state taken; 0: none yet */
    uint32_t grant;    /* last grant made */
    uint32_t answered; /* last grant that the borrower said it took */
    uint16_t granted;  /* what it says */
    uint16_t ceiling;  /* the most the borrower may believe it holds */
    uint16_t used, demand;
    bool send; /* a grant is to be sent */
    uint64_t sent_ns;
};

struct permit_home {
    uint64_t key, turn_ns;
    uint32_t limit, shard_count;
    uint32_t turn; /* the shard that is served first when there is not one for each */
    bool starving; /* somebody wants a connection and has none */
    struct permit_lent shards[];
};

/* Bytes to allocate for a home. */
size_t permit_home_size(uint32_t shard_count);
void permit_home_init(struct permit_home *h, uint64_t key, uint32_t limit, uint32_t shard_count);
/* A state arrived from shard `from`. */
void permit_home_take_state(struct permit_home *h, uint32_t from, const struct permit_message *m);
/* The next grant to send, or false. Ask until false after each state, and at permit_home_next_ns.
 */
bool permit_home_poll(struct permit_home *h, uint64_t now_ns, uint32_t *to,
                      struct permit_message *out) __attribute__((warn_unused_result));
uint64_t permit_home_next_ns(const struct permit_home *h);
/* Nothing is lent, nobody waits: it may be forgotten. */
bool permit_home_is_idle(const struct permit_home *h);

#endif
