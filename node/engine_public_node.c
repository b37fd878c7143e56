/*
 * The public node as the Engine runs it: who is a member, at which addresses it is reached, and which sockets outlive the
 * process.
 */
#include "node/engine_internal.h"

#include "common/log.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

static bool on_is_member(void *owner, const struct public_key *node_key)
{
	struct p2p_engine *engine = owner;

	if (!engine->map)
		return true; /* until the first map the certificate alone decides */
	return public_key_equal(node_key, &engine->node_key_public) ||
	       map_find_peer_by_key(map_ref_get(engine->map), node_key) != NULL;
}

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct endpoint));
}

/*
 * For a public node that was told no addresses: the public ones of the machine, or, where there is none (a
 * network of its own), the others. Behind a cloud's NAT that is wrong, and nobody here can know. True when they
 * are other ones than before.
 */
bool engine_find_public_addresses(struct p2p_engine *engine)
{
	struct node_public *found = &engine->public_options, before = *found;
	struct endpoint local[ENGINE_MAX_LOCAL];
	size_t n = link_local_endpoints(0, engine->interface, local, ENGINE_MAX_LOCAL);

	found->n_addresses = 0;
	memset(found->addresses, 0, sizeof(found->addresses));
	for (int private = 0; private <= 1 && found->n_addresses == 0; private++)
		for (size_t i = 0; i < n && found->n_addresses < MAP_MAX_ADDRESSES; i++)
			if (endpoint_is_private(&local[i]) == (private == 1))
				found->addresses[found->n_addresses++] = local[i];
	/* Another order is no change: clients would connect anew. */
	qsort(found->addresses, found->n_addresses, sizeof(*found->addresses), by_bytes);
	return memcmp(&before, found, sizeof(before)) != 0;
}

void engine_log_public_addresses(const struct node_public *public_node)
{
	if (public_node->n_addresses == 0 || endpoint_is_private(&public_node->addresses[0]))
		log_warning("relay", "this machine has no public address: only its own network reaches this relay; "
				     "behind NAT put 'address = <public IP>' into [public]");
	for (uint32_t i = 0; i < public_node->n_addresses; i++)
		log_info("relay", "reached at %s", endpoint_ip_text(&public_node->addresses[i]).s);
}

/* Without a certificate, so nobody before the first map. */
static void on_each_member(void *owner, void (*add)(void *set, const struct public_key *node_key), void *set)
{
	const struct p2p_engine *engine = owner;
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;

	add(set, &engine->node_key_public);
	for (uint32_t i = 0; map && i < map->n_peers; i++)
		add(set, &map->peers[i].node_key);
}

void engine_tell_listening(const struct p2p_engine *engine)
{
	int sockets[PUBLIC_NODE_MAX_SOCKETS + DOOR_MAX_LISTEN];
	uint32_t n = engine->public_node ? public_node_sockets(engine->public_node, sockets) : 0;

	if (engine->public_node && engine->front_door)
		n += front_door_relay_sockets(engine->front_door, sockets + n);

	if (engine->callbacks.listening)
		engine->callbacks.listening(engine->callbacks.owner, sockets, n);
}

/* Ports of sockets that nobody takes up are free then. */
static void on_forget_kept(void *owner)
{
	const struct p2p_engine *engine = owner;

	if (engine->callbacks.listening)
		engine->callbacks.listening(engine->callbacks.owner, NULL, 0);
}

/* Only for a process that follows: who leaves the network has no clients any more. */
static void on_save_relay_clients(void *owner, const uint8_t *saved, size_t len)
{
	const struct p2p_engine *engine = owner;
	struct error error;

	if (engine->stopping && state_dir_save_relay_clients(&engine->dir, saved, len, &error) != 0)
		log_warning("relay", "clients over UDP must be bound anew: %s", error.message);
}

int engine_start_public_node(struct p2p_engine *engine, struct error *reterr)
{
	struct public_node_options options = { .n_addresses = engine->public_options.n_addresses,
					       .tls_port = engine->public_options.tls_port,
					       .stun_port = engine->public_options.stun_port,
					       .stun_rate = engine->stun_rate,
					       .max_rate_client = engine->max_rate_client,
					       .max_rate = engine->max_rate,
					       .sockets = &engine->sockets,
					       .owner = engine,
					       .is_member = on_is_member,
					       .node_key = &engine->node_key,
					       .each_member = on_each_member,
					       .save_udp = on_save_relay_clients,
					       .forget_kept = on_forget_kept };
	struct endpoint led[DOOR_MAX_LISTEN];
	char *saved = NULL;
	int r;

	if (!engine->is_public)
		return 0;
	if (engine->finds_addresses) {
		engine_find_public_addresses(engine);
		engine_log_public_addresses(&engine->public_options);
		options.n_addresses = 0; /* all, also those that come later */
	}
	memcpy(options.addresses, engine->public_options.addresses,
	       options.n_addresses * sizeof(*options.addresses));
	options.n_led = engine_shared_places(engine, led);
	options.led = led;
	r = engine_make_context(engine, true, &options.context, reterr);
	if (r != 0)
		return r;
	/* Without a map nobody is known to be a member: they would all be sent away, with a proof. */
	if (state_dir_take_relay_clients(&engine->dir, &saved, &options.saved_udp_len, NULL) == 0 && engine->map)
		options.saved_udp = (const uint8_t *)saved;
	r = public_node_start(engine->loop, &options, &engine->public_node, reterr);
	free(saved);
	SSL_CTX_free(options.context);
	if (r == 0 && engine->relay_drains) /* the interface was made anew meanwhile */
		public_node_drain(engine->public_node, 0);
	if (r == 0)
		log_info("relay", "serving relay on TCP port %u, relay and STUN on UDP port %u", options.tls_port,
			 options.stun_port);
	return r;
}
