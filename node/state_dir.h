/*
 * What a node keeps on disk, one file a thing, each written whole (file_write_atomic):
 *
 *   node.key         the node key, secret, base64, mode 0600
 *   identity.key     the identity key, PEM, mode 0600
 *   membership.json  where control is, how to know it, who we are, our certificate and the CA's
 *   map.json         the last map, to start from when control is away
 *   relay-clients    between two runs of a public node: its clients over UDP, sealed, mode 0600
 *   exposures        what p2pctl has exposed, a line each as in p2pnode.conf(5)
 *   acme/           certificates by ACME, with their keys, and the account's key (acme/acme.h), mode 0600
 *   webgw-hosts      what was added over webgw's HTTP interface (relay/webgw/saved_hosts.h), mode 0600
 *   port             the UDP port last used, so that NAT mappings and peers' knowledge stay good
 *
 * membership.json is written last when joining and removed first when leaving: the node is a member
 * exactly when it is there. All functions name the file and a remedy in reterr.
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "common/key.h"
#include "common/map.h"
#include "common/membership.h"

#include <stdbool.h>
#include <stdint.h>

#define STATE_DIR_PATH_MAX 4096
#define MAP_FORMAT	   2 /* of map.json; one more whenever a map has something new to keep */

/* Where control is and how to know it, and what it gave us. */
struct state_membership {
	char host[JOIN_LINK_MAX_HOST + 1];
	uint16_t port;
	struct pin pin;
	struct membership member;
};

struct state_dir {
	char path[STATE_DIR_PATH_MAX];
	int lock_fd; /* held while open: two nodes must not share a folder */
};

/* Makes the folder (0700) if need be and locks it. -EBUSY when another process has it. */
P2P_CHECK int state_dir_open(struct state_dir *dir, const char *path, struct error *reterr);
void state_dir_close(struct state_dir *dir);

/* Loads the node key, or makes one when there is none. -EINVAL: the file is corrupt; it is left alone. */
P2P_CHECK int state_dir_node_key(const struct state_dir *dir, struct secret_key *ret, struct error *reterr);

/* 0; -ENOENT: not a member; -EINVAL: corrupt. */
P2P_CHECK int state_dir_load_membership(const struct state_dir *dir, struct state_membership *ret,
					struct error *reterr);
P2P_CHECK int state_dir_save_membership(const struct state_dir *dir, const struct state_membership *membership,
					struct error *reterr);

/* PEM of the identity key; 0, -ENOENT, … The caller ends it with certificate_free_secret(). */
P2P_CHECK int state_dir_load_identity_key(const struct state_dir *dir, char **ret_pem, struct error *reterr);
P2P_CHECK int state_dir_save_identity_key(const struct state_dir *dir, const char *pem, struct error *reterr);

/*
 * The cached map. A corrupt cache is told (-EINVAL) and may be ignored: control sends a new one. One of another format than
 * this version writes ("format", MAP_FORMAT) has the sequence 0, so that control sends all of it, and until then publishes
 * nothing and has no grants; peers and relays are kept.
 */
P2P_CHECK int state_dir_load_map(const struct state_dir *dir, struct map *ret, struct error *reterr);
P2P_CHECK int state_dir_save_map(const struct state_dir *dir, const struct map *map, struct error *reterr);

/* 0 when none was kept. */
uint16_t state_dir_load_port(const struct state_dir *dir);
void state_dir_save_port(const struct state_dir *dir, uint16_t port);

/* What a relay hands on to itself; taken once: it is removed. -ENOENT and others: none. The caller frees *ret. */
P2P_CHECK int state_dir_take_relay_clients(const struct state_dir *dir, char **ret, size_t *ret_len,
					   struct error *reterr);
P2P_CHECK int state_dir_save_relay_clients(const struct state_dir *dir, const void *bytes, size_t len,
					   struct error *reterr);

/* What p2pctl has exposed, as text; the caller frees it. -ENOENT: nothing. */
P2P_CHECK int state_dir_load_exposures(const struct state_dir *dir, char **ret, struct error *reterr);
P2P_CHECK int state_dir_save_exposures(const struct state_dir *dir, const char *text, struct error *reterr);

/* Hosts that were added over webgw's HTTP interface, as text; the caller frees it. -ENOENT: none. */
P2P_CHECK int state_dir_load_webgw_hosts(const struct state_dir *dir, char **ret, size_t *ret_len, struct error *reterr);
P2P_CHECK int state_dir_save_webgw_hosts(const struct state_dir *dir, const char *text, struct error *reterr);

/* Forgets the cached map; 0 also when there is none. */
P2P_CHECK int state_dir_forget_map(const struct state_dir *dir, struct error *reterr);
/* Forgets the membership: everything but the node key. */
P2P_CHECK int state_dir_forget(const struct state_dir *dir, struct error *reterr);
