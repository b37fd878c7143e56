/* The loop's side: beginning and end, and what is said to the thread and heard from it. */
#include "relay/udp_server.h"

#include "common/log.h"
#include "common/macros.h"
#include "relay/udp_clients_saved.h"
#include "relay/udp_server_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAX_DELIVERED 2048 /* packets to TLS in one turn of the loop */

_Static_assert(sizeof(struct udp_server_counters) % sizeof(uint64_t) == 0, "published by words");

void udp_server_free_members(struct key_table *members)
{
	if (!members)
		return;
	key_table_deinit(members);
	free(members);
}

static void close_sockets(struct udp_server *server)
{
	for (uint32_t i = 0; i < MAX_SOCKETS; i++) {
		relay_outbox_free(server->outboxes[i]);
		server->outboxes[i] = NULL;
		relay_socket_close(&server->sockets[i]);
	}
	server->n_sockets = 0;
}

static void free_server(struct udp_server *server)
{
	close_sockets(server);
	relay_inbox_free(server->inbox);
	udp_clients_free(server->clients);
	udp_server_free_members(server->members);
	udp_server_free_members(atomic_load(&server->new_members));
	free(atomic_load(&server->new_busiest));
	free(server->busiest);
	free(server->staged);
	free(server->saved);
	udp_bridge_deinit(&server->bridge);
	if (server->wake_fd >= 0)
		close(server->wake_fd);
	free(server);
}

static int open_socket(struct udp_server *server, const struct endpoint *address,
		       const struct listen_sockets *sockets, struct error *reterr)
{
	const uint32_t i = server->n_sockets;
	struct relay_socket *sock = &server->sockets[i];
	int fd = listen_sockets_take(sockets, SOCK_DGRAM, address);
	int r = fd >= 0 ? relay_socket_adopt(fd, (uint16_t)i, sock) : relay_socket_open(address, (uint16_t)i, sock);

	if (r == 0 && !(server->outboxes[i] = relay_outbox_new(sock, &server->refused, &server->out)))
		r = -ENOMEM;
	if (r < 0)
		return error_set(reterr, r, "cannot serve relay and STUN on UDP %s: %s", endpoint_text(address).s,
				 strerror(-r));
	server->waits[1 + i] = (struct pollfd){ .fd = sock->fd, .events = POLLIN };
	server->stun.local[i / server->n_ports][i % server->n_ports] = sock->local;
	server->n_sockets++;
	return 0;
}

static int open_ports(struct udp_server *server, const struct udp_server_options *options, uint32_t n_ports,
		      struct error *reterr)
{
	server->n_ports = server->stun.n_ports = n_ports;
	server->stun.n_addresses = options->n_listen;
	for (uint32_t i = 0; i < options->n_listen; i++) {
		for (uint32_t j = 0; j < n_ports; j++) {
			struct endpoint address = options->listen[i];
			if (j == 1)
				address.port = options->other_port;
			else if (address.port == 0 && i > 0)
				address.port = udp_server_port(server);
			int r = open_socket(server, &address, options->sockets, reterr);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* The second port serves to find out about NATs, no more: without it all else works. */
static int open_all(struct udp_server *server, const struct udp_server_options *options, struct error *reterr)
{
	struct error why;

	if (options->other_port == 0)
		return open_ports(server, options, 1, reterr);
	if (open_ports(server, options, 2, &why) == 0)
		return 0;
	close_sockets(server);
	int r = open_ports(server, options, 1, reterr);
	if (r == 0)
		log_warning("relay", "%s; nodes cannot find out all about their NAT with this one alone", why.message);
	return r;
}

/* Whose clients they could be: those of the same sockets, in the same order, since the machine was started. */
static void hash_place(const struct udp_server *server, const struct udp_server_options *options,
		       uint8_t ret[crypto_generichash_BYTES])
{
	const uint16_t other_port = server->n_ports == 2 ? options->other_port : 0;
	crypto_generichash_state state;
	char boot_id[64] = { 0 };
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, boot_id, sizeof(boot_id) - 1) < 0)
		boot_id[0] = '\0'; /* then the clock alone must tell */
	if (fd >= 0)
		close(fd);
	crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES);
	crypto_generichash_update(&state, (const uint8_t *)boot_id, sizeof(boot_id));
	for (uint32_t i = 0; i < options->n_listen; i++)
		crypto_generichash_update(&state, options->listen[i].ip, sizeof(options->listen[i].ip));
	crypto_generichash_update(&state, (const uint8_t *)&other_port, sizeof(other_port));
	crypto_generichash_final(&state, ret, crypto_generichash_BYTES);
}

static int make_clients(struct udp_server *server, const struct udp_server_options *options)
{
	struct udp_clients_config config = { .owner = server,
					     .is_member = udp_server_is_member,
					     .tell_reached = udp_server_tell_reached,
					     .max_clients = options->max_clients,
					     .max_proofs = options->max_proofs,
					     .max_binds_source = options->max_binds_source,
					     .max_rate_client = options->max_rate_client,
					     .max_rate = options->max_rate };

	if (!options->node_key)
		return 0;
	config.node_key = *options->node_key;
	hash_place(server, options, config.saved_for);
	int r = UDP_CLIENTS_E_SAVED;
	udp_server_read_clock(server);
	if (options->saved)
		r = udp_clients_new_from(&config, options->saved, options->saved_len,
					 server->n_sockets, server->now_ns, &server->clients);
	if (options->saved)
		log_info("relay", "UDP: clients of the relay that ran before: %u",
			 r == 0 ? udp_clients_counters(server->clients).clients : 0);
	if (r == UDP_CLIENTS_E_SAVED)
		r = udp_clients_new(&config, &server->clients);
	secret_key_wipe(&config.node_key);
	return r;
}

static int prepare(struct udp_server *server, const struct udp_server_options *options, struct error *reterr)
{
	server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = server->wake_fd < 0 ? -errno : 0;
	server->waits[0] = (struct pollfd){ .fd = server->wake_fd, .events = POLLIN };
	server->inbox = relay_inbox_new();
	server->staged = malloc(STAGED_BYTES);
	if (r == 0 && (!server->inbox || !server->staged))
		r = -ENOMEM;
	if (r < 0)
		return error_set(reterr, r, "cannot serve relay and STUN on UDP: %s", strerror(-r));
	r = open_all(server, options, reterr);
	if (r < 0)
		return r;
	r = make_clients(server, options);
	return r < 0 ? error_set(reterr, r, "cannot serve relay and STUN on UDP: %s", strerror(-r)) : 0;
}

/* ---- what the thread has said ---- */

static void on_closed(uv_handle_t *handle)
{
	struct udp_server *server = container_of((uv_async_t *)handle, struct udp_server, word);
	void (*stopped)(void *owner) = server->stopped;
	void *owner = server->owner;

	if (server->saved)
		server->options.save(server->options.owner, server->saved, server->saved_len);
	free_server(server);
	if (stopped)
		stopped(owner);
}

static void deliver(const struct udp_server *server, const struct udp_bridge_run *run, const uint8_t *bytes)
{
	const struct udp_server_options *options = &server->options;

	if (run->is_gone && options->tell_gone)
		options->tell_gone(options->owner, &run->to, &run->from);
	for (uint32_t at = 0; at < run->len; at += run->size) {
		const uint32_t left = run->len - at, len = left < run->size ? left : run->size;
		if (options->deliver)
			options->deliver(options->owner, &run->from, &run->to, bytes + at + run->head,
					 len - run->head);
	}
}

static void deliver_notes(struct udp_server *server)
{
	const struct udp_server_options *options = &server->options;
	struct udp_bridge_notes notes;

	if (!udp_bridge_take(&server->bridge.notes_to_tls, &notes))
		return;
	for (size_t i = 0; options->tell_reached && i < notes.n; i++)
		options->tell_reached(options->owner, &notes.items[i].node_key,
				      notes.items[i].news == UDP_BRIDGE_REACHED);
	free(notes.items);
}

static void on_word(uv_async_t *word)
{
	struct udp_server *server = container_of(word, struct udp_server, word);
	struct ring *ring = &server->bridge.to_tls;
	const uint64_t end = ring_mark(ring); /* what comes meanwhile comes with a word of its own */
	const struct udp_bridge_run *run;
	const uint8_t *bytes;

	if (atomic_load(&server->has_ended)) {
		pthread_join(server->thread, NULL);
		uv_close((uv_handle_t *)word, on_closed);
		return;
	}
	if (atomic_load(&server->is_stopping))
		return; /* whom it would be delivered to may be gone */
	deliver_notes(server);
	for (uint32_t n = 0; !ring_is_taken(ring, end) && (run = udp_bridge_peek(ring, &bytes));) {
		if (n >= MAX_DELIVERED) { /* the others of the loop have their turn, and then the rest */
			uv_async_send(word);
			break;
		}
		n += run->size ? run->len / run->size + 1 : 1;
		deliver(server, run, bytes);
		ring_release(ring);
	}
}

/* ---- beginning and end ---- */

/* The program's signals are the loop's. */
static int start_thread(struct udp_server *server)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&server->thread, NULL, udp_server_run, server);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static struct udp_server *new_server(const struct udp_server_options *options)
{
	struct udp_server *server = aligned_alloc(_Alignof(struct udp_server), sizeof(*server));

	if (!server)
		return NULL;
	memset(server, 0, sizeof(*server));
	server->wake_fd = -1;
	for (uint32_t i = 0; i < MAX_SOCKETS; i++)
		server->sockets[i].fd = -1;
	atomic_store(&server->new_drain, NO_DRAIN);
	server->drain.spread_ms = NO_DRAIN;
	server->options = *options;
	server->options.node_key = NULL; /* it is the caller's, and so is that: */
	server->options.saved = NULL;
	udp_bridge_init(&server->bridge);
	stun_server_init(&server->stun, options->stun_rate_per_s, options->stun_burst);
	return server;
}

int udp_server_start(uv_loop_t *loop, const struct udp_server_options *options, struct udp_server **ret,
		     struct error *reterr)
{
	if (options->n_listen == 0 || options->n_listen > STUN_SERVER_MAX_ADDRESSES)
		return error_set(reterr, -EINVAL, "relay and STUN listen on 1 to %d UDP addresses, not %u",
				 STUN_SERVER_MAX_ADDRESSES, options->n_listen);
	struct udp_server *server = new_server(options);
	if (!server)
		return error_set(reterr, -ENOMEM, "out of memory");
	int r = prepare(server, options, reterr);
	if (r == 0 && (r = uv_async_init(loop, &server->word, on_word)) < 0)
		error_set(reterr, r, "%s", uv_strerror(r));
	if (r < 0) {
		free_server(server);
		return r;
	}
	r = start_thread(server);
	if (r < 0) {
		uv_close((uv_handle_t *)&server->word, on_closed);
		return error_set(reterr, r, "cannot start a thread: %s", strerror(-r));
	}
	*ret = server;
	return 0;
}

void udp_server_stop(struct udp_server *server, void (*cb)(void *owner), void *owner)
{
	server->stopped = cb;
	server->owner = owner;
	atomic_store(&server->is_stopping, true);
	udp_server_wake(server);
}

/* ---- what it is told, and asked ---- */

void udp_server_wake(struct udp_server *server)
{
	const uint64_t one = 1;

	if (atomic_exchange(&server->is_told, true))
		return;
	if (write(server->wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); /* it is awake */
}

uint32_t udp_server_sockets(const struct udp_server *server, int *ret)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < server->n_sockets; i += server->n_ports)
		ret[n++] = server->sockets[i].fd;
	return n;
}

void udp_server_drain(struct udp_server *server, uint32_t spread_ms)
{
	atomic_store(&server->new_drain, spread_ms);
	udp_server_wake(server);
}

void udp_server_undrain(struct udp_server *server)
{
	atomic_store(&server->new_drain, NO_DRAIN);
	udp_server_wake(server);
}

uint16_t udp_server_port(const struct udp_server *server)
{
	return server->sockets[0].local.port;
}

void udp_server_set_members(struct udp_server *server, struct key_table *members)
{
	udp_server_free_members(atomic_exchange(&server->new_members, members));
	udp_server_wake(server);
}

struct udp_server_counters udp_server_counters(const struct udp_server *server)
{
	struct udp_server_counters counters;
	uint64_t words[N_COUNTERS];

	for (size_t i = 0; i < N_COUNTERS; i++)
		words[i] = atomic_load_explicit(&server->published[i], memory_order_relaxed);
	memcpy(&counters, words, sizeof(counters));
	counters.dropped_bridge += server->dropped_to_udp;
	return counters;
}

const struct udp_clients_busiest *udp_server_busiest(struct udp_server *server)
{
	struct udp_clients_busiest *list = atomic_exchange(&server->new_busiest, NULL);

	if (list) {
		free(server->busiest);
		server->busiest = list;
	}
	return server->busiest;
}

void udp_server_note_elsewhere(struct udp_server *server, const struct public_key *node_key, bool is_there)
{
	udp_bridge_note(&server->bridge.notes_to_udp, node_key, is_there ? UDP_BRIDGE_CAME : UDP_BRIDGE_LEFT);
	udp_server_wake(server);
}

void udp_server_note_ping(struct udp_server *server, const struct public_key *node_key)
{
	udp_bridge_note(&server->bridge.notes_to_udp, node_key, UDP_BRIDGE_PINGED);
	udp_server_wake(server);
}

void udp_server_forward(struct udp_server *server, const struct public_key *from, const struct public_key *to,
			const uint8_t *bytes, size_t len)
{
	const struct udp_bridge_run run = { .from = *from, .to = *to, .size = (uint32_t)len, .len = (uint32_t)len };

	if (len > RELAY_OUTBOX_MAX_LEN - RELAY_UDP_HEADER_LEN ||
	    !udp_bridge_put(&server->bridge.to_udp, &run, bytes))
		server->dropped_to_udp++;
	udp_server_wake(server);
}
