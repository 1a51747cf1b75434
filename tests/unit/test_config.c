/*
 * The configuration as a whole: what is read, where defaults come from, the demo, includes, and
 * that every fault is told with file, line and column.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/auth/sasl.h"
#include "gateway/config_internal.h"
#include "gateway/log.h"
#include "tls/tls.h"

static char folder[32];

static void make_folder(void)
{
    struct why why;
    cr_assert(tls_global_init(&why), "%s", why.text);
    snprintf(folder, sizeof folder, "/tmp/hikyaku-config-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    setenv("DIR", folder, 1);
    setenv("DATA", "tests/unit/data/tls", 1);
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_expect_eq(system(command), 0);
    tls_global_cleanup();
}

TestSuite(config, .init = make_folder, .fini = remove_folder);

static const char *file(const char *name, const char *text)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static struct config *parse(const char *text)
{
    struct why why;
    struct config *c = config_parse("t.yaml", slice_str(text), &why);
    cr_assert_not_null(c, "%s", why.text);
    return c;
}

Test(config, demo)
{
    char text[8192], path[256];
    struct buf b = buf_over(text, sizeof text);
    snprintf(path, sizeof path,
             "cp tests/unit/data/tls/mail.pem %s/tls.crt && "
             "cp tests/unit/data/tls/mail.key %s/tls.key",
             folder, folder);
    cr_assert_eq(system(path), 0);
    file("token", "secret\n");
    file("users", "");
    cr_assert(config_demo(folder, &b));
    struct why why;
    struct config *c = config_parse("demo", buf_slice(&b), &why);
    cr_assert_not_null(c, "%s", why.text);
    cr_expect_str_eq(c->hostname, "localhost");
    cr_expect_eq(c->spool.bytes_max, GIB);
    cr_expect_eq(c->spool.disk_free_min, 100 * MIB);
    cr_expect_str_eq(c->admin.token, "secret");
    cr_expect_eq(io_addr_port(&c->admin.http), 9025);
    snprintf(path, sizeof path, "%s/ctl.sock", folder);
    cr_expect_str_eq(c->admin.socket, path);
    cr_assert_eq(c->receive_count, 3);
    static const struct {
        uint16_t port;
        enum config_tls_mode mode;
        bool tls_required, submission;
        uint32_t mechanisms;
    } want[] = {{2587, CONFIG_TLS_STARTTLS, true, true, SASL_PLAIN | SASL_LOGIN},
                {2465, CONFIG_TLS_IMPLICIT, false, true, SASL_PLAIN | SASL_LOGIN},
                {2525, CONFIG_TLS_STARTTLS, false, false, 0}};
    for (int i = 0; i < 3; i++) {
        const struct config_receive_connector *r = &c->receive[i];
        cr_expect_eq(io_addr_port(&r->bind[0]), want[i].port);
        cr_expect_eq(r->tls.mode, want[i].mode);
        cr_expect_eq(r->tls.required, want[i].tls_required);
        cr_expect_eq(r->auth.required, want[i].mechanisms != 0);
        cr_expect_eq(r->auth.mechanisms, want[i].mechanisms);
        cr_expect_eq(r->submission, want[i].submission);
        cr_expect_eq(r->tls.certificate_count, 1);
        cr_expect_gt(r->tls.certificates[0].key_len, 100);
        cr_expect_str_eq(r->fqdn, "localhost");
    }
    cr_assert_eq(c->accepted_domains.count, 1);
    cr_expect_str_eq(c->accepted_domains.items[0].domain, "example.com");
    cr_assert_eq(c->send_count, 1);
    cr_assert_eq(c->send[0].smart_host_count, 1);
    cr_expect(c->send[0].smart_hosts[0].literal);
    cr_expect_eq(c->send[0].smart_hosts[0].port, 2526);
    cr_expect_str_eq(c->send[0].smart_hosts[0].host, "127.0.0.1");
    cr_expect_eq(c->send[0].tls.level, CONFIG_LEVEL_NONE);
    cr_expect_not_null(c->routes);
    config_free(c);
    b.len = 0;
    cr_expect(!config_demo("it's", &b), "no way to quote it");
    cr_expect(!config_demo("", &b));
    struct buf small = buf_over(text, 100);
    cr_expect(!config_demo(folder, &small));
}

Test(config, nothing_is_all_defaults)
{
    char name[256];
    struct config *c = parse("");
    cr_assert_eq(gethostname(name, sizeof name), 0);
    cr_expect_eq(strcasecmp(c->hostname, name), 0);
    cr_expect_eq(c->shards, 0);
    cr_expect_str_eq(c->spool.path, "/var/spool/hikyaku");
    cr_expect_eq(c->spool.bytes_max, 20 * GIB);
    cr_expect_eq(c->dns.timeout_ns, DNS_TIMEOUT_NS);
    cr_expect(c->dns.dnssec);
    cr_expect_eq(c->log.level, LOG_INFO);
    cr_expect(c->log.json);
    cr_expect_null(c->log.tracking);
    cr_assert_eq(c->retry.interval_count, 6);
    cr_expect_eq(c->retry.intervals_s[5], 3600);
    cr_expect_eq(c->retry.expire_s, 172800);
    cr_expect_eq(c->retry.warn_after_s, 14400);
    cr_expect_not_null(c->routes);
    config_free(c);
}
