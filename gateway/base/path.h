/*
 * gateway/base/path.h - a file's path as another program, in another folder, would name it.
 */
#ifndef HIKYAKU_BASE_PATH_H
#define HIKYAKU_BASE_PATH_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Puts the folder we are in before a relative path. Links stay as they are: a reload follows them
 * anew, and files that a configuration names beside itself are called the same by whoever reads it.
 * full: size bytes, holds the path. False: it does not fit, or there is no such folder any more. */
static inline bool path_from_root(const char *path, char *full, size_t size)
{
    full[0] = '\0';
    if (*path != '/' && (!getcwd(full, size) || strlen(full) + 1 >= size))
        return false;
    size_t len = strlen(full);
    int added = snprintf(full + len, size - len, "%s%s", *path == '/' ? "" : "/", path);
    return added > 0 && (size_t)added < size - len;
}

#endif
