/*
 * gateway/base/plant.h - bugs planted on purpose, to see whether the simulator finds them.
 *
 * In every build of the product PLANT(X) is the constant 0 and costs nothing. Only the simulator's
 * own objects are compiled with -DHIKYAKU_PLANTS (Makefile: PLANTED_SRC); there one of them can be
 * switched on for a run. tests/sim/README.md lists them with the rule that each breaks.
 */
#ifndef HIKYAKU_BASE_PLANT_H
#define HIKYAKU_BASE_PLANT_H

/* name, what it breaks */
#define PLANTS(X)                                                                 \
    X(ANSWER_BEFORE_SYNC, "250 is answered after the write, without a sync")      \
    X(NO_CRC, "payloads are believed without a look at their CRC")                \
    X(RETRY_SYNC, "a failed sync is tried again, and its second answer believed") \
    X(SHORT_WRITE, "a write that came out short counts as whole")                 \
    X(FORGET_STASH, "what a failed commit had to say is not said again")          \
    X(TOMBSTONE_EARLY, "tombstones go although older copies are still there")     \
    X(NO_DIR_SYNC, "a segment is used before its name is on disk")                \
    X(LOSE_RCPT, "a deferral makes the last of several recipients final")         \
    X(REMOVED_IN_MEMORY, "the operator's removal is not written")                 \
    X(NO_ADOPTION, "lanes of shards that are no more are not looked at")          \
    X(OTHER_BODY, "the body of another message is sent")                          \
    X(KEEP_DOTS, "dots at the start of a line are not doubled on the way out")    \
    X(ANSWER_TWICE, "a message that was taken is answered twice")                 \
    X(DELIVER_TWICE, "the recipients of a message are handed to two connections") \
    X(EAGER_FINAL, "a connection lost behind the dot counts as delivered")        \
    X(DSN_APART, "a report and the end of what it reports are two records")       \
    X(NULL_SENDER_DSN, "a failure is reported to the null sender")                \
    X(NOTIFY_IGNORED, "reports are sent whatever NOTIFY says")                    \
    X(PERMIT_LEAK, "a connection that could not be made keeps its permit")        \
    X(PERMIT_FREE, "connections are opened without a permit")                     \
    X(SESSION_LEAK, "a transaction cut off in its data is never freed")

enum plant {
    PLANT_NONE,
#define X(name, text) PLANT_##name,
    PLANTS(X)
#undef X
        PLANT_COUNT
};

#ifdef HIKYAKU_PLANTS
extern enum plant plant_now;
#define PLANT(name) (plant_now == PLANT_##name)
#else
#define PLANT(name) 0
#endif

#endif
