/*
 * gateway/config_table_log.c - the keys of `log`.
 *
 * Owns:     nothing.
 * Runs on:  any thread; a constant table.
 * Contract: as gateway/config_table.c.
 * Failure:  none.
 * Bounds:   none.
 * Tests:    tests/unit/test_config_print.c
 */
#include "gateway/config_table.h"
#include "gateway/log.h"

static const struct config_choice log_levels[] = {{"error", LOG_ERROR, false},
                                                  {"warning", LOG_WARNING, false},
                                                  {"info", LOG_INFO, false},
                                                  {"debug", LOG_DEBUG, false},
                                                  {NULL, 0, false}};

static const struct config_choice log_formats[] = {
    {"text", 0, false}, {"json", 1, false}, {NULL, 0, false}};

static const struct config_key log_keys[] = {
    {.name = "level",
     .type = CONFIG_TYPE_CHOICE,
     .standard = "info",
     .choices = log_levels,
     AT(config, log.level),
     .help = "The least important events that are still logged."},
    {.name = "format",
     .type = CONFIG_TYPE_CHOICE,
     .standard = "json",
     .choices = log_formats,
     AT(config, log.json),
     .restart = true,
     .help = "Form of the lines on standard error."},
    {.name = "tracking",
     .type = CONFIG_TYPE_PATH,
     .standard = "\"\"",
     AT(config, log.tracking),
     .restart = true,
     .example = "/var/log/hikyaku/tracking.jsonl",
     .help = "File for what happened to each message and recipient, one JSON line each. Empty: "
             "none."},
    {.name = "tracking_size",
     .type = CONFIG_TYPE_SIZE,
     .standard = "64MiB",
     .min = MIB,
     .max = 16 * GIB,
     AT(config, log.tracking_bytes),
     .restart = true,
     .help = "A tracking file of this size is set aside, packed and indexed for hikyakuctl trace."},
    {.name = "tracking_keep",
     .type = CONFIG_TYPE_TIME,
     .standard = "30d",
     .unit = NS_PER_S,
     .max = 3650ull * 86400,
     AT(config, log.tracking_keep_s),
     .restart = true,
     .help = "Packed tracking files are removed after this. 0: never."},
    {.name = "protocol",
     .type = CONFIG_TYPE_PATH,
     .standard = "\"\"",
     AT(config, log.protocol),
     .restart = true,
     .example = "/var/log/hikyaku/protocol",
     .help = "Folder for the dialogs of connectors with protocol_log and of those that hikyakuctl "
             "protocol-log watches: receive.log and send.log. Empty: none."},
    {.name = "protocol_size",
     .type = CONFIG_TYPE_SIZE,
     .standard = "64MiB",
     .min = MIB,
     .max = 16 * GIB,
     AT(config, log.protocol_bytes),
     .restart = true,
     .help = "A protocol log of this size is set aside and packed."},
    {.name = "protocol_keep",
     .type = CONFIG_TYPE_TIME,
     .standard = "7d",
     .unit = NS_PER_S,
     .max = 3650ull * 86400,
     AT(config, log.protocol_keep_s),
     .restart = true,
     .help = "Packed protocol logs are removed after this. 0: never."},
    {.name = "protocol_max_size",
     .type = CONFIG_TYPE_SIZE,
     .standard = "1GiB",
     .max = 1024 * GIB,
     AT(config, log.protocol_folder_bytes),
     .restart = true,
     .help = "What packed protocol logs may take up, half of it in each direction: the oldest go. "
             "0: no limit."}};

const struct config_keys config_log_keys = {.items = log_keys, .count = COUNT(log_keys)};
