/* Writing and reading side by side; counts that have a name of their own are tables of name and place. */
#include "node/relay_status.h"

#include "common/macros.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MS 999999999999999 /* what a JSON number may be here */

struct place {
	const char *name;
	size_t offset;
};

static const struct place client_counts[] = {
	{ "packets_in", offsetof(struct relay_status_client, packets_in) },
	{ "bytes_in", offsetof(struct relay_status_client, bytes_in) },
	{ "packets_out", offsetof(struct relay_status_client, packets_out) },
	{ "bytes_out", offsetof(struct relay_status_client, bytes_out) },
	{ "dropped", offsetof(struct relay_status_client, dropped) },
};
static const struct place totals_counts[] = {
	{ "accepted", offsetof(struct relay_status_totals, accepted) },
	{ "admitted", offsetof(struct relay_status_totals, admitted) },
	{ "packets_in", offsetof(struct relay_status_totals, packets_in) },
	{ "bytes_in", offsetof(struct relay_status_totals, bytes_in) },
	{ "packets_out", offsetof(struct relay_status_totals, packets_out) },
	{ "bytes_out", offsetof(struct relay_status_totals, bytes_out) },
};
static const struct place causes[] = {
	{ "drops", offsetof(struct relay_status, drops) },
	{ "refused", offsetof(struct relay_status, refused) },
	{ "closed", offsetof(struct relay_status, closed) },
	{ "stun", offsetof(struct relay_status, stun) },
};

/* the struct */

void relay_status_init(struct relay_status *status)
{
	*status = (struct relay_status){ 0 };
}

void relay_status_deinit(struct relay_status *status)
{
	free(status->clients);
	status->clients = NULL;
	status->n_clients = 0;
}

struct relay_status_client *relay_status_add_client(struct relay_status *status)
{
	uint32_t n = status->n_clients;

	if ((n & (n - 1)) == 0) { /* grows by doubling, so n needs no capacity beside it */
		status->clients = realloc(status->clients, (n ? (size_t)n * 2 : 1) * sizeof(*status->clients));
		if (!status->clients)
			abort();
	}
	status->clients[n] = (struct relay_status_client){ 0 };
	status->n_clients++;
	return &status->clients[n];
}

void relay_status_add_count(struct relay_status_counts *counts, const char *name, uint64_t n)
{
	if (counts->n >= RELAY_STATUS_MAX_COUNTS)
		return;
	struct relay_status_count *count = &counts->items[counts->n++];
	snprintf(count->name, sizeof(count->name), "%s", name);
	count->n = n;
}

/* parts */

static void put_places(struct json *json, const void *record, const struct place *places, size_t n)
{
	for (size_t i = 0; i < n; i++)
		json_put_u64(json, places[i].name, *(const uint64_t *)((const char *)record + places[i].offset));
}

static int get_places(const struct json *json, void *record, const struct place *places, size_t n,
		      struct error *reterr)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = json_get_u64(json, places[i].name, (uint64_t *)((char *)record + places[i].offset), reterr);
	return r;
}

static int get_text(const struct json *json, const char *key, char *ret, size_t cap, struct error *reterr)
{
	const char *text;
	int r = json_get_string(json, key, &text, reterr);

	if (r == 0 && strlen(text) >= cap)
		r = error_set(reterr, -EINVAL, "member '%s': longer than %zu bytes", key, cap - 1);
	if (r == 0)
		memcpy(ret, text, strlen(text) + 1);
	return r;
}

static int get_number(const struct json *json, const char *key, int64_t max, uint64_t *ret, struct error *reterr)
{
	int64_t value;
	int r = json_get_integer(json, key, 0, max, &value, reterr);

	if (r == 0)
		*ret = (uint64_t)value;
	return r;
}

static int get_flag(const struct json *json, const char *key, bool *ret, struct error *reterr)
{
	if (!json_member(json, key))
		return error_set(reterr, -EINVAL, "member '%s' is missing", key);
	return json_get_boolean_or(json, key, false, ret, reterr);
}

static struct json *totals_to_json(const struct relay_status_totals *totals)
{
	struct json *json = json_object();

	put_places(json, totals, totals_counts, ARRAY_LEN(totals_counts));
	return json;
}

static int totals_from_json(const struct json *json, struct relay_status_totals *ret, struct error *reterr)
{
	static const char *const known[] = { "accepted", "admitted", "packets_in", "bytes_in",
					     "packets_out", "bytes_out", NULL };
	int r = json_only_members(json, known, reterr);

	return r != 0 ? r : get_places(json, ret, totals_counts, ARRAY_LEN(totals_counts), reterr);
}

static struct json *counts_to_json(const struct relay_status_counts *counts)
{
	struct json *json = json_object();

	for (uint32_t i = 0; i < counts->n; i++)
		json_put_u64(json, counts->items[i].name, counts->items[i].n);
	return json;
}

/* The causes are the node's to name. */
static int counts_from_json(const struct json *json, struct relay_status_counts *ret, struct error *reterr)
{
	if (json_length(json) > RELAY_STATUS_MAX_COUNTS)
		return error_set(reterr, -EINVAL, "more than %d members", RELAY_STATUS_MAX_COUNTS);
	for (const struct json *i = json_first(json); i; i = json_next(i)) {
		uint64_t n;
		if (strlen(json_key(i)) >= RELAY_STATUS_CAUSE)
			return error_set(reterr, -EINVAL, "a member's name is longer than %d bytes",
					 RELAY_STATUS_CAUSE - 1);
		int r = json_get_u64(json, json_key(i), &n, reterr);
		if (r != 0)
			return r;
		relay_status_add_count(ret, json_key(i), n);
	}
	return 0;
}

static struct json *client_to_json(const struct relay_status_client *client)
{
	struct json *json = json_object();

	json_put_string(json, "name", client->name);
	json_put_public_key(json, "node_key", &client->node_key);
	json_put_string(json, "transport", client->transport);
	json_put_string(json, "remote", endpoint_text(&client->remote).s);
	json_put_integer(json, "connected_ms", (int64_t)client->connected_ms);
	put_places(json, client, client_counts, ARRAY_LEN(client_counts));
	return json;
}

static int client_from_json(const struct json *json, struct relay_status_client *ret, struct error *reterr)
{
	static const char *const known[] = { "name", "node_key", "transport", "remote", "connected_ms",
					     "packets_in", "bytes_in", "packets_out", "bytes_out",
					     "dropped", NULL };
	char remote[sizeof(struct endpoint_text)];
	int r = json_only_members(json, known, reterr);

	if (r == 0)
		r = get_text(json, "name", ret->name, sizeof(ret->name), reterr);
	if (r == 0)
		r = json_get_public_key(json, "node_key", &ret->node_key, reterr);
	if (r == 0)
		r = get_text(json, "transport", ret->transport, sizeof(ret->transport), reterr);
	if (r == 0)
		r = get_text(json, "remote", remote, sizeof(remote), reterr);
	if (r == 0 && endpoint_parse(remote, &ret->remote) != 0)
		r = error_set(reterr, -EINVAL, "member 'remote': must be ip:port");
	if (r == 0)
		r = get_number(json, "connected_ms", MAX_MS, &ret->connected_ms, reterr);
	return r != 0 ? r : get_places(json, ret, client_counts, ARRAY_LEN(client_counts), reterr);
}

static int clients_from_json(const struct json *json, struct relay_status *ret, struct error *reterr)
{
	const struct json *array;
	uint32_t n = 0;
	int r = json_get_array(json, "clients", &array, reterr);

	for (const struct json *i = r == 0 ? json_first(array) : NULL; i && r == 0; i = json_next(i), n++) {
		if (!json_is_object(i))
			return error_set(reterr, -EINVAL, "member 'clients': item %u must be an object", n);
		r = client_from_json(i, relay_status_add_client(ret), reterr);
		if (r != 0)
			error_prefix(reterr, "clients[%u]", n);
	}
	return r;
}

/* whole */

struct json *relay_status_to_json(const struct relay_status *status)
{
	struct json *json = json_object(), *clients = json_array();

	json_put_integer(json, "tls_port", status->tls_port);
	json_put_integer(json, "stun_port", status->stun_port);
	json_put_integer(json, "uptime_ms", (int64_t)status->uptime_ms);
	json_put_integer(json, "cpu_ms", (int64_t)status->cpu_ms);
	json_put_integer(json, "handshakes", status->handshakes);
	json_put_boolean(json, "draining", status->draining);
	json_put_integer(json, "drain_left_ms", (int64_t)status->drain_left_ms);
	json_put_integer(json, "tls_clients", status->tls_clients);
	json_put_integer(json, "udp_clients", status->udp_clients);
	json_put_integer(json, "queue_mean_us", (int64_t)status->queue_mean_us);
	json_put_integer(json, "queue_longest_ms", (int64_t)status->queue_longest_ms);
	json_put(json, "totals", totals_to_json(&status->totals));
	for (size_t i = 0; i < ARRAY_LEN(causes); i++)
		json_put(json, causes[i].name,
			 counts_to_json((const void *)((const char *)status + causes[i].offset)));
	for (uint32_t i = 0; i < status->n_clients; i++)
		json_append(clients, client_to_json(&status->clients[i]));
	json_put(json, "clients", clients);
	return json;
}

static int head_from_json(const struct json *json, struct relay_status *ret, struct error *reterr)
{
	static const char *const known[] = { "tls_port", "stun_port", "uptime_ms", "cpu_ms", "handshakes",
					     "draining", "drain_left_ms", "tls_clients", "udp_clients",
					     "queue_mean_us", "queue_longest_ms", "totals", "drops", "refused",
					     "closed", "stun", "clients", NULL };
	uint64_t tls_port = 0, stun_port = 0, handshakes = 0, tls_clients = 0, udp_clients = 0;
	int r = json_only_members(json, known, reterr);

	if (r == 0)
		r = get_number(json, "tls_port", UINT16_MAX, &tls_port, reterr);
	if (r == 0)
		r = get_number(json, "stun_port", UINT16_MAX, &stun_port, reterr);
	if (r == 0)
		r = get_number(json, "uptime_ms", MAX_MS, &ret->uptime_ms, reterr);
	if (r == 0)
		r = get_number(json, "cpu_ms", MAX_MS, &ret->cpu_ms, reterr);
	if (r == 0)
		r = get_number(json, "handshakes", UINT32_MAX, &handshakes, reterr);
	if (r == 0)
		r = get_flag(json, "draining", &ret->draining, reterr);
	if (r == 0)
		r = get_number(json, "drain_left_ms", MAX_MS, &ret->drain_left_ms, reterr);
	if (r == 0)
		r = get_number(json, "tls_clients", UINT32_MAX, &tls_clients, reterr);
	if (r == 0)
		r = get_number(json, "udp_clients", UINT32_MAX, &udp_clients, reterr);
	if (r == 0)
		r = get_number(json, "queue_mean_us", MAX_MS, &ret->queue_mean_us, reterr);
	if (r == 0)
		r = get_number(json, "queue_longest_ms", MAX_MS, &ret->queue_longest_ms, reterr);
	ret->tls_port = (uint16_t)tls_port;
	ret->stun_port = (uint16_t)stun_port;
	ret->handshakes = (uint32_t)handshakes;
	ret->tls_clients = (uint32_t)tls_clients;
	ret->udp_clients = (uint32_t)udp_clients;
	return r;
}

static int parts_from_json(const struct json *json, struct relay_status *ret, struct error *reterr)
{
	const struct json *part;
	int r = json_get_object(json, "totals", &part, reterr);

	if (r == 0 && (r = totals_from_json(part, &ret->totals, reterr)) != 0)
		error_prefix(reterr, "totals");
	for (size_t i = 0; i < ARRAY_LEN(causes) && r == 0; i++) {
		r = json_get_object(json, causes[i].name, &part, reterr);
		if (r == 0 && (r = counts_from_json(part, (void *)((char *)ret + causes[i].offset), reterr)) != 0)
			error_prefix(reterr, "%s", causes[i].name);
	}
	return r != 0 ? r : clients_from_json(json, ret, reterr);
}

int relay_status_from_json(const struct json *json, struct relay_status *ret, struct error *reterr)
{
	struct relay_status status;

	if (!json_is_object(json))
		return error_set(reterr, -EINVAL, "a relay's status must be an object");
	relay_status_init(&status);
	int r = head_from_json(json, &status, reterr);
	if (r == 0)
		r = parts_from_json(json, &status, reterr);
	if (r != 0)
		relay_status_deinit(&status);
	else
		*ret = status;
	return r;
}
