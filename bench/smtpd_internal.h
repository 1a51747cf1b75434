/*
 * bench/smtpd_internal.h - the sink's conversation, shared by its files: smtpd.c (lines, bodies,
 * answers), smtpd_command.c, smtpd_auth.c.
 */
#ifndef HIKYAKU_BENCH_SMTPD_INTERNAL_H
#define HIKYAKU_BENCH_SMTPD_INTERNAL_H

#include "bench/smtpd.h"

/* Of what a script is asked about: nobody in particular. */
#define SMTPD_NO_SUBJECTS ((struct bench_subjects){NULL, 0})

struct smtpd_answer {
    int code;
    const char *text;
};

/* ---- smtpd.c ---- */
/* The answer of a phase, or what the script wants instead. True: the answer was 2xx or 3xx. */
bool smtpd_answer_phase(struct bench_smtpd *s, enum bench_phase phase,
                        struct bench_subjects subjects, struct smtpd_answer a);
/* One that no script changes. */
void smtpd_answer_plain(struct bench_smtpd *s, int code, const char *text);
void smtpd_transaction_end(struct bench_smtpd *s);
/* The recipients taken so far, for the script. */
struct bench_subjects smtpd_rcpt_subjects(const struct bench_smtpd *s);

/* ---- smtpd_command.c ---- */
void smtpd_command(struct bench_smtpd *s, const char *line);

/* ---- smtpd_auth.c ---- */
bool smtpd_auth_offered(const struct bench_smtpd *s);
void smtpd_command_auth(struct bench_smtpd *s, const char *rest);
/* A line while an exchange is under way. */
void smtpd_auth_response(struct bench_smtpd *s, const char *line);

#endif
