/*
 * Whatever clients do at whatever moment, and the operator beside them: nothing is leaked, touched after its end, or
 * left open, and who behaves is served afterwards. The sanitizers say the rest.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_CLIENTS 12
#define N_STEPS	  1500

struct chaos {
	struct world w;
	SSL_CTX *contexts[N_CLIENTS];
	struct public_key keys[N_CLIENTS];
	struct raw raws[N_CLIENTS];
	bool is_open[N_CLIENTS];
};

static void flip(struct chaos *c, int i)
{
	if (!c->is_open[i])
		raw_connect(&c->raws[i], &c->w, c->contexts[i]);
	else
		raw_close(&c->raws[i]);
	c->is_open[i] = !c->is_open[i];
}

static void say_packet(struct chaos *c, int from, int to, size_t len)
{
	static uint8_t packet[2000], frame[2048];
	const struct relay_frame send = { .type = RELAY_SEND, .packet = { c->keys[to], packet, len } };

	if (!c->is_open[from] || c->raws[from].n_hello == 0 || c->raws[from].is_ended ||
	    c->raws[from].n_out + len + RELAY_PACKET_HEAD > sizeof(c->raws[from].out))
		return;
	raw_say(&c->raws[from], frame, relay_encode(frame, sizeof(frame), &send));
}

static void say_garbage(struct chaos *c, int i)
{
	uint8_t bytes[16];

	if (!c->is_open[i] || c->raws[i].n_hello == 0 || c->raws[i].is_ended ||
	    c->raws[i].n_out + sizeof(bytes) > sizeof(c->raws[i].out))
		return;
	for (size_t n = 0; n < sizeof(bytes); n++)
		bytes[n] = (uint8_t)rand();
	raw_say(&c->raws[i], bytes, 1 + (size_t)rand() % sizeof(bytes));
}

static void step(struct chaos *c)
{
	int i = rand() % N_CLIENTS, j = rand() % N_CLIENTS;

	switch (rand() % 16) {
	case 0:
		flip(c, i);
		break;
	case 1:
		say_garbage(c, i);
		break;
	case 2:
		if (c->is_open[i])
			tls_stream_pause(&c->raws[i].stream, rand() % 2);
		break;
	case 3:
		c->w.removed = rand() % 2 ? c->keys[i] : (struct public_key){ { 0 } };
		relay_server_recheck_members(c->w.server);
		break;
	case 4:
		if (rand() % 4 == 0)
			relay_server_drain(c->w.server, (uint32_t)(rand() % 30));
		else
			relay_server_undrain(c->w.server);
		break;
	case 5:
		run_for(&c->w, (uint64_t)(rand() % 4));
		break;
	default:
		for (int n = rand() % 20; n > 0; n--)
			say_packet(c, i, j, 1 + (size_t)rand() % 1500);
		uv_run(&c->w.loop, UV_RUN_NOWAIT);
		break;
	}
}

static void run_chaos(unsigned seed)
{
	static struct chaos c;

	c = (struct chaos){ 0 };
	srand(seed);
	world_begin(&c.w);
	c.w.server_options.max_queue = 20000;
	c.w.server_options.max_rate_source = 100000;
	c.w.server_options.max_rate_client = seed % 2 ? 8000000 : 0;
	start_server(&c.w);
	for (int i = 0; i < N_CLIENTS; i++) {
		/* Some have the key of another. */
		memset(c.keys[i].bytes, i % (N_CLIENTS - 2) + 1, sizeof(c.keys[i].bytes));
		c.contexts[i] = make_context(&c.w, NULL, "chaos", &c.keys[i], false, 3600);
	}
	for (int i = 0; i < N_STEPS; i++)
		step(&c);
	for (int i = 0; i < N_CLIENTS; i++)
		if (c.is_open[i])
			flip(&c, i);
	relay_server_undrain(c.w.server);
	c.w.removed = (struct public_key){ { 0 } };
	flip(&c, 0);
	AWAIT(&c.w, c.raws[0].n_hello == 1);
	flip(&c, 0);
	AWAIT(&c.w, relay_server_counters(c.w.server).clients == 0);
	EXPECT(relay_server_counters(c.w.server).queued_bytes == 0);
	for (int i = 0; i < N_CLIENTS; i++)
		SSL_CTX_free(c.contexts[i]);
	world_end(&c.w);
}

int main(void)
{
	for (unsigned seed = 1; seed <= 4; seed++)
		run_chaos(seed);
	puts("ok");
	return 0;
}
