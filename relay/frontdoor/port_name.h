/*
 * A port of front doors that leads to a member: its name, and which ports a door may open at all.
 *
 *   tcp:2222             TCP port 2222 of any front door
 *   udp:5353/7           UDP port 5353 of the front door of node 7 alone: so a grant may say
 *   tcp :2222            as people write it (port_name_word())
 *   2222, 30000-30100    ports that a door may open (port_ranges)
 *
 * The name of a port stands where else the name of a host does: in routes, in grants, in the map, in PROXY headers. No host has it,
 * for no host has a colon (host_name.h), and no wildcard stands for it. Pure.
 */
#pragma once

#include "common/error.h"
#include "common/macros.h"
#include "relay/frontdoor/host_name.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORT_NAME_TEXT	 24 /* "tcp:65535/4294967295" */
#define PORT_RANGES_MAX	 64
#define DOOR_MAX_PORTS	 256 /* open at one door */

enum port_kind { PORT_TCP, PORT_UDP, PORT_N_KINDS };

struct port_name {
	enum port_kind kind;
	uint16_t number;  /* > 0 */
	uint32_t door_id; /* of a node; 0: any */
};

/* A port of a door: is it open? */
struct port_state {
	struct port_name name; /* of any door */
	int error; /* 0: it is; else -errno */
};

struct port_states {
	uint32_t n;
	struct port_state items[DOOR_MAX_PORTS];
};

struct port_ranges {
	uint32_t n;
	struct { uint16_t first, last; } items[PORT_RANGES_MAX];
};

/* "tcp:2222" or "udp:5353/7", nothing else: 0, or -EINVAL. text needs no NUL. */
P2P_CHECK int port_name_from(const char *text, size_t len, struct port_name *ret);
void port_name_print(const struct port_name *port, char ret[PORT_NAME_TEXT]);
/* As the name of a host would stand. */
void port_name_to_host(const struct port_name *port, struct host_name *ret);
/* A host, or a port of any door, as routes have them. 0, or an enum host_name_error. */
P2P_CHECK int port_or_host_from(const char *text, size_t len, struct host_name *ret);
bool port_name_equal(const struct port_name *a, const struct port_name *b);
/*
 * "tcp :2222", "tcp:2222", and what follows: how many bytes the name takes; 0: this is none. *is_wrong: the text begins as one, and
 * is none ("tcp 2222", "udp :0").
 */
size_t port_name_word(const char *text, struct port_name *ret, bool *is_wrong);
/* "TCP", "UDP" */
const char *port_kind_name(enum port_kind kind);

/* "" is none. 0, or -EINVAL with what is wrong in reterr. */
P2P_CHECK int port_ranges_parse(const char *text, struct port_ranges *ret, struct error *reterr);
bool port_ranges_have(const struct port_ranges *ranges, uint16_t port);
