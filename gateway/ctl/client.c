/*
 * gateway/ctl/client.c - one HTTP request to the gateway's UNIX socket, by libcurl.
 *
 * Owns:     the request and its answer until it is handed over.
 * Runs on:  hikyakuctl's only thread.
 * Contract: an answer is a JSON object; anything else is an error with one line that says what to
 *           do.
 * Failure:  as said: one line on stderr, NULL.
 * Bounds:   CLIENT_TIMEOUT_S for the whole request.
 * Tests:    tests/system (queue commands)
 */
#include "gateway/ctl/client.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#define CLIENT_TIMEOUT_S 120L

struct answer {
    char *text;
    size_t len;
};

static size_t take(char *data, size_t size, size_t count, void *arg)
{
    struct answer *a = arg;
    char *more = realloc(a->text, a->len + size * count + 1);
    if (!more)
        return 0;
    memcpy(more + a->len, data, size * count);
    a->text = more;
    a->len += size * count;
    a->text[a->len] = '\0';
    return size * count;
}

static char *make_url(CURL *curl, const char *path, const struct client_arg *args)
{
    char *url = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&url, &len);
    char sep = '?';
    if (!f)
        return NULL;
    fprintf(f, "http://gateway%s", path);
    for (; args && args->name; args++) {
        char *v = args->value ? curl_easy_escape(curl, args->value, 0) : NULL;
        if (v) {
            fprintf(f, "%c%s=%s", sep, args->name, v);
            sep = '&';
        }
        curl_free(v);
    }
    fclose(f);
    return url;
}

static json_t *judge(const struct client *c, CURLcode did, long code, const struct answer *a,
                     int *status)
{
    json_t *j = did == CURLE_OK ? json_loads(a->text ? a->text : "", 0, NULL) : NULL;
    *status = 1;
    if (did == CURLE_COULDNT_CONNECT)
        fprintf(stderr,
                "hikyakuctl: no gateway answers at %s; is it running, and may you open the socket? "
                "(--socket PATH)\n",
                c->socket);
    else if (did != CURLE_OK)
        fprintf(stderr, "hikyakuctl: %s: %s\n", c->socket, curl_easy_strerror(did));
    else if (!j)
        fprintf(stderr, "hikyakuctl: %s answered something that is no JSON (HTTP %ld)\n", c->socket,
                code);
    else if (code >= 400)
        fprintf(stderr, "hikyakuctl: %s\n",
                json_string_value(json_object_get(j, "error"))
                    ? json_string_value(json_object_get(j, "error"))
                    : "the gateway said no");
    else
        *status = 0;
    if (*status && j) {
        json_decref(j);
        j = NULL;
    }
    return j;
}

/* Asks; the answer is in `a`, `code` its status. False: no memory, told. */
static bool perform(const struct client *c, const char *method, const char *path,
                    const struct client_arg *args, struct answer *a, CURLcode *did, long *code)
{
    CURL *curl = curl_easy_init();
    char *url = curl ? make_url(curl, path, args) : NULL;
    if (!url) {
        fputs("hikyakuctl: out of memory\n", stderr);
        return false;
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, c->socket);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, CLIENT_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
    if (strcmp(method, "POST") == 0) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, 0L);
    }
    *did = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, code);
    free(url);
    curl_easy_cleanup(curl);
    return true;
}

json_t *client_call(const struct client *c, const char *method, const char *path,
                    const struct client_arg *args, int *status)
{
    struct answer a = {0};
    CURLcode did;
    long code = 0;
    *status = 1;
    if (!perform(c, method, path, args, &a, &did, &code))
        return NULL;
    json_t *j = judge(c, did, code, &a, status);
    free(a.text);
    return j;
}

int client_copy(const struct client *c, const char *path, const struct client_arg *args)
{
    struct answer a = {0};
    CURLcode did;
    long code = 0;
    int status = 1;
    if (!perform(c, "GET", path, args, &a, &did, &code))
        return 1;
    if (did == CURLE_OK && code < 400)
        status = fwrite(a.text, 1, a.len, stdout) == a.len && fflush(stdout) == 0 ? 0 : 1;
    else
        json_decref(judge(c, did, code, &a, &status));
    free(a.text);
    return status;
}
