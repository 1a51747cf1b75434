/*
 * bench/proc.c - sums /proc over a process and its descendants.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of the command, outside the measured part.
 * Contract: CPU is utime+stime of all of them, plus what each of them has waited for, so that a
 *           server that forks for each session is charged for its dead children too. One clock tick
 *           (10 ms) of resolution: measure for seconds.
 * Failure:  a process that ends meanwhile is left out; false if the root is gone.
 * Bounds:   BENCH_PROC_COUNT_MAX processes.
 * Tests:    tests/unit/test_bench_text.c (this process)
 */
#include "bench/proc.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/limits.h"

struct process {
    pid_t pid, parent;
    bool counted;
    uint64_t ticks, ticks_children;
};

static bool read_stat(pid_t pid, struct process *p)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t count = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[count] = '\0';
    const char *end = strrchr(text, ')'); /* the name before it may hold anything */
    unsigned long long user, system;
    long long user_children, system_children;
    int parent;
    if (end == NULL ||
        sscanf(end + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %lld %lld", &parent,
               &user, &system, &user_children, &system_children) != 5)
        return false;
    *p = (struct process){.pid = pid,
                          .parent = parent,
                          .ticks = user + system,
                          .ticks_children = (uint64_t)(user_children + system_children)};
    return true;
}

static size_t read_all(struct process *all)
{
    size_t count = 0;
    DIR *dir = opendir("/proc");
    const struct dirent *entry;
    while (dir != NULL && count < BENCH_PROC_COUNT_MAX && (entry = readdir(dir)) != NULL) {
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid > 0 && read_stat((pid_t)pid, &all[count]))
            count++;
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

/* The value in KiB behind "Key:" in a /proc file, in bytes; 0 if there is none. */
static uint64_t read_value(pid_t pid, const char *file_name, const char *key)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file_name);
    FILE *file = fopen(path, "re");
    uint64_t value = 0;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0) {
            value = strtoull(line + strlen(key), NULL, 10);
            break;
        }
    }
    if (file != NULL)
        fclose(file);
    return value;
}

/* Of all its threads: the file of the process itself tells those of the first one only. */
static uint64_t read_switches(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    uint64_t sum = 0;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        long thread = strtol(entry->d_name, NULL, 10);
        if (thread > 0)
            sum += read_value((pid_t)thread, "status", "voluntary_ctxt_switches:") +
                   read_value((pid_t)thread, "status", "nonvoluntary_ctxt_switches:");
    }
    if (dir != NULL)
        closedir(dir);
    return sum;
}

static void count_process(struct process *p, struct bench_proc_usage *u)
{
    p->counted = true;
    u->process_count++;
    u->cpu_seconds += (double)(p->ticks + p->ticks_children) / (double)sysconf(_SC_CLK_TCK);
    u->rss_bytes += read_value(p->pid, "status", "VmRSS:") * 1024;
    u->pss_bytes += read_value(p->pid, "smaps_rollup", "Pss:") * 1024;
    u->switches += read_switches(p->pid);
}

static bool parent_counted(const struct process *all, size_t count, pid_t parent)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].pid == parent)
            return all[i].counted;
    }
    return false;
}

bool bench_proc_read(pid_t root, struct bench_proc_usage *u)
{
    struct process *all = calloc(BENCH_PROC_COUNT_MAX, sizeof(*all));
    memset(u, 0, sizeof(*u));
    if (all == NULL)
        return false;
    size_t count = read_all(all);
    for (size_t i = 0; i < count; i++) {
        if (all[i].pid == root)
            count_process(&all[i], u);
    }
    bool found = u->process_count > 0, more = found;
    while (more) { /* a pass for each generation */
        more = false;
        for (size_t i = 0; i < count; i++) {
            if (!all[i].counted && parent_counted(all, count, all[i].parent)) {
                count_process(&all[i], u);
                more = true;
            }
        }
    }
    free(all);
    return found;
}

double bench_proc_self_wait_seconds(void)
{
    unsigned long long run_ns = 0, wait_ns = 0;
    FILE *file = fopen("/proc/self/schedstat", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu %llu", &run_ns, &wait_ns) != 2)
        wait_ns = 0;
    fclose(file);
    return (double)wait_ns / 1e9;
}
