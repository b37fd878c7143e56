/*
 * Hosts that were added over webgw's HTTP interface, from one run of the node to the next: a file, a line each, as
 * p2pnode.conf has them behind "host =".
 *
 *   webgw hosts 1
 *   www.example.com 84e0c0ea…
 *   *.example.org 84e0c0ea… balance=round-robin
 *
 * Strict: a file that is not whole, or has a line that is no host, is refused as a whole. Total and bounded. Pure.
 */
#pragma once

#include "relay/webgw/webgw_wire.h"

#include <stddef.h>
#include <stdint.h>

#define SAVED_HOSTS_LINE    (HOST_NAME_MAX_LEN + 2 * WEBGW_HASH_LEN + 64) /* at most, with its end */
#define SAVED_HOSTS_MAX_LEN (1024 * SAVED_HOSTS_LINE)

/* How many there are, room at most; or -EINVAL with the line, and what is wrong there, in reterr. */
P2P_CHECK int saved_hosts_read(const char *text, size_t len, struct webgw_rule *ret, uint32_t room, struct error *reterr);
/* NUL-terminated, freed by the caller. */
char *saved_hosts_print(const struct webgw_rule *rules, uint32_t n);
