/*
 * bench/limits.h - every bound of hikyaku-bench, in one place.
 *
 * What happens at a bound: the command refuses the option (exit 2), or the sink answers with the
 * reply named here. Nothing in bench/ grows without one of these.
 */
#ifndef HIKYAKU_BENCH_LIMITS_H
#define HIKYAKU_BENCH_LIMITS_H

#define BENCH_SESSION_COUNT_MAX       60000u     /* --sessions; refused with exit 2 */
#define BENCH_RCPT_COUNT_MAX          1000u      /* --rcpt-count; exit 2. Sink: 452 4.5.3 */
#define BENCH_RATE_MAX                1000000u   /* --rate; refused with exit 2 */
#define BENCH_SECONDS_MAX             86400u     /* --seconds, --hold */
#define BENCH_SECONDS_DEFAULT         10u        /* every run stops by itself */
#define BENCH_SECONDS_CAP_DEFAULT     600u       /* where --messages is given without --seconds */
#define BENCH_MESSAGE_SIZE_MAX        (1u << 30) /* --size */
#define BENCH_MESSAGE_SIZE_MIN        256u       /* the generated header must fit */
#define BENCH_LINE_SIZE_MAX           16384u     /* a command line; sink: 500 5.5.2 and close */
#define BENCH_REPLY_TEXT_MAX          2048u      /* kept text of one reply; the rest is dropped */
#define BENCH_REPLY_LINE_MAX          4096u      /* one reply line; longer is a protocol error */
#define BENCH_HEADER_SIZE_MAX         65536u     /* header block kept for --record */
#define BENCH_RULE_COUNT_MAX          64u        /* scripted rules of the sink */
#define BENCH_LISTENER_COUNT_MAX      16u        /* --bind */
#define BENCH_IO_SIZE                 (256u * 1024u) /* one read */
#define BENCH_CHUNK_MAX               (256u * 1024u) /* one send of a body; --chunk */
#define BENCH_CHUNK_MIN               1024u
#define BENCH_TLS_OUT_MAX             (256u * 1024u) /* ciphertext waiting for the socket */
#define BENCH_GRACE_MS                5000u  /* after the end of a run, for messages in flight */
#define BENCH_IDLE_TIMEOUT_MS_DEFAULT 30000u /* no progress on a session: an error */
#define BENCH_SOURCE_IP_MAX           250u   /* --source-ips: 127.0.1.1 .. 127.0.1.250 */
#define BENCH_PROC_COUNT_MAX          4096u  /* processes of one server */

#endif
