/* What tunnel.c (the connection) and visitor.c (the streams' sockets) share. */
#pragma once

#include "relay/diglett/tunnel.h"

#define TUNNEL_IN_SIZE	  (NOISE_MAX_BODY + NOISE_MESSAGE_EXTRA)
#define TUNNEL_BODY_SIZE  49152 /* of our messages */
#define TUNNEL_TURN_BYTES (512 * 1024)

enum tunnel_state {
	TUNNEL_CONNECTING,
	TUNNEL_ACT_1, /* the server waits for it … */
	TUNNEL_ACT_2, /* … the agent … */
	TUNNEL_ACT_3, /* … the server … */
	TUNNEL_ANSWER, /* … the agent */
	TUNNEL_OPEN,
	TUNNEL_ENDED,
};

struct tunnel {
	struct tunnel_ports ports;
	uv_loop_t *loop;
	enum tunnel_state state;
	bool is_agent, is_dirty, is_closing;
	bool is_v1; /* the agent's first byte */
	int fd;
	uv_poll_t poll;
	uv_timer_t timer; /* the handshake's deadline; then once a second; then to tell the end */
	uv_check_t check; /* at the end of a turn what is dirty is sent */
	uint32_t n_open;  /* handles, those of visitors too */
	void (*closed)(void *owner);
	struct error why;
	struct noise_handshake handshake;
	struct noise_link link;
	struct node_badge_binding binding;
	struct diglett_request request; /* the agent's, until it was sent */
	struct mux_fsm mux;
	struct tunnel_counters counters;
	size_t n_in, n_out, out_at;
	size_t n_body; /* of the message that comes; SIZE_MAX: its head has not come */
	uint8_t in[TUNNEL_IN_SIZE];
	uint8_t out[TUNNEL_BODY_SIZE + NOISE_MESSAGE_EXTRA];
};

/* Something is to be sent: at the end of this turn. */
void tunnel_wake(struct tunnel *tunnel);
void tunnel_release(struct tunnel *tunnel); /* a handle was closed */
uint64_t tunnel_now_us(void);

struct visitor;

void visitor_open(struct tunnel *tunnel, int fd, uint16_t port, const struct endpoint *remote);
void visitor_answer_offer(struct tunnel *tunnel);
void visitor_take(struct visitor *visitor, const uint8_t *bytes, size_t len);
void visitor_end(struct visitor *visitor); /* the other side has ended */
/* Up to max of its bytes; -1: it is gone, and closed. */
ssize_t visitor_fetch(struct visitor *visitor, uint8_t *ret, size_t max, enum mux_source *ret_source);
void visitor_close_if_over(struct visitor *visitor);
/* Nothing has moved for long: by a reset, unless its socket still gives on what it has taken. */
void visitor_close_if_silent(struct visitor *visitor);
/* By a reset, if that was not its end; reason: for the other side. */
void visitor_close(struct visitor *visitor, uint8_t reason);
