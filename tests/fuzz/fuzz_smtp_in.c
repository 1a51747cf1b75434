/*
 * tests/fuzz/fuzz_smtp_in.c - the server machine, fed twice: whole and in pieces.
 *
 * Owns:     nothing.
 * Runs on:  libFuzzer.
 * Contract: byte 0 chooses the connector, byte 1 the size of the pieces, the rest is what a client
 *           sends. However it is cut, replies and events are the same; a reply is a line of at
 *           most SMTP_REPLY_LINE_MAX printable bytes; a message has CR and LF as CRLF only.
 * Failure:  aborts.
 * Bounds:   64 KiB of input.
 * Tests:    make fuzz
 */
#include <stdlib.h>

#include "tests/unit/smtp_dialog.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct dialog whole, pieces;

static void start(struct dialog *d, uint8_t choice)
{
    dialog_init(d, choice & 1);
    d->config.tls_required = choice & 2;
    d->config.auth_required = choice & 4;
    d->config.auth_require_tls = choice & 8;
    d->config.message_size_max = choice & 16 ? 300 : 60000;
    d->starved = choice & 32;
    smtp_in_greet(&d->s, &d->out, NULL);
    if (choice & 64) /* straight to the data */
        dialog_feed(d,
                    SLICE_LIT("EHLO x\r\nAUTH PLAIN AGEAc2VjcmV0\r\nMAIL FROM:<a@b>\r\n"
                              "RCPT TO:<c@d>\r\nDATA\r\n"),
                    1000);
}

static void check_text(struct slice text, bool reply)
{
    size_t line = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        bool crlf = c == '\r' ? i + 1 < text.len && text.ptr[i + 1] == '\n'
                              : c == '\n' && i && text.ptr[i - 1] == '\r';
        if ((c == '\r' || c == '\n') ? !crlf : reply ? c < ' ' || c > '~' : c == '\0')
            abort();
        line = c == '\n' ? 0 : line + 1;
        if (reply && line > SMTP_REPLY_LINE_MAX)
            abort();
    }
}

/* One pass that looks at each piece of output. */
static void check_output(struct dialog *d, struct slice in)
{
    struct smtp_in_event ev;
    while (!d->closed) {
        d->out.len = 0;
        enum smtp_in_event_kind kind = smtp_in_step(&d->s, &in, &d->out, &ev);
        check_text(buf_slice(&d->out), true);
        if (kind == SMTP_IN_NEED_INPUT && !smtp_in_wants_line(&d->s))
            return;
        if (kind == SMTP_IN_NEED_INPUT)
            smtp_in_lend_line(&d->s, malloc(SMTP_AUTH_LINE_MAX));
        else if (kind == SMTP_IN_END)
            check_text(buf_slice(&d->body), false);
        if (kind != SMTP_IN_NEED_INPUT)
            perform(d, &ev, in);
        if (kind == SMTP_IN_HEADERS_END || kind == SMTP_IN_END)
            d->body.len = 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 65536)
        return 0;
    struct slice in = slice_of(data + 2, size - 2);
    start(&whole, data[0]);
    dialog_feed(&whole, in, in.len ? in.len : 1);
    start(&pieces, data[0]);
    /* Bytes behind STARTTLS are the owner's to see, which depends on the piece they come in. */
    dialog_feed(&pieces, in, data[1] % 16 + 1u);
    bool starttls = strstr(dialog_text(&whole), "<STARTTLS>") != NULL;
    if (!starttls && strcmp(dialog_text(&whole), dialog_text(&pieces)) != 0 && !whole.starved)
        abort();
    dialog_end(&whole);
    dialog_end(&pieces);
    start(&whole, data[0] & ~32);
    check_output(&whole, in);
    dialog_end(&whole);
    return 0;
}
