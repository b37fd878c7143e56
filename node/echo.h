/*
 * ICMP echo to a peer's overlay address: the honest ping, through interface, WireGuard and path.
 *
 * One raw socket, opened once (needs CAP_NET_RAW at that moment), any number of echoes under way
 * up to ECHO_MAX_PENDING. Loop only.
 */
#pragma once

#include "common/macros.h"

#include <netinet/in.h>
#include <stdint.h>
#include <uv.h>

#define ECHO_MAX_PENDING 64

struct echo;

/* code 0: answered after rtt_us; -ETIMEDOUT; -ECANCELED when the echo is closed; else why it could not be sent. */
typedef void (*echo_cb)(void *owner, int code, uint32_t rtt_us);

/* 0 or -errno (-EPERM without the capability). */
P2P_CHECK int echo_new(uv_loop_t *loop, struct echo **ret);
/* Answers what is pending with -ECANCELED and frees itself; accepts NULL (closed is called at once). */
void echo_close(struct echo *echo, void (*closed)(void *owner), void *owner);
/* 0: cb is called later, exactly once. -EBUSY: too many pending. */
P2P_CHECK int echo_send(struct echo *echo, struct in_addr to, uint32_t timeout_ms, echo_cb cb, void *owner);
