#include "relay/public_node.h"

#include "common/tls.h"
#include "common/tls_stream.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct public_node {
	struct tls_host *host;
	struct relay_server *relay;
	struct udp_server *udp;
	uint16_t tls_port; /* where others listen for the relay; else it knows itself */
	SSL_CTX *context;
	void *options_owner;
	bool (*is_member)(void *owner, const struct public_key *node_key);
	void (*save_udp)(void *owner, const uint8_t *saved, size_t len);
	void (*each_member)(void *owner, void (*add)(void *set, const struct public_key *node_key), void *set);
	uint32_t n_open; /* parts that still run */
	void (*stopped)(void *owner);
	void *owner;
};

static bool is_any(const struct endpoint *address, bool v4)
{
	struct endpoint any = v4 ? endpoint_from_v4(0, 0) : (struct endpoint){ 0 };

	return memcmp(address->ip, any.ip, sizeof(any.ip)) == 0;
}

/* Can a socket have this address here and now? */
static bool is_usable(const struct endpoint *address)
{
	struct endpoint any_port = *address;
	struct sockaddr_storage sockaddr;

	any_port.port = 0;
	socklen_t len = endpoint_to_sockaddr(&any_port, &sockaddr);
	int fd = socket(sockaddr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool usable = bind(fd, (struct sockaddr *)&sockaddr, len) == 0;
	close(fd);
	return usable;
}

/*
 * The addresses as given; all of this machine if one of them is not its own: a cloud's machine has its
 * public address in the router in front of it. "::" takes both families, so "0.0.0.0" beside it is left out;
 * without IPv6 it becomes "0.0.0.0".
 */
static uint32_t addresses_to_use(const struct public_node_options *options, struct endpoint *ret)
{
	struct endpoint any = { 0 };
	bool listens_on_all = options->n_addresses == 0;

	for (uint32_t i = 0; i < options->n_addresses; i++) {
		ret[i] = options->addresses[i];
		listens_on_all = listens_on_all || is_any(&ret[i], false) || !is_usable(&ret[i]);
	}
	if (!listens_on_all)
		return options->n_addresses;
	ret[0] = is_usable(&any) ? any : endpoint_from_v4(0, 0);
	return 1;
}

/* The relay's two halves, on the loop: over TLS and over UDP. */

static bool is_member(void *owner, const struct public_key *node_key)
{
	const struct public_node *node = owner;

	return !node->is_member || node->is_member(node->options_owner, node_key);
}

static void note_tls_client(void *owner, const struct public_key *node_key, bool is_here)
{
	const struct public_node *node = owner;

	udp_server_note_elsewhere(node->udp, node_key, is_here);
}

static void note_tls_ping(void *owner, const struct public_key *node_key)
{
	const struct public_node *node = owner;

	udp_server_note_ping(node->udp, node_key);
}

static void forward_to_udp(void *owner, const struct public_key *from, const struct public_key *to,
			   const uint8_t *bytes, size_t len)
{
	const struct public_node *node = owner;

	udp_server_forward(node->udp, from, to, bytes, len);
}

static void deliver_to_tls(void *owner, const struct public_key *from, const struct public_key *to,
			   const uint8_t *bytes, size_t len)
{
	const struct public_node *node = owner;

	relay_server_deliver(node->relay, from, to, bytes, len);
}

static void tell_tls_gone(void *owner, const struct public_key *client, const struct public_key *node_key)
{
	const struct public_node *node = owner;

	relay_server_tell_gone(node->relay, client, node_key);
}

static void tell_tls_reached(void *owner, const struct public_key *client, bool over_udp)
{
	const struct public_node *node = owner;

	relay_server_tell_reached(node->relay, client, over_udp);
}

/* Does another listen there? */
static bool is_led(const struct public_node_options *options, const struct endpoint *place)
{
	for (uint32_t i = 0; i < options->n_led; i++) {
		const struct endpoint *led = &options->led[i];
		if (led->port == place->port &&
		    (memcmp(led->ip, place->ip, sizeof(led->ip)) == 0 || is_any(led, false) ||
		     (is_any(led, true) && endpoint_is_v4(place))))
			return true;
	}
	return false;
}

/* What "::" becomes without IPv6; others are what they are. */
static struct endpoint usable_place(const struct endpoint *place)
{
	return is_any(place, false) && !is_usable(place) ? endpoint_from_v4(0, place->port) : *place;
}

/* Of those that were handed over, also who leads to us has his; he takes them himself. */
static void close_other_sockets(const struct public_node_options *options, const struct relay_server_options *relay)
{
	struct endpoint places[RELAY_SERVER_MAX_ADDRESSES + PUBLIC_NODE_MAX_LED];
	uint32_t n = relay->n_listen;

	memcpy(places, relay->listen, n * sizeof(*places));
	for (uint32_t i = 0; i < options->n_led; i++)
		places[n++] = usable_place(&options->led[i]);
	(void)listen_sockets_close_others(options->sockets, SOCK_STREAM, places, n,
					  relay->n_listen > 0 && options->n_led > 0);
}

/* The addresses of this machine at which nobody else listens for it. */
static void set_places(const struct public_node_options *options, struct relay_server_options *relay)
{
	struct endpoint places[RELAY_SERVER_MAX_ADDRESSES];
	const uint32_t n = addresses_to_use(options, places);

	for (uint32_t i = 0; i < n; i++) {
		places[i].port = options->tls_port;
		if (!is_led(options, &places[i]))
			relay->listen[relay->n_listen++] = places[i];
	}
}

/* At all addresses, since one is not this machine's, and another at one of them: a port cannot be both. */
static int check_places(const struct public_node_options *options, const struct relay_server_options *relay,
			struct error *reterr)
{
	for (uint32_t i = 0; i < relay->n_listen && options->n_led > 0; i++)
		if (is_any(&relay->listen[i], false) || is_any(&relay->listen[i], true))
			return error_set(reterr, -EADDRINUSE,
					 "the relay has TCP port %u at all addresses, since not all that [public] names are "
					 "this machine's, and the front door at one of them; write the port alone in listen",
					 options->tls_port);
	return 0;
}

static int start_relay(struct public_node *node, const struct public_node_options *options, struct error *reterr)
{
	struct relay_server_options relay = { .host = node->host,
					      .context = options->context,
					      .owner = node,
					      .is_member = is_member,
					      .max_clients = options->max_clients,
					      .max_rate_client = options->max_rate_client,
					      .max_rate = options->max_rate };

	if (options->node_key) {
		relay.note_client = note_tls_client;
		relay.note_ping = note_tls_ping;
		relay.forward = forward_to_udp;
	}
	set_places(options, &relay);
	int r = check_places(options, &relay, reterr);
	if (r < 0)
		return r;
	close_other_sockets(options, &relay);
	relay.sockets = options->sockets;
	return relay_server_start(&relay, &node->relay, reterr);
}

static void add_member(void *set, const struct public_key *node_key)
{
	key_table_put(set, node_key, set);
}

/* The members as they are now: a copy, which the UDP thread has for itself. */
static void tell_members(const struct public_node *node)
{
	struct key_table *members = calloc(1, sizeof(*members));

	if (!members)
		abort();
	key_table_init(members);
	if (node->each_member)
		node->each_member(node->options_owner, add_member, members);
	udp_server_set_members(node->udp, members);
}

static void save_udp(void *owner, const uint8_t *saved, size_t len)
{
	const struct public_node *node = owner;

	node->save_udp(node->options_owner, saved, len);
}

static int start_udp(struct public_node *node, uv_loop_t *loop, const struct public_node_options *options,
		     struct error *reterr)
{
	struct udp_server_options udp = { .node_key = options->node_key,
					  .stun_rate_per_s = options->stun_rate,
					  .stun_burst = 2 * options->stun_rate,
					  .max_rate_client = options->max_rate_client,
					  .max_rate = options->max_rate,
					  .saved = options->saved_udp,
					  .saved_len = options->saved_udp_len,
					  .save = options->save_udp ? save_udp : NULL,
					  .owner = node,
					  .deliver = deliver_to_tls,
					  .tell_gone = tell_tls_gone,
					  .tell_reached = tell_tls_reached };

	udp.n_listen = addresses_to_use(options, udp.listen);
	for (uint32_t i = 0; i < udp.n_listen; i++)
		udp.listen[i].port = options->stun_port;
	/* So that nodes find out what the NATs before them do. */
	if (options->stun_port != 0 && options->stun_port != UINT16_MAX)
		udp.other_port = (uint16_t)(options->stun_port + 1);
	if (listen_sockets_close_others(options->sockets, SOCK_DGRAM, udp.listen, udp.n_listen, false) > 0 &&
	    options->forget_kept)
		options->forget_kept(options->owner);
	udp.sockets = options->sockets;
	int r = udp_server_start(loop, &udp, &node->udp, reterr);
	if (r == 0)
		tell_members(node);
	return r;
}

int public_node_start(uv_loop_t *loop, const struct public_node_options *options, struct public_node **ret,
		      struct error *reterr)
{
	if (options->n_addresses > RELAY_SERVER_MAX_ADDRESSES)
		return error_set(reterr, -EINVAL, "a public node has at most %d addresses, not %u",
				 RELAY_SERVER_MAX_ADDRESSES, options->n_addresses);
	if (options->n_led > PUBLIC_NODE_MAX_LED)
		return error_set(reterr, -EINVAL, "a public node is led to from at most %d places, not %u",
				 PUBLIC_NODE_MAX_LED, options->n_led);
	struct public_node *node = calloc(1, sizeof(*node));
	if (!node)
		return error_set(reterr, -ENOMEM, "out of memory");
	node->context = options->context;
	SSL_CTX_up_ref(node->context);
	node->options_owner = options->owner;
	node->is_member = options->is_member;
	node->save_udp = options->save_udp;
	node->tls_port = options->tls_port;
	node->each_member = options->each_member;
	int r = tls_host_new(loop, &node->host);
	if (r < 0) {
		SSL_CTX_free(node->context);
		free(node);
		return error_set(reterr, r, "out of memory");
	}
	node->n_open = 1;
	r = start_relay(node, options, reterr);
	if (r == 0)
		r = start_udp(node, loop, options, reterr);
	if (r < 0) {
		public_node_stop(node, NULL, NULL);
		return r;
	}
	*ret = node;
	return 0;
}

static void on_host_closed(void *owner)
{
	struct public_node *node = owner;
	void (*stopped)(void *owner) = node->stopped;
	void *stopped_owner = node->owner;

	SSL_CTX_free(node->context);
	free(node);
	if (stopped)
		stopped(stopped_owner);
}

/* The TLS host goes last: the relay's streams need it. */
static void on_part_stopped(void *owner)
{
	struct public_node *node = owner;

	if (--node->n_open == 0)
		tls_host_close(node->host, on_host_closed, node);
}

void public_node_stop(struct public_node *node, void (*cb)(void *owner), void *owner)
{
	node->stopped = cb;
	node->owner = owner;
	node->n_open = 1u + (node->relay ? 1u : 0u) + (node->udp ? 1u : 0u);
	if (node->relay)
		relay_server_stop(node->relay, on_part_stopped, node);
	if (node->udp)
		udp_server_stop(node->udp, on_part_stopped, node);
	on_part_stopped(node);
}

void public_node_take(struct public_node *node, int fd, const struct endpoint *remote, const uint8_t *bytes, size_t n)
{
	relay_server_take(node->relay, fd, remote, bytes, n);
}

int public_node_set_certificate(struct public_node *node, const char *certificate_pem, const char *key_pem,
				struct error *reterr)
{
	return tls_context_set_certificate(node->context, certificate_pem, key_pem, reterr);
}

void public_node_recheck_members(struct public_node *node)
{
	relay_server_recheck_members(node->relay);
	tell_members(node);
}

void public_node_drain(struct public_node *node, uint32_t spread_ms)
{
	relay_server_drain(node->relay, spread_ms);
	udp_server_drain(node->udp, spread_ms);
}

void public_node_undrain(struct public_node *node)
{
	relay_server_undrain(node->relay);
	udp_server_undrain(node->udp);
}

uint32_t public_node_sockets(const struct public_node *node, int ret[PUBLIC_NODE_MAX_SOCKETS])
{
	uint32_t n = relay_server_sockets(node->relay, ret);

	return n + udp_server_sockets(node->udp, ret + n);
}

static uint16_t tls_port(const struct public_node *node)
{
	const uint16_t own = relay_server_port(node->relay);

	return own != 0 ? own : node->tls_port;
}

struct public_node_stats public_node_stats(const struct public_node *node)
{
	const struct udp_server_counters udp = udp_server_counters(node->udp);

	return (struct public_node_stats){ .relay = relay_server_counters(node->relay),
					   .stun = udp.stun,
					   .udp = udp.clients,
					   .udp_out = udp.out,
					   .dropped_bridge = udp.dropped_bridge,
					   .tls_port = tls_port(node),
					   .stun_port = udp_server_port(node->udp) };
}

struct relay_server *public_node_relay(const struct public_node *node)
{
	return node->relay;
}

const struct udp_clients_busiest *public_node_busiest_udp(const struct public_node *node)
{
	return udp_server_busiest(node->udp);
}
