/*
 * gateway/config_table_life.c - the keys of drain, handoff and reload.
 *
 * Owns:     nothing that changes.
 * Runs on:  any thread.
 * Contract: as gateway/config_table.c.
 * Failure:  cannot fail.
 * Bounds:   none.
 * Tests:    tests/unit/test_config.c
 */
#include "gateway/config_table.h"

static const struct config_key drain_keys[] = {
    {.name = "accept",
     .type = CONFIG_TYPE_TIME,
     .standard = "0s",
     .unit = 1,
     .max = 3600 * NS_PER_S,
     AT(config, drain.accept_ns),
     .help = "For so long a gateway that was asked to stop is not ready (/readyz) but goes on as "
             "before: load balancers and Kubernetes send connections until they have noticed. "
             "SIGINT does not wait."},
    {.name = "deliveries",
     .type = CONFIG_TYPE_TIME,
     .standard = "0s",
     .unit = 1,
     .max = 3600 * NS_PER_S,
     AT(config, drain.deliveries_ns),
     .help =
         "For so long after that a gateway that drains goes on with what is queued and due; then "
         "only what is under way ends, in 30 seconds more. The rest waits in the spool."}};

static const struct config_key reload_keys[] = {
    {.name = "watch",
     .type = CONFIG_TYPE_BOOL,
     .standard = "false",
     AT(config, reload.watch),
     .help = "Reload by itself when this file, or one that it names, has changed. Understands how "
             "Kubernetes replaces ConfigMaps and Secrets."}};

static const struct config_key handoff_keys[] = {
    {.name = "peers",
     .type = CONFIG_TYPE_STRINGS,
     .standard = "[]",
     SETS(config, handoff.peers),
     .count_max = HANDOFF_PEERS_MAX,
     .example = "[peer-1, peer-2]",
     .help = "Send connectors, one for each peer: smart_hosts, auth, tls.level verify, "
             "address_spaces: []. A gateway that drains gives them what is left."},
    {.name = "timeout",
     .type = CONFIG_TYPE_TIME,
     .standard = "5m",
     .unit = 1,
     .min = NS_PER_S,
     .max = 24 * 3600 * NS_PER_S,
     AT(config, handoff.timeout_ns),
     .help = "What is left after this long stays in the spool."}};

const struct config_keys config_drain_keys = {drain_keys, COUNT(drain_keys)};
const struct config_keys config_reload_keys = {reload_keys, COUNT(reload_keys)};
const struct config_keys config_handoff_keys = {handoff_keys, COUNT(handoff_keys)};
