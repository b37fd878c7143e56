/*
 * WireGuard's configuration protocol (www.wireguard.com/xplatform): text over a Unix socket.
 *
 *   request   "get=1\n" "\n"   or   "set=1\n" {key "=" value "\n"} "\n"
 *   answer    {key "=" value "\n"} "errno=" number "\n" "\n"      (0, or a negative errno)
 *
 * A set request begins with keys of the device; each public_key begins the section of a peer. The
 * parser checks a whole request before anything is applied: it yields one item a line, in order.
 * Pure and total: any bytes give items or an error.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "common/macros.h"
#include "common/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UAPI_SCOPE_NAME_LEN 15 /* IFNAMSIZ without the NUL */

enum uapi_error {
	UAPI_E_COMMAND = 1, /* neither get=1 nor set=1 */
	UAPI_E_LINE,	    /* a line without "=" or with a NUL */
	UAPI_E_KEY,	    /* unknown, or it does not belong into this section */
	UAPI_E_VALUE,	    /* not a value of this key */
	UAPI_E_TOO_MANY,    /* more lines than the caller has room for */
};

enum uapi_command { UAPI_GET, UAPI_SET };

enum uapi_key {
	/* of the device */
	UAPI_PRIVATE_KEY, /* .key; all zero: none */
	UAPI_LISTEN_PORT, /* .number */
	UAPI_FWMARK,	  /* .number; 0: none */
	UAPI_REPLACE_PEERS,
	/* of a peer */
	UAPI_PUBLIC_KEY, /* .key; begins the section */
	UAPI_REMOVE,
	UAPI_UPDATE_ONLY,
	UAPI_PRESHARED_KEY, /* .key; all zero: none */
	UAPI_ENDPOINT,	    /* .endpoint, .scope_name */
	UAPI_KEEPALIVE,	    /* .number, seconds; 0: off */
	UAPI_REPLACE_ALLOWED_IPS,
	UAPI_ALLOWED_IP, /* .allowed_ip */
	UAPI_PROTOCOL_VERSION,
	UAPI_N_KEYS,
};

struct uapi_allowed_ip {
	bool remove;
	bool is_v4; /* then the first 4 bytes of ip count */
	uint8_t ip[16];
	uint8_t prefix_len;
};

struct uapi_item {
	enum uapi_key key;
	union {
		uint8_t secret[KEY_LEN]; /* any of the three key types; wiped by who owns the items */
		uint32_t number;
		struct {
			struct endpoint endpoint;
			/* Of "[fe80::1%eth0]:1": who applies it looks the interface up. Else empty. */
			char scope_name[UAPI_SCOPE_NAME_LEN + 1];
		};
		struct uapi_allowed_ip allowed_ip;
	};
};

/*
 * How many bytes at the start of text are one whole request (its empty line included); 0 when the
 * end is not there yet. *scanned (0 at first) remembers what has been looked at.
 */
size_t uapi_request_len(const char *text, size_t len, size_t *scanned);
/* An upper bound of the items in a request. */
size_t uapi_count_lines(const char *text, size_t len);
/* Parses one whole request. 0, or an enum uapi_error; outputs are undefined then, *ret_n is 0. */
P2P_CHECK int uapi_parse(const char *text, size_t len, enum uapi_command *ret, struct uapi_item *ret_items,
			 size_t max_items, size_t *ret_n);
/* The errno to answer with: EPROTO or EINVAL. */
int uapi_error_errno(int error);

/* What a get answer tells of the device; a zero port, mark or key is left out. */
struct uapi_device {
	struct secret_key private_key;
	uint16_t listen_port;
	uint32_t fwmark;
};

struct uapi_peer {
	struct public_key public_key;
	uint8_t preshared_key[KEY_LEN];
	struct endpoint endpoint; /* none: left out */
	uint64_t last_handshake_s;
	uint32_t last_handshake_ns;
	uint64_t tx_bytes, rx_bytes;
	uint16_t keepalive_s;
};

/* The client's side: one item as the line of a set request that it stands for. */
void uapi_put_item(struct wire_writer *w, const struct uapi_item *item);
/*
 * A whole answer to a get request: the device, and each peer by each(arg, peer), in order. Lines that
 * are not known here are skipped. 0, -errno as answered, or -EPROTO when it is no such answer. Pure.
 */
P2P_CHECK int uapi_parse_answer(const char *text, size_t len, struct uapi_device *ret,
				void (*each)(void *arg, const struct uapi_peer *peer), void *arg);

/* Upper bounds of what the functions below write; that of an item is UAPI_ALLOWED_IP_TEXT_LEN * 2. */
#define UAPI_DEVICE_TEXT_LEN	 256
#define UAPI_PEER_TEXT_LEN	 512
#define UAPI_ALLOWED_IP_TEXT_LEN 64
#define UAPI_RESULT_TEXT_LEN	 32

void uapi_put_device(struct wire_writer *w, const struct uapi_device *device);
void uapi_put_peer(struct wire_writer *w, const struct uapi_peer *peer);
void uapi_put_allowed_ip(struct wire_writer *w, const struct uapi_allowed_ip *allowed_ip);
/* result: 0 or -errno. Ends the answer. */
void uapi_put_result(struct wire_writer *w, int result);
