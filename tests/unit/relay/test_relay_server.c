/*
 * The relay over TLS, with real connections on loopback (docs/PROTOCOL-relay.md): members exchange
 * packets through it; whoever is none gets nowhere; and what one does, no other feels.
 */
#include "world.h"

#include <stdio.h>
#include <string.h>

static void test_two_members_exchange_packets_in_order(void)
{
	struct world w;
	struct member alice, bob;
	world_begin(&w);
	start_server(&w);
	make_member(&alice, &w, "alice", 1);
	make_member(&bob, &w, "bob", 2);
	connect_and_await(&alice);
	connect_and_await(&bob);

	EXPECT(send_text(&alice, &bob, "hello bob") == 0);
	AWAIT(&w, bob.n_packets == 1);
	EXPECT(got_text(&bob, "hello bob"));
	EXPECT(public_key_equal(&bob.last_from, &alice.key));
	EXPECT(send_text(&bob, &alice, "hello alice") == 0);
	AWAIT(&w, alice.n_packets == 1);
	EXPECT(got_text(&alice, "hello alice"));

	bob.last_number = 0;
	for (uint64_t i = 1; i <= 200; i++)
		send_number(&alice, &bob, i, 8 + i * 6);
	AWAIT(&w, bob.last_number == 200);
	EXPECT(bob.n_packets == 201 && bob.n_misordered == 0);

	struct relay_server_counters counters = relay_server_counters(w.server);
	EXPECT(counters.clients == 2 && counters.packets == 202 && counters.packets_out == 202);

	close_member(&alice);
	close_member(&bob);
	world_end(&w);
}

int main(void)
{
	test_two_members_exchange_packets_in_order();
	puts("ok");
	return 0;
}
