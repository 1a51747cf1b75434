/*
 * gateway/handoff_sweep.c - asks peers what they have prepared for us and takes back what we do not
 * give them: offers whose answer was lost with a connection or a life.
 *
 * Owns:     one job a peer, without a message, while it is asked.
 * Runs on:  the shard of the delivery; each asks for the messages of its own lanes.
 * Contract: an id is aborted only when its message is known not to be given: all lanes are read,
 *           and it is here in another state, or is over. What is GIVEN, or being offered, is left.
 * Failure:  asked again after SWEEP_AGAIN_NS; a peer keeps what it has prepared, and delivers none
 *           of it.
 * Bounds:   a start of the gateway, and the end of a hand-off, ask each peer once.
 * Tests:    tests/system/test_handoff.py
 */
#include "gateway/handoff_job.h"

#define SWEEP_AGAIN_NS (60 * NS_PER_S)

static const char prepared_word[] = "prepared ";

/* ---- deciding ---- */

enum verdict { LEAVE, TAKE_BACK };

static enum verdict judge(const struct shard *sh, const char *id)
{
    size_t own = strlen(sh->gw->instance);
    uint64_t qid;
    if (strncmp(id, sh->gw->instance, own) != 0 || id[own] != '/' ||
        !qid_parse(slice_str(id + own + 1), &qid))
        return LEAVE;
    for (uint32_t i = 0; i < sh->lane_count; i++) {
        if (lane_number(sh->lanes[i]) != qid >> 54)
            continue;
        const struct queue_msg *m = lane_find(sh->lanes[i], qid);
        if (!m)
            return TAKE_BACK; /* it is over */
        const struct job *j = m->owner == &sh->admin_owner ? NULL : m->owner;
        return m->state == QUEUE_GIVEN || (j && j->handoff) ? LEAVE : TAKE_BACK;
    }
    return LEAVE; /* another shard's, which asks too; or a lane that is not here now */
}

/* ---- the dialog ---- */

static void command_is(struct task *t, int len)
{
    struct handoff *h = t->job->handoff;
    t->tx = (struct smtp_out_tx){.command = slice_of(h->command, (size_t)len)};
}

bool handoff_sweep_prepare(struct task *t)
{
    struct handoff *h = t->job->handoff;
    h->asked = true;
    command_is(t, snprintf(h->command, sizeof h->command, "XHANDOFF-NEXT from=%s after=%s",
                           t->job->delivery->shard->gw->instance, h->id[0] ? h->id : "-"));
    return true;
}

/* "prepared k7f3q2mz/0000000000ABC of 9x7f3q2m", or "none of 9x7f3q2m" */
static bool take_next(struct handoff *h, const char *text)
{
    size_t skip = strlen(prepared_word);
    _Static_assert(HANDOFF_ID_MAX == 40 && INSTANCE_LEN == 8, "the widths below");
    h->clean = sscanf(text, "none of %8s", h->to) == 1;
    return !h->clean && strncmp(text, prepared_word, skip) == 0 &&
           sscanf(text + skip, "%40s of %8s", h->id, h->to) == 2;
}

bool handoff_sweep_replied(struct hop *hop, const struct why *why)
{
    struct task *t = hop->task;
    struct handoff *h = t->job->handoff;
    const struct shard *sh = t->job->delivery->shard;
    if (why->smtp_code / 100 != 2)
        return true;
    if (h->asked && !take_next(h, why->text)) {
        if (h->clean)
            handoff_peer_is(t->job->delivery, h->connector, h->to);
        return true;
    }
    if (h->asked && judge(sh, h->id) == TAKE_BACK) {
        h->asked = false;
        command_is(
            t, snprintf(h->command, sizeof h->command, "XHANDOFF-ABORT id=%s to=%s", h->id, h->to));
    } else {
        handoff_sweep_prepare(t);
    }
    hop_begin(hop);
    return false;
}

void handoff_sweep_done(struct job *j)
{
    struct delivery *d = j->delivery;
    uint64_t bit = 1ull << j->handoff->peer;
    d->handoff.sweep_running &= ~bit;
    if (j->handoff->clean)
        d->handoff.sweep_due &= ~bit;
}

/* ---- when ---- */

static void sweep_peer(struct delivery *d, uint32_t peer)
{
    uint32_t connector = d->shard->config->gen->config->handoff.connectors[peer];
    struct site *s = NULL;
    if (!handoff_peer_is_up(d, connector))
        return;
    struct job *j = job_create_bare(d);
    if (!j)
        return;
    d->handoff.active++;
    j->handoff = arena_alloc(&j->arena, sizeof *j->handoff);
    if (j->handoff) {
        *j->handoff = (struct handoff){.connector = connector, .sweep = true, .peer = peer};
        d->handoff.sweep_running |= 1ull << peer;
        s = site_get(d, d->shard->config, connector, slice_of(NULL, 0));
    }
    if (!s || !site_enqueue(s, j, NULL, 0))
        handoff_task_done(j);
}

void handoff_sweep(struct delivery *d)
{
    const struct shard *sh = d->shard;
    const struct config *conf = sh->config->gen->config;
    uint64_t now = io_now_ns(sh->io);
    if (!d->handoff.sweep_asked) {
        d->handoff.sweep_asked = true;
        d->handoff.sweep_due = handoff_all_peers(conf);
    }
    if (!d->handoff.sweep_due || d->handoff.sweep_running || now < d->handoff.sweep_ns ||
        sh->lanes_recovered != sh->lane_count)
        return;
    d->handoff.sweep_ns = now + SWEEP_AGAIN_NS;
    for (uint32_t i = 0; i < conf->handoff.peers.count && i < HANDOFF_PEERS_MAX; i++)
        if (d->handoff.sweep_due & (1ull << i))
            sweep_peer(d, i);
}
