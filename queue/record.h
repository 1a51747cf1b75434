/*
 * queue/record.h - the bytes of segments and records; queue/FORMAT.md sections 2 and 3. No I/O, no
 * heap.
 *
 * Writers build a record in place: header space, payload behind it, record_seal last. Readers trust
 * nothing: record_check and the record_*_decode functions bound every length against what is really
 * there.
 */
#ifndef HIKYAKU_QUEUE_RECORD_H
#define HIKYAKU_QUEUE_RECORD_H

#include "gateway/base/slice.h"
#include "gateway/limits.h"

#define FORMAT_VERSION     3u /* written; 1 and 2 are read as well */
#define RECORD_ALIGN       16u
#define RECORD_HEADER_SIZE 32u
#define RECORD_BYTES_MAX   ((uint32_t)(3 * MIB))
#define SEGMENT_BLOCK      4096u /* header and footer; alignment of direct writes */
#define SEGMENT_HEADER_LEN 2048u /* one of two copies */
#define QID_BLOCK          (1ull << 28)
#define QID_SEQUENCE_BITS  54
#define QID_SEQUENCE_MASK  ((1ull << QID_SEQUENCE_BITS) - 1)
#define SUMMARY_BYTES_MAX  ((uint32_t)(256 * KIB)) /* of one SUMMARY record */
#define FINAL_WORDS_MAX    ((RCPT_COUNT_LIMIT + 63u) / 64u)
#define ERROR_BYTES_MAX    SMTP_OUT_REPLY_KEPT_MAX

enum record_type {
    RECORD_MESSAGE = 1,
    RECORD_EXTENT = 2,
    RECORD_RCPT_FINAL = 3,
    RECORD_DEFER = 4,
    RECORD_STATE = 5,
    RECORD_MOVED = 6,
    RECORD_NOTE = 7,
    RECORD_SUMMARY = 8,
    RECORD_PAD = 9,
    RECORD_ATTEMPT = 10,
    RECORD_TYPE_END
};

struct segment_header {
    char magic[8]; /* HIKYSEG1 */
    uint32_t crc;  /* over SEGMENT_HEADER_LEN bytes, this field zero */
    uint32_t version;
    uint32_t lane;
    uint32_t id;
    uint64_t salt;
    uint64_t segment_bytes;
    uint64_t qid_limit;
};
_Static_assert(sizeof(struct segment_header) == 48, "on disk");

struct segment_footer {
    char magic[8]; /* HIKYEND1 */
    uint32_t crc;  /* seeded, over SEGMENT_BLOCK bytes, this field zero */
    uint32_t summary_offset;
    uint32_t summary_count;
    uint32_t data_end;
    uint32_t record_count;
    uint32_t closed; /* 1: sealed because the lane was closed; 0 in version 1 */
};
_Static_assert(sizeof(struct segment_footer) == 32, "on disk");

struct record_header {
    uint32_t header_crc;
    uint32_t payload_crc;
    uint32_t length;
    uint8_t type, flags;
    uint16_t batch;
    uint64_t sequence;
    uint64_t qid;
};
_Static_assert(sizeof(struct record_header) == RECORD_HEADER_SIZE, "on disk");

enum record_attempt {
    RECORD_ATTEMPT_OPEN = 1, /* an attempt is under way */
    RECORD_ATTEMPT_DOT = 2   /* a next hop may have got all of it, and no answer was noted */
};

/* A snapshot of a message's state; `final_words` words of bitmap and the error text follow. */
struct record_state {
    uint64_t qid;
    uint64_t next_attempt_wall_s;
    uint64_t wall_s; /* when it was written */
    uint32_t rcpt_count;
    uint16_t final_words; /* 0 when gone */
    uint16_t error_len;
    uint16_t attempts;
    uint8_t state; /* enum queue_state */
    uint8_t how;   /* enum rcpt_final_how, 0: none */
    uint8_t gone;
    uint8_t warned;  /* the sender was told of the delay */
    uint8_t attempt; /* bits of enum record_attempt; 0 in version 1 */
    uint8_t crashes; /* attempts in a row that ended in a crash, before this one */
    /* Where an older error text may still be found (only a hint); segment 0: nowhere. */
    uint32_t error_segment, error_offset;
};
_Static_assert(sizeof(struct record_state) == 48, "on disk");

struct record_message {
    uint64_t body_size;
    uint64_t accepted_wall_s;
    uint32_t rcpt_count;
    uint32_t envelope_len;
    uint32_t extent_count;
    uint32_t chunk; /* body bytes of every extent */
    uint32_t tail_len;
    uint32_t first_segment; /* of the first extent; this segment when there is none */
    uint32_t final_len;     /* bytes of another message's state block, 0: none */
    uint32_t state_len;     /* MOVED: bytes of its own state block */
};
_Static_assert(sizeof(struct record_message) == 48, "on disk");

struct lane_extent {
    uint32_t segment, offset;
};
_Static_assert(sizeof(struct lane_extent) == 8, "on disk");

struct record_extent {
    uint64_t body_offset;
    uint32_t len;
    uint32_t spare;
};
_Static_assert(sizeof(struct record_extent) == 16, "on disk");
#define EXTENT_RECORD_BYTES \
    ((uint32_t)(RECORD_HEADER_SIZE + sizeof(struct record_extent) + SPOOL_CHUNK_SIZE))
_Static_assert(EXTENT_RECORD_BYTES % RECORD_ALIGN == 0, "needs no filling");

/* `digest` bytes follow: message_digest and state blocks, or a state block without its error. */
struct summary_entry {
    uint32_t offset;
    uint32_t record_length;
    uint32_t entry_length; /* with this struct; a multiple of 8 */
    uint8_t type;
    uint8_t spare[3];
    uint64_t qid;
};
_Static_assert(sizeof(struct summary_entry) == 24, "on disk");

struct message_digest {
    uint64_t body_size;
    uint64_t accepted_wall_s;
    uint32_t rcpt_count;
    uint32_t first_segment;
    uint32_t final_len;
    uint32_t state_len;
};
_Static_assert(sizeof(struct message_digest) == 32, "on disk");

static inline uint32_t record_round(uint64_t len)
{
    return (uint32_t)((len + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1));
}

static inline uint32_t record_round8(uint32_t len)
{
    return (len + 7u) & ~7u;
}

/* ---- segments ---- */

uint32_t segment_seed(uint64_t salt, uint32_t id, uint32_t lane);

/* Fills SEGMENT_BLOCK bytes with both copies. */
void segment_header_encode(const struct segment_header *h, uint8_t block[SEGMENT_BLOCK]);

enum segment_header_result {
    SEGMENT_HEADER_GOOD,
    SEGMENT_HEADER_ONE_COPY, /* good, but one copy is damaged */
    SEGMENT_HEADER_BAD,
    SEGMENT_HEADER_FUTURE /* a format we do not know; `out` has the version */
};
enum segment_header_result segment_header_decode(struct slice block, struct segment_header *out)
    __attribute__((warn_unused_result));

void segment_footer_encode(const struct segment_footer *f, uint32_t seed, uint32_t offset,
                           uint8_t block[SEGMENT_BLOCK]);
bool segment_footer_decode(struct slice block, uint32_t seed, uint32_t offset,
                           struct segment_footer *out) __attribute__((warn_unused_result));

/* ---- records ---- */

/* Header fields but the CRCs are set by the caller, payload is in place, filling is zeroed here. */
void record_seal(uint8_t *record, uint32_t payload_len, const struct record_header *fields,
                 uint32_t seed, uint32_t offset);

enum record_result {
    RECORD_GOOD,
    RECORD_NEED_MORE,   /* header good; the bytes end before the record does */
    RECORD_BAD_PAYLOAD, /* header good; payload damaged */
    RECORD_BAD_HEADER   /* nothing known */
};
/* What stands at the beginning of `bytes`, which lie at `offset` of a segment with `segment_bytes`.
 * `out` is filled but for BAD_HEADER. */
enum record_result record_check(struct slice bytes, uint32_t seed, uint32_t offset,
                                uint64_t segment_bytes, struct record_header *out)
    __attribute__((warn_unused_result));
/* Only the header; for searching. */
bool record_header_check(const uint8_t *bytes, uint32_t seed, uint32_t offset,
                         uint64_t segment_bytes, struct record_header *out)
    __attribute__((warn_unused_result));
/*
 * FORMAT.md R6: the header is damaged, but these bytes were a record of this segment: the sequence
 * is the expected one, or the payload is good for its length.
 */
bool record_was_ours(struct slice bytes, uint32_t seed, uint32_t offset, uint64_t expected);

/* ---- payloads ---- */

struct record_state_view {
    struct record_state state;
    const uint8_t *final_words; /* unaligned, final_words * 8 bytes */
    struct slice error;
};

/* Bytes a state block takes; a multiple of 8. */
uint32_t record_state_size(const struct record_state *s);
/* Writes the block; `bits` may be NULL when final_words is 0. Returns its size. */
uint32_t record_state_encode(uint8_t *out, const struct record_state *s, const uint64_t *bits,
                             struct slice error);
bool record_state_decode(struct slice in, struct record_state_view *out, uint32_t *used)
    __attribute__((warn_unused_result));
uint64_t record_state_word(const struct record_state_view *v, uint32_t word);

struct record_message_view {
    struct record_message message;
    struct slice final_block; /* state block of another message, or empty */
    struct slice state_block; /* MOVED: its own */
    struct slice extents;     /* extent_count * 8 bytes, unaligned */
    struct slice envelope;
    struct slice tail;
};
/* Offset of the extents from the payload's begin. */
uint32_t record_message_extents_at(const struct record_message *m);
/* Payload bytes of a MESSAGE or MOVED record; 0 when it would be more than RECORD_BYTES_MAX. */
uint32_t record_message_size(const struct record_message *m);
/* The fixed part alone, from a payload that may be cut short. */
bool record_message_head(struct slice payload, struct record_message *out)
    __attribute__((warn_unused_result));
bool record_message_decode(struct slice payload, struct record_message_view *out)
    __attribute__((warn_unused_result));
struct lane_extent record_extent_at(struct slice extents, uint32_t index);

struct record_extent_view {
    struct record_extent extent;
    struct slice body;
};
bool record_extent_decode(struct slice payload, struct record_extent_view *out)
    __attribute__((warn_unused_result));

/* ---- what recovery wants to know of a record ---- */

/* From a record or from a summary entry: the same. */
struct record_digest {
    uint8_t type;
    uint32_t offset, length;
    uint64_t qid;
    struct message_digest message; /* MESSAGE, MOVED */
    struct slice final_block;      /* MESSAGE, MOVED: another message's state, or empty */
    struct slice state_block;      /* state records, MOVED: its own */
};
/* False: the contents make no sense (FORMAT.md R10). Types without meaning for recovery give true
 * and type 0. */
bool record_digest_of(const struct record_header *h, struct slice payload, uint32_t offset,
                      struct record_digest *out) __attribute__((warn_unused_result));
/* Bytes of a summary entry for it; 0: it needs none. */
uint32_t summary_entry_size(const struct record_digest *d);
void summary_entry_encode(uint8_t *out, const struct record_digest *d);
/* `used`: bytes to go on behind. */
bool summary_entry_decode(struct slice in, struct record_digest *out, uint32_t *used)
    __attribute__((warn_unused_result));

#endif
