/*
 * gateway/config_table_spool.c - the keys of spool and back_pressure.
 *
 * Owns:     nothing that changes.
 * Runs on:  any thread.
 * Contract: as gateway/config_table.c.
 * Failure:  cannot fail.
 * Bounds:   none.
 * Tests:    tests/unit/test_config.c
 */
#include "gateway/config_table.h"

static const struct config_choice write_modes[] = {{"auto", CONFIG_WRITE_AUTO, false},
                                                   {"buffered", CONFIG_WRITE_BUFFERED, false},
                                                   {"direct", CONFIG_WRITE_DIRECT, false},
                                                   {NULL, 0, false}};

static const struct config_key spool_keys[] = {
    {.name = "path",
     .type = CONFIG_TYPE_PATH,
     .standard = "/var/spool/hikyaku",
     AT(config, spool.path),
     .restart = true,
     .help = "Folder in which accepted mail lies until it is delivered. On a local disk."},
    {.name = "max_size",
     .type = CONFIG_TYPE_SIZE,
     .standard = "20GiB",
     .min = SPOOL_SHARD_BYTES_MIN,
     .max = 1024 * 1024 * GIB,
     AT(config, spool.bytes_max),
     .restart = true,
     .help = "What the spool may take up. When it is full, new mail is answered 452 4.3.1."},
    {.name = "min_free",
     .type = CONFIG_TYPE_SIZE,
     .standard = "1GiB",
     .max = 1024 * 1024 * GIB,
     AT(config, spool.disk_free_min),
     .restart = true,
     .help = "Room on the disk that is left free; below it new mail is answered 452 4.3.1."},
    {.name = "write",
     .type = CONFIG_TYPE_CHOICE,
     .standard = "auto",
     .choices = write_modes,
     AT(config, spool.write),
     .restart = true,
     .help = "How the spool is written: through the page cache, past it, or past it where the "
             "file system allows that (auto)."}};

const struct config_keys config_spool_keys = {spool_keys, COUNT(spool_keys)};

static const struct config_key back_pressure_keys[] = {
    {.name = "memory",
     .type = CONFIG_TYPE_SIZE,
     .standard = "0",
     .max = 1024 * 1024 * GIB,
     AT(config, back_pressure.memory_bytes),
     .help = "Resident memory that this process is to stay below. 0: three quarters of the "
             "machine's, or of its control group's."},
    {.name = "queue_messages",
     .type = CONFIG_TYPE_SIZE,
     .standard = "0",
     .max = SPOOL_MESSAGES_MAX,
     AT(config, back_pressure.queue_messages),
     .help = "Messages that the queue is to stay below. 0: as many as the spool holds."},
    {.name = "delay",
     .type = CONFIG_TYPE_TIME,
     .standard = "1s",
     .unit = 1,
     .max = 60 * NS_PER_S,
     AT(config, back_pressure.delay_ns),
     .help =
         "Each answer to MAIL waits so long while less than a fifth of a resource is left (of the "
         "disk 64MiB). Below a twentieth (8MiB) it is 452 4.3.1."}};

const struct config_keys config_back_pressure_keys = {back_pressure_keys,
                                                      COUNT(back_pressure_keys)};
