/* What p2pctl relay status prints, to the letter. */
#include "ctl/relay_report.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(const struct relay_status *status, const struct relay_status *earlier, uint32_t max,
		   const char *expected)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	report_relay_status(out, status, earlier, max);
	fclose(out);
	if (strcmp(text, expected) != 0)
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, text);
	assert(strcmp(text, expected) == 0);
	free(text);
}

static struct relay_status_client *add(struct relay_status *status, const char *name, uint64_t packets,
				       uint64_t bytes)
{
	struct relay_status_client *client = relay_status_add_client(status);

	strcpy(client->name, name);
	strcpy(client->transport, "tls");
	status->tls_clients++;
	client->remote = endpoint_from_v4(0xc6336409, (uint16_t)(40000 + status->n_clients));
	client->connected_ms = 300000;
	client->packets_in = packets;
	client->bytes_in = bytes;
	client->packets_out = packets / 2;
	client->bytes_out = bytes / 2;
	memset(&client->node_key, name[0], sizeof(client->node_key));
	return client;
}

static void gate(struct relay_status *status)
{
	relay_status_init(status);
	status->tls_port = 443;
	status->stun_port = 3478;
	status->uptime_ms = 7500000;
	status->cpu_ms = 15000;
	status->handshakes = 1;
	status->queue_mean_us = 412;
	status->queue_longest_ms = 12;
	status->totals = (struct relay_status_totals){ 12, 9, 1000, 1 << 20, 900, 3 << 20 };
	relay_status_add_count(&status->drops, "destination unknown", 98);
	relay_status_add_count(&status->drops, "queue full", 2);
	relay_status_add_count(&status->refused, "not a member", 0);
	relay_status_add_count(&status->stun, "received", 20);
	relay_status_add_count(&status->stun, "garbage", 0);
	relay_status_add_count(&status->stun, "answered", 19);
}

static void test_a_relay_without_clients(void)
{
	struct relay_status status;

	gate(&status);
	expect(&status, NULL, 0,
	       "relay       TLS on TCP port 443; UDP port 3478, as STUN\n"
	       "process     running for 2 h 5 min, CPU time 15.0 s (0.2 % of a core)\n"
	       "clients     0 by TLS, 0 by UDP; 9 admitted of 12 connections, 1 in their handshake\n"
	       "packets     1000 in (1.0 MiB), 900 out (3.0 MiB)\n"
	       "queue       0.4 ms waited for by a packet over TLS, 12 ms at most lately\n"
	       "dropped     destination unknown 98, queue full 2\n"
	       "refused     none\n"
	       "closed      none\n"
	       "stun        received 20, answered 19\n"
	       "\n"
	       "No clients now: nodes connect when they have chosen this relay, or send to a peer that has.\n");
}

static void test_clients_with_most_bytes_come_first(void)
{
	struct relay_status status;

	gate(&status);
	add(&status, "bob", 10, 2000);
	add(&status, "alice", 200, 3 << 20)->dropped = 2;
	add(&status, "dave", 10, 2000);
	expect(&status, NULL, 0,
	       "relay       TLS on TCP port 443; UDP port 3478, as STUN\n"
	       "process     running for 2 h 5 min, CPU time 15.0 s (0.2 % of a core)\n"
	       "clients     3 by TLS, 0 by UDP; 9 admitted of 12 connections, 1 in their handshake\n"
	       "packets     1000 in (1.0 MiB), 900 out (3.0 MiB)\n"
	       "queue       0.4 ms waited for by a packet over TLS, 12 ms at most lately\n"
	       "dropped     destination unknown 98, queue full 2\n"
	       "refused     none\n"
	       "closed      none\n"
	       "stun        received 20, answered 19\n"
	       "\n"
	       "CLIENT  BY   FROM                CONNECTED  PACKETS IN  BYTES IN  PACKETS OUT  BYTES OUT  DROPPED\n"
	       "alice   tls  198.51.100.9:40002      5 min         200   3.0 MiB          100    1.5 MiB        2\n"
	       "bob     tls  198.51.100.9:40001      5 min          10   2.0 KiB            5     1000 B        0\n"
	       "dave    tls  198.51.100.9:40003      5 min          10   2.0 KiB            5     1000 B        0\n");
	relay_status_deinit(&status);
}

/* alice has done much, but before; carol has connected again since, and dave is new. */
static void test_rates_are_of_the_time_since_the_earlier_status(void)
{
	struct relay_status earlier, status;

	gate(&earlier);
	add(&earlier, "alice", 200, 3 << 20);
	add(&earlier, "bob", 10, 2000);
	add(&earlier, "carol", 50, 5000);
	gate(&status);
	status.uptime_ms += 2000;
	status.cpu_ms += 500;
	status.totals.packets_in += 2000;
	status.totals.bytes_in += 2 << 20;
	add(&status, "alice", 200, 3 << 20);
	add(&status, "bob", 1010, 2000 + 4096);
	add(&status, "carol", 60, 2048)->connected_ms = 1000;
	add(&status, "dave", 20, 1024)->connected_ms = 1000;
	expect(&status, &earlier, 3,
	       "relay       TLS on TCP port 443; UDP port 3478, as STUN\n"
	       "process     running for 2 h 5 min, CPU time 15.5 s (0.2 % of a core)\n"
	       "clients     4 by TLS, 0 by UDP; 9 admitted of 12 connections, 1 in their handshake\n"
	       "packets     3000 in (3.0 MiB), 900 out (3.0 MiB)\n"
	       "queue       0.4 ms waited for by a packet over TLS, 12 ms at most lately\n"
	       "now         1000 packets/s in (1.0 MiB/s), 0 out (0 B/s), CPU 25.0 % of a core\n"
	       "dropped     destination unknown 98, queue full 2\n"
	       "refused     none\n"
	       "closed      none\n"
	       "stun        received 20, answered 19\n"
	       "\n"
	       "CLIENT  BY   FROM                CONNECTED  PACKETS IN   BYTES IN  PACKETS OUT  BYTES OUT  DROPPED\n"
	       "bob     tls  198.51.100.9:40002      5 min       500/s  2.0 KiB/s        250/s  1.0 KiB/s        0\n"
	       "carol   tls  198.51.100.9:40003        1 s        30/s  1.0 KiB/s         15/s    512 B/s        0\n"
	       "dave    tls  198.51.100.9:40004        1 s        10/s    512 B/s          5/s    256 B/s        0\n"
	       "and 1 more\n");
	relay_status_deinit(&earlier);
	relay_status_deinit(&status);
}

static void test_after_a_restart_there_are_no_rates(void)
{
	struct relay_status earlier, status;

	gate(&earlier);
	gate(&status);
	status.uptime_ms = 500;
	status.cpu_ms = 5;
	status.totals = (struct relay_status_totals){ 0 };
	status.drops.n = status.stun.n = 0;
	expect(&status, &earlier, 0,
	       "relay       TLS on TCP port 443; UDP port 3478, as STUN\n"
	       "process     running for less than 1 s, CPU time 0.0 s (1.0 % of a core)\n"
	       "clients     0 by TLS, 0 by UDP; 0 admitted of 0 connections, 1 in their handshake\n"
	       "packets     0 in (0 B), 0 out (0 B)\n"
	       "queue       0.4 ms waited for by a packet over TLS, 12 ms at most lately\n"
	       "dropped     none\n"
	       "refused     none\n"
	       "closed      none\n"
	       "stun        none\n"
	       "\n"
	       "No clients now: nodes connect when they have chosen this relay, or send to a peer that has.\n");
}

int main(void)
{
	test_a_relay_without_clients();
	test_clients_with_most_bytes_come_first();
	test_rates_are_of_the_time_since_the_earlier_status();
	test_after_a_restart_there_are_no_rates();
	return 0;
}
