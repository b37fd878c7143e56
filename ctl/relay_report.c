#include "ctl/relay_report.h"

#include "common/table.h"
#include "ctl/format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FACT "%-12s"

/* A client and what it did since the earlier status: all it ever did, when there is none. */
struct row {
	const struct relay_status_client *client;
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
};

/* The time between both, or 0: they are not of one run of the node, and have nothing to do with each other. */
static uint64_t time_between(const struct relay_status *status, const struct relay_status *earlier)
{
	return earlier && earlier->uptime_ms < status->uptime_ms ? status->uptime_ms - earlier->uptime_ms : 0;
}

static uint64_t a_second(uint64_t now, uint64_t then, uint64_t ms)
{
	return now > then && ms > 0 ? (uint64_t)((double)(now - then) * 1000.0 / (double)ms + 0.5) : 0;
}

/* summary */

static void report_head(FILE *out, const struct relay_status *status)
{
	int64_t uptime_ms = (int64_t)status->uptime_ms;

	fprintf(out, FACT "TLS on TCP port %u; UDP port %u, as STUN\n", "relay", status->tls_port,
		status->stun_port);
	fprintf(out, FACT "running for %s, CPU time %.1f s (%.1f %% of a core)\n", "process",
		uptime_ms < 1000 ? "less than 1 s" : format_duration(uptime_ms).s, (double)status->cpu_ms / 1e3,
		uptime_ms > 0 ? (double)status->cpu_ms * 100.0 / (double)uptime_ms : 0.0);
	if (status->draining)
		fprintf(out, FACT "draining, %s; p2pctl relay undrain ends it\n", "state",
			status->drain_left_ms > 0 ? "clients are sent away" : "no clients are taken");
	fprintf(out,
		FACT "%u by TLS, %u by UDP; %" PRIu64 " admitted of %" PRIu64 " connections, %u in their handshake\n",
		"clients", status->tls_clients, status->udp_clients, status->totals.admitted, status->totals.accepted,
		status->handshakes);
	fprintf(out, FACT "%" PRIu64 " in (%s), %" PRIu64 " out (%s)\n", "packets", status->totals.packets_in,
		format_bytes(status->totals.bytes_in).s, status->totals.packets_out,
		format_bytes(status->totals.bytes_out).s);
	fprintf(out, FACT "%.1f ms waited for by a packet over TLS, %" PRIu64 " ms at most lately\n", "queue",
		(double)status->queue_mean_us / 1e3, status->queue_longest_ms);
}

static void report_rates(FILE *out, const struct relay_status *status, const struct relay_status *earlier,
			 uint64_t ms)
{
	const struct relay_status_totals *now = &status->totals, *then = &earlier->totals;

	fprintf(out,
		FACT "%" PRIu64 " packets/s in (%s/s), %" PRIu64 " out (%s/s), CPU %.1f %% of a core\n", "now",
		a_second(now->packets_in, then->packets_in, ms),
		format_bytes(a_second(now->bytes_in, then->bytes_in, ms)).s,
		a_second(now->packets_out, then->packets_out, ms),
		format_bytes(a_second(now->bytes_out, then->bytes_out, ms)).s,
		(double)a_second(status->cpu_ms, earlier->cpu_ms, ms) / 10.0);
}

/* The counts that are not 0, in one line. */
static void report_counts(FILE *out, const char *title, const struct relay_status_counts *counts)
{
	bool any = false;

	fprintf(out, FACT, title);
	for (uint32_t i = 0; i < counts->n; i++) {
		if (counts->items[i].n == 0)
			continue;
		fprintf(out, "%s%s %" PRIu64, any ? ", " : "", counts->items[i].name, counts->items[i].n);
		any = true;
	}
	fputs(any ? "\n" : "none\n", out);
}

/* clients */

static int by_key(const void *a, const void *b)
{
	return memcmp(&(*(const struct relay_status_client *const *)a)->node_key,
		      &(*(const struct relay_status_client *const *)b)->node_key, sizeof(struct public_key));
}

/* The clients in the order of their keys; the caller frees it. */
static const struct relay_status_client **index_clients(const struct relay_status *status)
{
	const struct relay_status_client **index = calloc(status->n_clients + 1, sizeof(*index));

	if (!index)
		abort();
	for (uint32_t i = 0; i < status->n_clients; i++)
		index[i] = &status->clients[i];
	qsort(index, status->n_clients, sizeof(*index), by_key);
	return index;
}

static struct row row_of_all(const struct relay_status_client *client)
{
	return (struct row){ client, client->packets_in, client->bytes_in, client->packets_out, client->bytes_out };
}

/* then: NULL for one that is new, or has connected again: it counts from 0. */
static struct row row_of_rates(const struct relay_status_client *client, const struct relay_status_client *then,
			       uint64_t ms)
{
	return (struct row){ .client = client,
			     .packets_in = a_second(client->packets_in, then ? then->packets_in : 0, ms),
			     .bytes_in = a_second(client->bytes_in, then ? then->bytes_in : 0, ms),
			     .packets_out = a_second(client->packets_out, then ? then->packets_out : 0, ms),
			     .bytes_out = a_second(client->bytes_out, then ? then->bytes_out : 0, ms) };
}

static void make_rates(struct row *rows, const struct relay_status *status, const struct relay_status *earlier,
		       uint64_t ms)
{
	const struct relay_status_client **index = index_clients(earlier);

	for (uint32_t i = 0; i < status->n_clients; i++) {
		const struct relay_status_client *client = &status->clients[i], **then = NULL;
		if (client->connected_ms >= ms)
			then = bsearch(&client, index, earlier->n_clients, sizeof(*index), by_key);
		rows[i] = row_of_rates(client, then ? *then : NULL, ms);
	}
	free(index);
}

static int by_bytes(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	uint64_t l = x->bytes_in + x->bytes_out, r = y->bytes_in + y->bytes_out;

	return l != r ? (l < r) - (l > r) : strcmp(x->client->name, y->client->name);
}

static void put_row(struct table *table, const struct row *row, const char *unit)
{
	const struct relay_status_client *client = row->client;

	table_cell(table, "%s", client->name[0] ? client->name : "-");
	table_cell(table, "%s", client->transport);
	table_cell(table, "%s", endpoint_text(&client->remote).s);
	table_cell(table, "%s", format_duration((int64_t)client->connected_ms).s);
	table_cell(table, "%" PRIu64 "%s", row->packets_in, unit);
	table_cell(table, "%s%s", format_bytes(row->bytes_in).s, unit);
	table_cell(table, "%" PRIu64 "%s", row->packets_out, unit);
	table_cell(table, "%s%s", format_bytes(row->bytes_out).s, unit);
	table_cell(table, "%" PRIu64, client->dropped);
}

static void report_clients(FILE *out, const struct relay_status *status, const struct relay_status *earlier,
			   uint64_t ms, uint32_t max)
{
	uint32_t n = status->n_clients, listed = max > 0 && max < n ? max : n;
	uint32_t all = status->tls_clients + status->udp_clients;
	struct row *rows = calloc(n + 1, sizeof(*rows));

	if (!rows)
		abort();
	for (uint32_t i = 0; i < n && ms == 0; i++)
		rows[i] = row_of_all(&status->clients[i]);
	if (ms > 0)
		make_rates(rows, status, earlier, ms);
	qsort(rows, n, sizeof(*rows), by_bytes);
	struct table *table = table_new("CLIENT|BY|FROM|>CONNECTED|>PACKETS IN|>BYTES IN|>PACKETS OUT|"
					">BYTES OUT|>DROPPED");
	for (uint32_t i = 0; i < listed; i++)
		put_row(table, &rows[i], ms > 0 ? "/s" : "");
	fputc('\n', out);
	table_print(table, out);
	if (listed < all)
		fprintf(out, "and %u more\n", all - listed);
	free(rows);
}

void report_relay_status(FILE *out, const struct relay_status *status, const struct relay_status *earlier,
			 uint32_t max_clients)
{
	uint64_t ms = time_between(status, earlier);

	report_head(out, status);
	if (ms > 0)
		report_rates(out, status, earlier, ms);
	report_counts(out, "dropped", &status->drops);
	report_counts(out, "refused", &status->refused);
	report_counts(out, "closed", &status->closed);
	report_counts(out, "stun", &status->stun);
	if (status->n_clients == 0 && status->tls_clients + status->udp_clients == 0)
		fputs("\nNo clients now: nodes connect when they have chosen this relay, or send to a peer that has.\n",
		      out);
	else
		report_clients(out, status, earlier, ms, max_clients);
}
