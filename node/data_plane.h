/*
 * The data plane of a node, as the Engine sees it: interface, WireGuard and its peers, UDP sockets,
 * relay connections. The stage's side of it is actors/data_plane.h.
 *
 * It is made when the node is a member and outlives every Session. Loop only; packets move on
 * threads of their own (wireguard_host.h).
 */
#pragma once

#include "actors/data_plane.h"
#include "common/error.h"
#include "common/membership.h"
#include "common/tls_stream.h"
#include "node/status.h"
#include "node/wireguard/offload_switches.h"
#include "node/wireguard_host.h"

#include <openssl/types.h>
#include <uv.h>

struct data_plane_options {
	uv_loop_t *loop;
	enum wireguard_kind wireguard;
	const char *interface;
	uint16_t mtu;
	struct offload_switches offloads;
	unsigned n_lanes; /* threads that move packets; 0: as many as suit the machine */
	uint16_t port; /* UDP wanted, 0: any; one that is taken is replaced by another */
	const struct secret_key *node_key;    /* for WireGuard and relays; copied */
	const struct membership *membership;  /* overlay addresses and prefixes */
	struct tls_host *tls_host;	      /* outlives the data plane */
	SSL_CTX *relay_context;		      /* for relay connections; referenced */
	/* A session message has left for there; may be NULL. Borrowed */
	void (*pinged)(void *owner, const struct endpoint *to);
	void (*interface_gone)(void *owner);  /* somebody deleted it; the owner closes */
	void *owner;
};

/* Makes the interface, gives it addresses, brings it up. 0 or -errno. */
P2P_CHECK int data_plane_new(const struct data_plane_options *options, struct data_plane **ret,
			     struct error *reterr);
/* Removes the interface, frees itself, then calls closed. */
void data_plane_close(struct data_plane *data_plane, void (*closed)(void *owner), void *owner);

/* A renewed certificate, for relay connections from now on. */
void data_plane_set_relay_context(struct data_plane *data_plane, SSL_CTX *context);
/* Peers (key, overlay addresses, home relay) and relays are now these. New peers begin with the relay path. */
void data_plane_apply_map(struct data_plane *data_plane, const struct map *map);
/* The network of the machine changes: what leaves from a remembered address may go astray from now on. */
void data_plane_forget_sources(struct data_plane *data_plane);
/* The network of the machine changed: sources forgotten, relay connections probed. */
void data_plane_link_changed(struct data_plane *data_plane);
/* Somebody says that we are not reached by relay: do they answer? */
void data_plane_check_relays(struct data_plane *data_plane);

/* A fresh look at every peer: cb is called once, from the loop, after the status of all peers is current. */
void data_plane_refresh(struct data_plane *data_plane, void (*cb)(void *owner), void *owner);
/* As of the last refresh: path, relay, ages, bytes of each peer that the status lists; drops. */
void data_plane_fill_status(const struct data_plane *data_plane, struct node_status *status);
/* By what the relay of that id is used, and how far it is by either way. */
void data_plane_fill_relay(const struct data_plane *data_plane, struct node_status_relay *relay);
/* Where the last authenticated packet of the peer came from, as of the last refresh. False: nothing yet. */
bool data_plane_last_arrival(const struct data_plane *data_plane, uint32_t peer_id, struct endpoint *ret_direct,
			     bool *ret_by_relay);
/* Name of the relay by which the peer is reached. ret: "" when there is none. */
void data_plane_relay_name(const struct data_plane *data_plane, uint32_t peer_id, char *ret, size_t ret_len);
