/*
 * How a WireGuard outside of this process is told its peers and asked for its counters. kernel.c and
 * uapi.c speak; external.c makes a host of either.
 *
 * open and close are called from the loop, and may take some milliseconds; configure and read from
 * libuv's pool, both at once perhaps. (No header of our own WireGuard is included here: the names in
 * the kernel's library are the same.)
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/key.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct wireguard_control;

/* One thing to be done to a peer; in this order. */
struct wireguard_setting {
	struct public_key key;
	bool remove;   /* and nothing else of what follows */
	bool is_new;   /* its allowed IPs are these two, and no others */
	struct in_addr ip4;
	struct in6_addr ip6;
	struct endpoint endpoint; /* none: stays */
	int32_t keepalive_s;	  /* 0: off; -1: stays. Turning it on sends one at once */
};

struct wireguard_reading {
	struct public_key key;
	struct endpoint endpoint;
	uint64_t last_handshake_real_ns; /* since 1970; 0: never */
	uint64_t rx_bytes, tx_bytes;
};

struct wireguard_readings {
	uint16_t port; /* that WireGuard listens on now */
	size_t n, max;
	struct wireguard_reading *all; /* malloc */
};

/* A new, empty one at the end. Aborts when out of memory. */
struct wireguard_reading *wireguard_readings_add(struct wireguard_readings *readings);

struct wireguard_control_class {
	/* The interface is there, has this key and no peers. 0 or -errno. */
	int (*open)(const char *interface, const struct secret_key *key, struct wireguard_control **ret,
		    int *ret_ifindex, struct error *reterr);
	int (*configure)(struct wireguard_control *control, const struct wireguard_setting *settings, size_t n,
			 struct error *reterr);
	int (*read)(struct wireguard_control *control, struct wireguard_readings *ret, struct error *reterr);
	/* What open() has made is gone; an interface of somebody else's has no key and no peers any more. */
	void (*close)(struct wireguard_control *control);
	bool keeps_interface; /* it is somebody else's: addresses are to be taken off again */
};

extern const struct wireguard_control_class wireguard_kernel_control;
extern const struct wireguard_control_class wireguard_uapi_control;
