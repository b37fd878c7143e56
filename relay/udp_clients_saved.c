/* Clients first, then what place has which generation: a wrong length says at once that it is not whole. */
#include "relay/udp_clients_saved.h"

#include "common/wire.h"
#include "relay/udp_clients_internal.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SAVED_LABEL   "p2pnode relay UDP clients 2"
#define SAVED_MAX_NS  (60 * SECOND_NS)
#define SAVED_HEAD    (8 + 4 + 32 + 8 + 4 + 4)
#define SAVED_PLACE   2
#define SAVED_CLIENT  (KEY_LEN + 1 + KEY_LEN + 16 + 2 + 4 + 16 + 4 + 2 + 4 + 4 + 8 + 4 + 8 + 8)
#define SEAL_OVERHEAD (crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES)

/* Of this node, and for its like only. */
static void saved_key(const struct udp_clients_config *config, uint8_t ret[crypto_secretbox_KEYBYTES])
{
	uint8_t label[sizeof(SAVED_LABEL) - 1 + sizeof(config->saved_for)];

	memcpy(label, SAVED_LABEL, sizeof(SAVED_LABEL) - 1);
	memcpy(label + sizeof(SAVED_LABEL) - 1, config->saved_for, sizeof(config->saved_for));
	crypto_generichash(ret, crypto_secretbox_KEYBYTES, label, sizeof(label), config->node_key.bytes,
			   sizeof(config->node_key.bytes));
}

static void put_client(struct wire_writer *w, const struct client *client)
{
	wire_put(w, client->known->node_key.bytes, KEY_LEN);
	/* Thousands come back at once: without it each would cost a Diffie-Hellman. */
	wire_put_u8(w, client->known->has_proof);
	wire_put(w, client->known->proof.bytes, KEY_LEN);
	wire_put(w, client->way.remote.ip, 16);
	wire_put_u16(w, client->way.remote.port);
	wire_put_u32(w, client->way.remote.scope_id);
	wire_put(w, client->way.local_ip, 16);
	wire_put_u32(w, client->way.ifindex);
	wire_put_u16(w, client->way.socket);
	wire_put_u32(w, client->slot);
	wire_put_u32(w, client->token);
	wire_put_u64(w, client->bind_number);
	wire_put_u32(w, client->known->cookie_ms);
	wire_put_u64(w, client->known->bound_ns);
	wire_put_u64(w, client->proven_ns);
}

/* Of who is here after whoever is bound has gone. A client elsewhere comes to the relay that follows by itself. */
static uint16_t next_generation(const struct place *place)
{
	return (uint16_t)((place->generation + (place->client ? 1 : 0)) & GENERATION_MASK);
}

static void put_all(struct wire_writer *w, const struct udp_clients *clients, uint64_t now_ns)
{
	wire_put_u64(w, now_ns);
	wire_put_u32(w, clients->epoch);
	wire_put(w, clients->cookies.secret, sizeof(clients->cookies.secret));
	wire_put_u64(w, clients->cookies.n_random);
	wire_put_u32(w, clients->counters.clients);
	wire_put_u32(w, clients->n_places);
	for (uint32_t i = 0; i < clients->n_places; i++)
		if (clients->places[i].client && clients->places[i].client->is_bound)
			put_client(w, clients->places[i].client);
	for (uint32_t i = 0; i < clients->n_places; i++)
		wire_put_u16(w, next_generation(&clients->places[i]));
}

void udp_clients_save(const struct udp_clients *clients, uint64_t now_ns, uint8_t **ret, size_t *ret_len)
{
	const size_t len = SAVED_HEAD + clients->counters.clients * (size_t)SAVED_CLIENT +
			   clients->n_places * (size_t)SAVED_PLACE;
	uint8_t key[crypto_secretbox_KEYBYTES], *sealed = malloc(SEAL_OVERHEAD + len);

	if (!sealed)
		abort();
	uint8_t *plain = sealed + SEAL_OVERHEAD;
	struct wire_writer w = wire_writer(plain, len);
	put_all(&w, clients, now_ns);
	saved_key(&clients->config, key);
	randombytes_buf(sealed, crypto_secretbox_NONCEBYTES);
	crypto_secretbox_easy(sealed + crypto_secretbox_NONCEBYTES, plain, len, sealed, key);
	sodium_memzero(key, sizeof(key));
	*ret = sealed;
	*ret_len = SEAL_OVERHEAD + len;
}

static bool is_slot_good(const struct udp_clients *clients, uint32_t slot)
{
	return udp_clients_index_of(slot) != 0 && udp_clients_index_of(slot) < clients->n_places && !clients->places[udp_clients_index_of(slot)].client;
}

/* One client as it was saved; what of it belongs to its key is apart. */
struct saved_client {
	struct client client;
	struct public_key node_key;
	struct relay_udp_key proof;
	uint8_t has_proof;
	uint32_t cookie_ms;
	uint64_t bound_ns;
};

static void get_client(struct wire_reader *r, struct saved_client *ret)
{
	struct client *client = &ret->client;

	*ret = (struct saved_client){ .client = { .is_bound = true, .is_handed_over = true } };
	wire_bytes(r, ret->node_key.bytes, KEY_LEN);
	ret->has_proof = wire_u8(r);
	wire_bytes(r, ret->proof.bytes, KEY_LEN);
	wire_bytes(r, client->way.remote.ip, 16);
	client->way.remote.port = wire_u16(r);
	client->way.remote.scope_id = wire_u32(r);
	wire_bytes(r, client->way.local_ip, 16);
	client->way.ifindex = wire_u32(r);
	client->way.socket = wire_u16(r);
	client->slot = wire_u32(r);
	client->token = wire_u32(r);
	client->bind_number = wire_u64(r);
	ret->cookie_ms = wire_u32(r);
	ret->bound_ns = wire_u64(r);
	client->proven_ns = client->heard_ns = wire_u64(r);
}

static void add_restored(struct udp_clients *clients, struct known *known, const struct saved_client *saved,
			 uint64_t now_ns)
{
	struct client *client = malloc(sizeof(*client));

	if (!client)
		abort();
	*client = saved->client;
	client->known = known;
	client->n_contacts = clients->config.max_contacts;
	client->contact_second = (uint32_t)(now_ns / SECOND_NS);
	rate_limit_init(&client->rate, clients->config.max_rate_client, now_ns / MILLISECOND_NS);
	known->client = client;
	known->has_proof = saved->has_proof != 0;
	known->proof = saved->proof;
	known->cookie_ms = saved->cookie_ms;
	known->bound_ns = saved->bound_ns;
	struct place *place = &clients->places[udp_clients_index_of(client->slot)];
	place->client = client;
	place->generation = client->slot >> INDEX_BITS;
	clients->counters.clients++;
}

/* False: what is there contradicts itself. */
static bool restore_client(struct udp_clients *clients, struct wire_reader *r, uint32_t n_sockets, uint64_t now_ns)
{
	struct saved_client saved;

	get_client(r, &saved);
	bool is_good = !r->failed && saved.client.way.socket < n_sockets && is_slot_good(clients, saved.client.slot) &&
		       saved.bound_ns <= now_ns && saved.client.proven_ns <= now_ns && saved.has_proof <= 1;
	struct known *known = is_good ? udp_clients_get_known(clients, &saved.node_key) : NULL;
	is_good = known && !known->client;
	if (is_good)
		add_restored(clients, known, &saved, now_ns);
	sodium_memzero(&saved.proof, sizeof(saved.proof));
	return is_good;
}

/* Those that are free go on with their generations, for peers may still know whose they were. */
static void restore_free_places(struct udp_clients *clients, struct wire_reader *r)
{
	clients->first_free = clients->last_free = 0;
	for (uint32_t i = 0; i < clients->n_places; i++) {
		const uint16_t generation = wire_u16(r);
		if (clients->places[i].client || i == 0)
			continue;
		clients->places[i].generation = generation;
		udp_clients_free_place(clients, i);
	}
}

/* As many as there were. False: so many there cannot have been. */
static bool restore_places(struct udp_clients *clients, uint32_t n)
{
	if (n > UDP_CLIENTS_MAX)
		return false;
	while (clients->n_places < n)
		udp_clients_add_places(clients);
	return clients->n_places == n;
}

static bool restore(struct udp_clients *clients, const uint8_t *plain, size_t len, uint32_t n_sockets, uint64_t now_ns)
{
	struct wire_reader r = wire_reader(plain, len);
	const uint64_t saved_ns = wire_u64(&r);

	clients->epoch = wire_u32(&r);
	wire_bytes(&r, clients->cookies.secret, sizeof(clients->cookies.secret));
	clients->cookies.n_random = wire_u64(&r);
	const uint32_t n = wire_u32(&r), n_places = wire_u32(&r);
	if (r.failed || saved_ns > now_ns || now_ns - saved_ns > SAVED_MAX_NS || n > clients->config.max_clients ||
	    wire_left(&r) != n * (size_t)SAVED_CLIENT + n_places * (size_t)SAVED_PLACE ||
	    !restore_places(clients, n_places))
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (!restore_client(clients, &r, n_sockets, now_ns))
			return false;
	restore_free_places(clients, &r);
	clients->saved_ns = saved_ns;
	return true;
}

int udp_clients_new_from_plain(const struct udp_clients_config *config, const uint8_t *plain, size_t len,
			       uint32_t n_sockets, uint64_t now_ns, struct udp_clients **ret)
{
	struct udp_clients *clients;
	int r = udp_clients_new(config, &clients);

	if (r < 0)
		return r;
	if (!restore(clients, plain, len, n_sockets, now_ns)) {
		udp_clients_free(clients);
		return UDP_CLIENTS_E_SAVED;
	}
	*ret = clients;
	return 0;
}

int udp_clients_new_from(const struct udp_clients_config *config, const uint8_t *saved, size_t len,
			 uint32_t n_sockets, uint64_t now_ns, struct udp_clients **ret)
{
	uint8_t key[crypto_secretbox_KEYBYTES];

	if (len < SEAL_OVERHEAD)
		return UDP_CLIENTS_E_SAVED;
	uint8_t *plain = malloc(len);
	if (!plain)
		return -ENOMEM;
	saved_key(config, key);
	int r = crypto_secretbox_open_easy(plain, saved + crypto_secretbox_NONCEBYTES,
					   len - crypto_secretbox_NONCEBYTES, saved, key) == 0
			? udp_clients_new_from_plain(config, plain, len - SEAL_OVERHEAD, n_sockets, now_ns, ret)
			: UDP_CLIENTS_E_SAVED;
	sodium_memzero(key, sizeof(key));
	sodium_memzero(plain, len);
	free(plain);
	return r;
}
