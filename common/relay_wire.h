/*
 * Frames of the relay protocol, inside TLS (docs/PROTOCOL-relay.md).
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |     type      |          length of the body, <= 65535         |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |  body ...
 *
 * A decoder takes the byte stream in any pieces and gives frames. It copies only a frame that was cut
 * by the end of a piece; at rest it holds no memory.
 *
 * Pure.
 */
#pragma once

#include "common/key.h"
#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RELAY_ALPN	  "p2pnode-relay/1"
#define RELAY_VERSION	  1
#define RELAY_HEADER_LEN  4
#define RELAY_MAX_BODY	  65535
#define RELAY_MAX_FRAME	  (RELAY_HEADER_LEN + RELAY_MAX_BODY)
#define RELAY_MAX_PACKET  (RELAY_MAX_BODY - KEY_LEN)
/* What stands in front of the packet in a send or recv frame. */
#define RELAY_PACKET_HEAD (RELAY_HEADER_LEN + KEY_LEN)
/* Room for any frame that carries no packet. */
#define RELAY_SMALL_FRAME 64

enum relay_frame_type {
	RELAY_HELLO = 1,     /* relay → client, the first frame */
	RELAY_SEND = 2,	     /* client → relay: to that node */
	RELAY_RECV = 3,	     /* relay → client: from that node */
	RELAY_PEER_GONE = 4, /* relay → client: what you sent to that node went nowhere */
	RELAY_PING = 5,	     /* both ways; the answer is a pong with the same 8 bytes */
	RELAY_PONG = 6,
	RELAY_CLOSING = 7, /* relay → client, the last frame */
};

enum relay_gone_reason {
	RELAY_GONE_NOT_HERE = 1, /* not connected to this relay */
	RELAY_GONE_LEFT = 2,	 /* was connected when you last sent to it, and has left */
};

enum relay_closing_reason {
	RELAY_CLOSING_RESTART = 1,	/* the relay stops; come back */
	RELAY_CLOSING_REPLACED = 2,	/* another connection with your key took over */
	RELAY_CLOSING_NOT_ADMITTED = 3, /* not, or no longer, a member */
	RELAY_CLOSING_PROTOCOL = 4,	/* you broke the protocol */
	RELAY_CLOSING_EXPIRED = 5,	/* your certificate has expired; come back with a new one */
	RELAY_CLOSING_FULL = 6,		/* too many clients */
};

enum relay_wire_error {
	RELAY_WIRE_MORE = 1,  /* no whole frame yet */
	RELAY_WIRE_TOO_LONG,  /* length over RELAY_MAX_BODY; the stream cannot be followed any more */
	RELAY_WIRE_MALFORMED, /* a known type with a body of a wrong form; the stream goes on */
	RELAY_WIRE_UNKNOWN,   /* a type we do not know, skipped; the stream goes on */
};

struct relay_packet {
	struct public_key key; /* send: to, recv: from */
	const uint8_t *bytes;  /* borrowed */
	size_t len;	       /* 1 … RELAY_MAX_PACKET */
};

struct relay_frame {
	enum relay_frame_type type;
	union {
		struct {
			uint8_t version;
			uint8_t keep_alive_s; /* the relay drops who was silent for longer than twice this and 5 s */
		} hello;
		struct relay_packet packet; /* send, recv */
		struct {
			struct public_key key;
			enum relay_gone_reason reason; /* unknown values are passed on */
		} peer_gone;
		uint64_t ping; /* ping, pong: any 8 bytes */
		struct {
			enum relay_closing_reason reason;
			uint32_t retry_after_ms; /* come back no sooner */
		} closing;
	};
};

/* Zero is the state to begin with. */
struct relay_decoder {
	const uint8_t *at, *end;	   /* borrowed: the piece being read */
	uint8_t head[RELAY_HEADER_LEN];	   /* of a frame that was cut */
	uint8_t *partial;		   /* owned: the body of that frame, or NULL */
	size_t n_partial;		   /* bytes of head and body that are there */
	bool broken;			   /* a frame was too long */
};

/*
 * Gives the next piece. Call relay_decoder_next() until it says RELAY_WIRE_MORE before the next feed;
 * until then the piece must stay where it is.
 */
void relay_decoder_feed(struct relay_decoder *decoder, const void *piece, size_t len);
/* 0 or an enum relay_wire_error. What *ret borrows is good until the next call. */
P2P_CHECK int relay_decoder_next(struct relay_decoder *decoder, struct relay_frame *ret);
void relay_decoder_deinit(struct relay_decoder *decoder);

/* Bytes written, or 0 if they did not fit (or the packet is empty or too long). */
size_t relay_encode(void *buf, size_t cap, const struct relay_frame *frame);
/* The head of a send or recv frame of a packet of len bytes, which follows it. */
void relay_encode_packet_head(uint8_t ret[RELAY_PACKET_HEAD], enum relay_frame_type type,
			      const struct public_key *key, size_t len);

const char *relay_closing_reason_text(enum relay_closing_reason reason);
