/*
 * Handshakes between two devices: who says what, in both roles, and what is refused.
 */
#include "tests/unit/wireguard/tunnel.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static struct world w;

static void test_a_first_packet_makes_a_session_and_then_arrives(void)
{
	world_begin(&w);
	w.trace_datagrams = true;

	say(&w.alice, 1, 100);
	cable_run(&w);

	expect_trace(&w,
		"[  0] alice: send initiation\n"
		"[  0] bob: roamed\n"
		"[  0] bob: send response\n"
		"[  0] alice: session\n"
		"[  0] alice: send data\n"
		"[  0] bob: session\n");
	assert(heard(&w.bob, 1, 100));
	say(&w.bob, 2, 1420);
	cable_run(&w);
	assert(heard(&w.alice, 2, 1420));
	world_end(&w);
}

int main(void)
{
	test_a_first_packet_makes_a_session_and_then_arrives();
	puts("ok");
}
