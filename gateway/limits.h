/*
 * gateway/limits.h - every count, size and time of the gateway, with the answer given when it is
 * hit.
 *
 * A limit that an operator may change has its default here and its key in gateway/config_table.c.
 */
#ifndef HIKYAKU_LIMITS_H
#define HIKYAKU_LIMITS_H

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull
#define KIB       1024ull
#define MIB       (1024ull * 1024)
#define GIB       (1024ull * 1024 * 1024)

/* ---- SMTP in (RFC 5321 section 4.5.3.1) ---- */
#define SMTP_COMMAND_LINE_MAX \
    2048u /* command line with CRLF; longer: 500 5.5.2, the tail is discarded unparsed */
#define SMTP_AUTH_LINE_MAX \
    12288u /* RFC 4954 section 4: base64 line of an AUTH exchange; longer: 500 5.5.6 */
#define SMTP_LINE_DISCARD_MAX  (1u << 20) /* of one overlong line; more: 421 4.7.0 and close */
#define SMTP_PATH_MAX          254u       /* without <>; longer: 501 5.1.7 (MAIL), 5.1.3 (RCPT) */
#define SMTP_LOCAL_PART_MAX    64u
#define SMTP_DOMAIN_MAX        255u
#define SMTP_LABEL_MAX         63u
#define SMTP_ENVID_MAX         100u /* RFC 3461 section 4.4: 501 5.5.4 */
#define SMTP_ORCPT_MAX         500u
#define SMTP_TEXT_LINE_MAX     65536u /* body line; longer: 550 5.6.0 after the end of data */
#define SMTP_HEADER_BYTES_MAX  (256u * 1024) /* 552 5.3.4 after the end of data */
#define SMTP_HEADER_FIELDS_MAX 2000u         /* 552 5.3.4 after the end of data */
#define SMTP_FIELD_NAME_MAX    127u   /* bytes of a header line in which its colon is looked for */
#define SMTP_SUBJECT_MAX       128u   /* bytes of Subject kept for operators; the rest is cut */
#define SMTP_MESSAGE_ID_MAX    200u   /* bytes of Message-ID kept for tracking; the rest is cut */
#define SMTP_RECEIVED_MAX      50u    /* 554 5.4.6 after the end of data */
#define SMTP_BAD_COMMANDS_MAX  10u    /* in a row or in all without a message: 421 4.7.0 */
#define SMTP_NOOP_MAX          100u   /* commands without progress between messages: 421 4.7.0 */
#define SMTP_RCPT_REJECTED_MAX 50u    /* refused recipients in one session: 421 4.7.0 */
#define SMTP_RCPT_SEEN_MAX     20000u /* RCPT commands in one transaction: 421 4.7.0 */
#define SMTP_AUTH_FAILED_MAX   3u     /* 421 4.7.0 */
#define PROXY_HEADER_MAX       2048u  /* with all its fields; longer: close */
#define SMTP_REPLY_LINE_MAX    512u   /* what we send, RFC 5321 section 4.5.3.1.5 */

/* ---- SMTP out ---- */
#define SMTP_OUT_REPLY_LINE_MAX  4096u /* 4.5.0, close */
#define SMTP_OUT_REPLY_BYTES_MAX 65536u
#define SMTP_OUT_REPLY_LINES_MAX 128u
#define SMTP_OUT_REPLY_KEPT_MAX  512u /* of a reply, kept for queue sites, tracking, DSN */

#define SMTP_OUT_ROOM_MIN       2048u /* an empty output buffer of smtp_out holds at least this */
#define SMTP_OUT_COMMAND_MAX    1024u /* room that one command of an envelope needs */
#define SMTP_OUT_AUTH_STEPS_MAX 4u    /* challenges of one AUTH; more: 4.7.0, close */

/* ---- header lines and reports that we write ---- */
#define TRACE_COLUMNS      78u  /* RFC 5322 section 2.1.1 */
#define TRACE_NAME_MAX     255u /* of a name in a trace line; the rest is cut */
#define TRACE_RECEIVED_MAX 2048u
#define DSN_TEXT_MAX       512u         /* another host's words in a report; the rest is cut */
#define DSN_ROOM_MIN       4096u        /* an empty buffer for dsn_write() holds at least this */
#define DSN_FULL_MAX       (1024 * KIB) /* larger originals come back as headers only */
#define DSN_HEADERS_MAX    (64 * KIB)   /* of the original's headers; the rest is cut at a line */

/* ---- sessions ---- */
#define SESSION_RECV_BUF_SIZE       (16u * 1024)
#define SESSION_RECV_BUF_COUNT      1024u /* per shard: 16 MiB; all held: receiving waits */
#define RECV_BUNDLE                 4u    /* buffers that a receive may fill at once */
#define RECV_BULK_AFTER             8u    /* full buffers in a row: an upload, read in turns */
#define RECV_BULK_TURNS             8u    /* uploads that are read in one turn of the loop */
#define RECV_BULK_SPARE             4u /* one part in so many of the buffers is not for uploads */
#define SESSION_OUT_BUF_SIZE        (8u * 1024) /* replies not yet sent; full: reading stops */
#define SESSION_COUNT_MAX           20000u      /* per shard, default; more: 421 4.7.0 and close */
#define SESSION_PER_ADDRESS_MAX     1000u /* per shard and client address, default: 421 4.7.0 */
#define SESSION_IDLE_NS             (300 * NS_PER_S) /* idle_timeout, RFC 5321: 421 4.4.2 */
#define SESSION_TLS_HANDSHAKE_NS    (30 * NS_PER_S)  /* close */
#define SESSION_PROXY_NS            (5 * NS_PER_S)   /* PROXY header, required: close */
#define SESSION_PROXY_WAIT_NS       (2 * NS_PER_S)   /* not required: no header will come */
#define SESSION_DATA_RATE_MIN       500u /* bytes a second over DATA_RATE_WINDOW; less: 421 4.4.2 */
#define SESSION_DATA_RATE_WINDOW_NS (60 * NS_PER_S) /* idle_timeout if that is less */
#define SESSION_LINGER_NS \
    (2 * NS_PER_S) /* after our close: time for the peer to read the last reply */
#define SESSION_COMMIT_WAIT_NS                                                                    \
    (15 * NS_PER_S) /* for the disk, at the end of data: 451 4.3.0, at MAIL and DATA from then on \
                     */
#define SESSION_LAST_REPLY_NS (30 * NS_PER_S) /* for the peer to take it; then: close */

#define LISTEN_BACKLOG 4096

/* Descriptors of a shard: what LimitNOFILE leaves goes to sessions, a quarter to next hops. */
#define FD_WANTED           (SESSION_COUNT_MAX + OUT_HOPS_MAX + FD_OTHER)
#define FD_OTHER            256u /* files, listeners, name servers */
#define FD_SHARE_MIN        64u  /* a quarter, whatever the limit says */
#define SESSION_REFUSE_ROOM 64u  /* the last sessions are refused (421): the others are closed */

/* ---- envelope, transactions ---- */
#define ARENA_BLOCK_SIZE         1024u      /* most envelopes need a third of it */
#define ENVELOPE_BLOCKS_MAX      2048u      /* 2 MiB of envelope: 452 4.5.3 at RCPT */
#define ARENA_BLOCKS_MAX         1048576u   /* 1 GiB of envelopes per shard: 452 4.3.1 */
#define RCPT_COUNT_MAX           500u       /* default of max_recipients: 452 4.5.3 */
#define RCPT_COUNT_LIMIT         20000u     /* what max_recipients may be set to */
#define MESSAGE_SIZE_MAX_DEFAULT (35 * MIB) /* 552 5.3.4 */

/* ---- TLS: past any of these the handshake or the connection ends (an alert where one can still be
 * sent, then close) ---- */
#define TLS_HELLO_BYTES_MAX       16384u  /* a ClientHello with its record headers */
#define TLS_HELLO_RECORDS_MAX     16u     /* records it may be spread over */
#define TLS_HANDSHAKE_BYTES_MAX   131072u /* received before the handshake is done */
#define TLS_HANDSHAKE_RECORDS_MAX 512u
#define TLS_IDLE_RECORDS_MAX      32u       /* in a row without data: KeyUpdate, empty ones */
#define TLS_IDENTITY_MAX          1024u     /* certificates of one receive connector */
#define TLS_NAMES_MAX             1024u     /* names of one certificate that are looked at */
#define TLS_MEMORY_MIN            (1 * MIB) /* of tls_memory: contexts and a few sessions */
#define TLS_TICKET_SECONDS        7200u     /* how long a session can be resumed */

/* ---- spool ---- */
#define SEGMENT_BYTES_DEFAULT (64 * MIB)
#define SEGMENT_BYTES_MIN     (256 * KIB) /* what tests may go down to */
#define SPOOL_CHUNK_SIZE \
    (32u *               \
     1024) /* body bytes a transaction holds in memory; a larger body is written out in extents */
#define COMMIT_BUF_SIZE \
    (4 * MIB) /* one commit; a second one fills while it is written. Both full: sessions wait */
#define COMMIT_EXTENT_MIN     (1 * MIB) /* parts of large bodies in one commit: queue/pace.h */
#define COMMIT_EXTENT_MAX     (COMMIT_BUF_SIZE / 4 * 3)
#define COMMIT_PART_BYTES     (1 * MIB)  /* of bodies in a write that few wait for, or nobody */
#define COMMIT_SHARED_MIN     8u         /* messages in a commit: more than few */
#define COMMIT_UNSYNCED_MAX   (16 * MIB) /* of bodies without an end, written before a sync */
#define COMMIT_AIM_NS         (4 * NS_PER_MS) /* what a commit with such parts is to take */
#define COMMIT_WAITERS_MAX    8192u
#define WRITER_SLICE_NS       (NS_PER_MS / 10) /* of the thread that writes commits and syncs */
#define SPOOL_TX_MAX          20000u     /* transactions with data under way, per lane: 452 4.3.1 */
#define SPOOL_MESSAGES_MAX    100000000u /* queued in a lane: 452 4.3.1 */
#define SPOOL_SYNC_FAILED_MAX 2u         /* in a row: the lane stops accepting */
#define SPOOL_RESERVE_BYTES   (16 * MIB) /* kept free for state records and DSNs */

#define SPOOL_CLOSE_WAIT_NS \
    (10 * NS_PER_S) /* a drain waits so long for a disk that takes nothing: dup_possible */

#define SPOOL_PINNED_BYTES_MAX \
    (4 * GIB) /* kept by one upload when room is short, without spool.max_size: 452 4.3.1 */

/* Back pressure begins with so much left; MEDIUM delays answers to MAIL, HIGH: 452 4.3.1. */
#define PRESSURE_DISK_MEDIUM   (64 * MIB)
#define PRESSURE_DISK_HIGH     (8 * MIB)
#define PRESSURE_INODES_MEDIUM 64u
#define PRESSURE_INODES_HIGH   16u

#define SPOOL_SHARD_BYTES_MIN (2 * SEGMENT_BYTES_DEFAULT) /* of spool.max_size, for each shard */

#define EXPORT_MAX     (256 * MIB) /* a message that queue export gives out; larger: 500 */
#define INSTANCE_LEN   8u          /* letters of the name that tells spools apart */
#define LANE_COUNT_MAX 1024u       /* lanes of one spool */

/* ---- delivery ---- */
#define OUT_CONNECT_NS                      (30 * NS_PER_S)
#define OUT_GREETING_NS                     (300 * NS_PER_S) /* RFC 5321 section 4.5.3.2 */
#define OUT_COMMAND_NS                      (300 * NS_PER_S)
#define OUT_DATA_INIT_NS                    (120 * NS_PER_S)
#define OUT_DATA_BLOCK_NS                   (180 * NS_PER_S)
#define OUT_FINAL_DOT_NS                    (600 * NS_PER_S)
#define OUT_AHEAD_NS                        (2 * NS_PER_S) /* dot answered later: see hop_task.c */
#define OUT_IDLE_KEEP_NS                    (5 * NS_PER_S) /* an idle connection is kept so long */
#define OUT_QUIT_NS                         (5 * NS_PER_S)
#define OUT_IN_CLEAR_NS                     (600 * NS_PER_S) /* TLS failed: done without so long */
#define OUT_BODY_READ_SIZE                  (64u * 1024)
#define OUT_WIRE_BUF_SIZE                   (72u * 1024) /* bytes to a next hop, not sent yet */
#define OUT_HOPS_MAX                        8192u /* outbound connections per shard; more wait */
#define OUT_CONNECTIONS_DEFAULT             20u   /* per send connector and site */
#define OUT_MESSAGES_PER_CONNECTION_DEFAULT 100u
#define OUT_RCPTS_PER_MESSAGE_DEFAULT       100u
#define JOBS_ACTIVE_MAX \
    20000u /* messages with an envelope in memory, per shard; more wait in the index */
#define ENVELOPE_READS_MAX \
    64u /* of those, read at a time: sending goes on meanwhile; more wait in the backlog */
#define SUSPECTS_ACTIVE_MAX \
    8u /* messages that the next crash would set aside, tried at a time per shard; more wait */
#define DEAD_LETTERS_MAX \
    10000u /* held in a lane; failed mail without a sender is then counted and dropped */
#define HANDOFF_PEERS_MAX    64u
#define HANDOFF_ID_MAX       40u                /* "instance/queue id" */
#define HANDOFF_TEXT_MAX     (4u * 1024 * 1024) /* a message's state as text; more: it stays */
#define HANDOFF_ACTIVE_MAX   128u    /* messages being handed over at a time, per shard */
#define HANDOFF_PREPARED_MAX 100000u /* messages handed over and not yet ours; more: 452 4.3.1 */
#define SITE_COUNT_MAX       100000u /* per shard; more: deferred 4.3.1 */

/* ---- DNS ---- */
#define DNS_MX_MAX     32u /* considered of one answer, best first */
#define DNS_ADDR_MAX   16u /* per host */
#define DNS_TIMEOUT_NS (5 * NS_PER_S)
#define DNS_LOOKUPS_MAX \
    4096u /* under way per shard, those given up but not yet ended included: deferred 4.4.3 */
#define DNS_SOCKETS_MAX 128u /* UDP sockets of a shard's resolver; more questions wait for one */

/* ---- next hops ---- */
#define SITE_BACKOFF_MIN_NS \
    (5 * NS_PER_S) /* a host that failed is left alone, then twice as long */
#define SITE_BACKOFF_MAX_NS (600 * NS_PER_S)
#define SITE_PROBE_WAIT_NS  (1 * NS_PER_S) /* asked again while a probe is under way */
#define SITE_DOWN_FAILURES  2u             /* failures in a row until routing takes the next cost */
#define SITE_UP_SUCCESSES   2u /* greetings in a row until a host that was down is healthy again */

#define INTERFACES_MAX 1024u /* addresses of this machine that are known as ourselves */

/* ---- permits ---- */
#define PERMIT_LIMIT_MAX 65535u         /* connections to one site, all shards together */
#define PERMIT_IDLE_NS   (2 * NS_PER_S) /* a permit unused for so long goes back */
#define PERMIT_RESEND_NS (1 * NS_PER_S) /* without an answer: said again */
#define PERMIT_TURN_NS   (2 * NS_PER_S) /* more shards than permits: each has one for so long */

/* ---- AUTH ---- */
#define AUTH_WORKERS           2u
#define AUTH_QUEUE_MAX         4096u  /* checks waiting for a worker: 454 4.7.0 */
#define AUTH_CACHE_ENTRIES     65536u /* per shard; oldest goes */
#define AUTH_CACHE_NS          (600 * NS_PER_S)
#define AUTH_USER_MAX          255u
#define AUTH_PASSWORD_MAX      1024u
#define AUTH_RUNNING_BUCKETS   64u      /* lists in which equal checks are looked for */
#define AUTH_LIMIT_ENTRIES     32768u   /* per shard; the one that says least goes */
#define AUTH_FAIL_DELAY_NS     NS_PER_S /* a 535 is so late for each failure in a session */
#define AUTH_FAIL_DELAY_MAX_NS (10 * NS_PER_S)
#define AUTH_FAILED_FREE       10u /* failures from an address or at an account: turns */
#define AUTH_FAILED_COUNT_MAX  100u
#define AUTH_FORGIVE_NS        (60 * NS_PER_S) /* one failure is forgotten */
#define AUTH_TURN_NS           NS_PER_S        /* between two attempts, then twice as far */
#define AUTH_TURN_DOUBLINGS    5u
#define AUTH_TURN_WAIT_MAX_NS  (30 * NS_PER_S)         /* for a turn; longer: 421 4.7.0 */
#define AUTH_PAIR_NS           (30 * 86400 * NS_PER_S) /* a login from an address is remembered */
#define USERS_FILE_MAX         (64 * MIB) /* the users file; larger: refused at start and reload */
#define RECIPIENTS_FILE_MAX    (64 * MIB) /* the same for a list of recipients */
#define USERS_SENDERS_MAX      1000u      /* addresses one account may send as */

/* ---- threads ---- */
#define SHARD_COUNT_MAX 64u
#define IO_QUEUE_DEPTH  4096u
#define RING_ITEMS \
    4096u /* per ordered pair; full: the sender keeps its item and tries again next turn */
#define LOG_RING_BYTES (1u << 20) /* per shard; full: the line is dropped and counted */
#define LOG_LINE_MAX   4096u

/* ---- metrics ---- */
#define SERIES_CONNECTORS_MAX                                                                      \
    64u                            /* of each kind, with series of their own; others are summed up \
                                    */
#define QUEUE_AGE_SLICE_MIN 5000u  /* messages whose age is looked at a second and shard */
#define QUEUE_AGE_SLICE_MAX 20000u /* the same, of a deep queue */

/* ---- protocol log ---- */
#define TRANSCRIPT_LINE_MAX \
    1024u /* bytes of a line of a dialog that are shown; the rest is counted */
#define TRANSCRIPT_SHOWN_MAX (4 * TRANSCRIPT_LINE_MAX + 64) /* the same, escaped */
#define PROTOCOL_LINE_MAX    (TRANSCRIPT_SHOWN_MAX + 1024)
#define PROTOCOL_RING_BYTES  (1u << 20) /* per shard; full: lines are dropped, counted, told */
#define PROTOCOL_WATCHES_MAX 4096u      /* connections logged at a time, per shard; more are not */
#define PROTOCOL_TARGETS_MAX 32u        /* clients and connectors watched by hand at a time: 409 */
#define PROTOCOL_FOR_S       600u       /* a client is watched so long unless told otherwise */
#define PROTOCOL_FOR_MAX_S   86400u

/* ---- configuration: past any of these it is refused, with file, line and column ---- */
#define CONFIG_FILE_MAX          (1 * MIB) /* one file */
#define CONFIG_INCLUDES_MAX      64u       /* files in all */
#define CONFIG_INCLUDE_DEPTH_MAX 8u
#define CONFIG_NODES_MAX         500000u   /* keys and values, aliases expanded */
#define CONFIG_TEXT_NODE         64u       /* bytes of a value that count as one more of them */
#define CONFIG_DEPTH_MAX         16u       /* maps and lists inside each other */
#define CONFIG_KEYS_MAX          100u      /* keys of one map */
#define CONFIG_ANCHORS_MAX       1000u     /* anchors (&name) of one file */
#define CONFIG_TEXT_MAX          4096u     /* one value, ${ENV} expanded */
#define CONFIG_NAME_MAX          64u       /* of a connector */
#define CONFIG_PEM_MAX           (1 * MIB) /* a certificate chain or a key */
#define CONFIG_SECRET_MAX        4096u     /* a password or token file */
#define CONFIG_CONNECTORS_MAX    1000u     /* of each kind */
#define SWITCHES_MAX             2048u     /* connectors suspended or disabled by hand: 500 */
#define CONFIG_LIST_MAX          1000u     /* entries of most lists */
#define CONFIG_SPACES_MAX        100000u   /* address spaces of one connector, accepted domains */

#endif
