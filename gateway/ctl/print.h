/*
 * gateway/ctl/print.h - answers for people.
 */
#ifndef HIKYAKU_CTL_PRINT_H
#define HIKYAKU_CTL_PRINT_H

#include <jansson.h>

void print_json(json_t *j);
void print_status(json_t *j);
void print_queue(json_t *j);
void print_message(json_t *j);
void print_progress(json_t *j);
void print_sites(json_t *j);
void print_connectors(json_t *j);
void print_route(json_t *j);
void print_changed(json_t *j);
void print_switched(json_t *j);
void print_changes(json_t *j);
void print_client_settings(json_t *j);
void print_generation(json_t *j);
void print_probe(json_t *j);
void print_protocol(json_t *j);

#endif
