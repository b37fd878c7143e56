/*
 * webgw's server, as the original speaks it (docs/PROTOCOL-webgw.md): agents subscribe to hosts over a WebSocket, and are
 * told of each visitor, for whom they dial back.
 *
 *   agent ── WebSocket ──► webgw ◄── wanted, over ── front door ◄── visitors
 *     │                      └──────── answer ──────────►│
 *     └───────────────── dials back ────────────────────►┘
 *
 * The WebSocket is not encrypted: who sees it may answer in the agent's place. It is for loopback, private and overlay
 * addresses.
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/websocket.h"
#include "relay/webgw/dial_exchange.h"

struct webgw;

struct webgw_ports {
	void *owner;
	/* As front_door_answer(). */
	void (*answer)(void *owner, uint64_t ticket, int64_t subscription);
	/* As front_door_dial_back_port(). */
	uint16_t (*dial_back_port)(void *owner);
};

struct webgw_options {
	struct websocket_host *host; /* borrowed; with its end the server has its own */
	struct endpoint listen;
	struct webgw_ports ports;
};

/* 0, or -errno with address and remedy in reterr. */
P2P_CHECK int webgw_new(const struct webgw_options *options, struct webgw **ret, struct error *reterr);
/* After the WebSocket host is closed. Accepts NULL. */
void webgw_free(struct webgw *webgw);
/* As subscriptions_add_host(). */
P2P_CHECK int webgw_add_host(struct webgw *webgw, const struct host_pattern *host, const uint8_t hash[WEBGW_HASH_LEN]);
/* As subscriptions_host_at(), without hashes. */
bool webgw_host_at(const struct webgw *webgw, uint32_t i, struct host_pattern *ret);

/* A visitor waits: an agent is chosen and told, and answer() called, from inside. */
void webgw_wanted(struct webgw *webgw, const struct dial_wanted *wanted);
void webgw_over(struct webgw *webgw, const struct dial_over *over);
