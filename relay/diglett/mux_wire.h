/*
 * The frames of diglett/2's multiplexer. docs/PROTOCOL-diglett.md has them byte by byte.
 *
 *    0        4      5        7
 *   ┌────────┬──────┬────────┬─────────────┐
 *   │ stream │ type │ length │ payload …   │   16,384 bytes at most, with its head
 *   └────────┴──────┴────────┴─────────────┘
 *
 * A message (noise_xk.h) holds whole frames. Types from 128 on that are not known are skipped; others that are not
 * known, and payloads that are not of their type's length, break the rules.
 *
 * Pure; frames borrow their bytes.
 */
#pragma once

#include "common/endpoint.h"
#include "common/wire.h"

#define MUX_HEAD_LEN	7
#define MUX_MAX_FRAME	16384
#define MUX_MAX_DATA	(MUX_MAX_FRAME - MUX_HEAD_LEN)
#define MUX_MAX_TEXT	200
#define MUX_MAX_WINDOW	0x7fffffffu
#define MUX_MAX_STREAMS 1024 /* that one side may have opened */
#define MUX_MAX_CONTROL (MUX_HEAD_LEN + 1 + MUX_MAX_TEXT) /* the longest frame that is not data */

enum mux_frame_type {
	MUX_DATA,
	MUX_OPEN,
	MUX_END,    /* of what the sender has to say; the other way goes on */
	MUX_RESET,  /* of both ways, at once */
	MUX_WINDOW, /* so many bytes more are taken: of a stream, or (stream 0) in all */
	MUX_PING,
	MUX_PONG,
	MUX_GOAWAY, /* why the connection ends */
	MUX_N_TYPES,
	MUX_SKIPPED = 128, /* any of those to come */
};

/* Why a stream or a connection ends before its end; what is not known is taken for MUX_ERROR. */
enum mux_reason {
	MUX_CLOSED = 0,	     /* without an error: the program ends, the visitor left */
	MUX_ERROR = 1,	     /* the rules of this protocol were broken */
	MUX_REFUSED = 2,     /* too many streams, or too fast; or this agent is not let in */
	MUX_UNREACHABLE = 3, /* the local target does not answer */
	MUX_STALLED = 4,     /* who reads nothing for long, while memory is needed */
	MUX_REPLACED = 5,    /* the same agent is here anew */
	MUX_REVOKED = 6,     /* its token is valid no more */
	MUX_IDLE = 7,	     /* nothing has moved for long */
	MUX_N_REASONS
};

struct mux_frame {
	uint32_t stream; /* 0: of the connection */
	uint8_t type;
	union {
		struct { const uint8_t *bytes; size_t len; } data;	    /* 1 … MUX_MAX_DATA */
		struct { uint16_t port; struct endpoint visitor; } open; /* which of the agent's ports, from 0 */
		struct { uint8_t reason; } reset;
		struct { uint32_t more; } window; /* 1 … MUX_MAX_WINDOW */
		struct { uint64_t token; } ping;  /* PONG: the same */
		struct { uint8_t reason; const char *text; size_t len; } goaway; /* printable ASCII */
	};
};

/* The next frame of a message. False: the rules are broken. */
P2P_CHECK bool mux_frame_read(struct wire_reader *reader, struct mux_frame *ret);
/* If it does not fit, the writer fails. */
void mux_frame_write(struct wire_writer *writer, const struct mux_frame *frame);
/* The head of so much data, for who has the data in place behind it. */
void mux_data_head(uint32_t stream, size_t len, uint8_t ret[MUX_HEAD_LEN]);
const char *mux_reason_text(uint8_t reason);
