/* What doors say to each other of streams: it comes out as it went in, or not at all. */
#include "relay/frontdoor/port_name.h"
#include "relay/frontdoor/stream_wire.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t buf[STREAM_MAX_MESSAGE];

static struct host_name host_of(const char *text)
{
	struct host_name host;

	assert(host_name_from(text, strlen(text), &host) == 0);
	return host;
}

static struct stream_said carried(void)
{
	struct stream_said said = { .kind = STREAM_CARRIED,
				    .remote = endpoint_from_v4(0xc0000207, 40000),
				    .quiet_ms = 12345,
				    .n_doors = 1,
				    .protocol = SNIFFER_TLS,
				    .host = host_of("app.example.org") };

	said.ends[0].is_prompt = true;
	said.ends[1].is_urgent = true;
	said.flows[0] = (struct stream_flow){ .waiting = 5, .has_ended = true, .n_bytes = 1000, .head = (const uint8_t *)"hello" };
	said.flows[1] = (struct stream_flow){ .waiting = 65536, .is_in_pipe = true, .is_bulk = true, .n_bytes = UINT64_C(1) << 40 };
	return said;
}

static bool is_same_flow(const struct stream_flow *a, const struct stream_flow *b)
{
	return a->waiting == b->waiting && a->is_in_pipe == b->is_in_pipe && a->has_ended == b->has_ended &&
	       a->is_cut_off == b->is_cut_off && a->is_done == b->is_done && a->is_finished == b->is_finished &&
	       a->is_bulk == b->is_bulk && a->n_bytes == b->n_bytes &&
	       (a->is_in_pipe || memcmp(a->head ? a->head : buf, b->head ? b->head : buf, a->waiting) == 0);
}

static void test_what_is_said_comes_out_again(void)
{
	const struct stream_said said = carried();
	struct stream_said again;
	const size_t n = stream_encode(&said, buf);

	assert(stream_decode(buf, n, &again) == 0);
	assert(again.kind == STREAM_CARRIED && endpoint_equal(&again.remote, &said.remote) && again.quiet_ms == 12345 &&
	       again.n_doors == 1 && !again.is_at_relays && !again.is_members && again.protocol == SNIFFER_TLS &&
	       host_name_equal(&again.host, &said.host));
	assert(again.ends[0].is_prompt && !again.ends[0].is_urgent && again.ends[1].is_urgent && !again.ends[1].is_broken);
	assert(is_same_flow(&again.flows[0], &said.flows[0]) && is_same_flow(&again.flows[1], &said.flows[1]));
	assert(stream_count_fds(&again) == 4);

	struct stream_said members = said;
	members.is_members = true;
	assert(stream_decode(buf, stream_encode(&members, buf), &again) == 0 && again.is_members && !again.is_at_relays);
	members.kind = STREAM_SNIFFED; /* whose host is not known yet */
	assert(stream_decode(buf, stream_encode(&members, buf), &again) == -EBADMSG);

	const struct stream_said sniffed = { .kind = STREAM_SNIFFED, .remote = said.remote, .is_at_relays = true,
					     .bytes = (const uint8_t *)"GET /", .n_bytes = 5 };
	assert(stream_decode(buf, stream_encode(&sniffed, buf), &again) == 0);
	assert(again.is_at_relays && again.n_bytes == 5 && memcmp(again.bytes, "GET /", 5) == 0 && stream_count_fds(&again) == 1);

	const struct stream_said last = { .kind = STREAM_LAST, .n_handed = 7, .n_left = 3 };
	assert(stream_decode(buf, stream_encode(&last, buf), &again) == 0 && again.n_handed == 7 && again.n_left == 3);
}

static void test_a_port_stands_where_a_host_does(void)
{
	const struct port_name port = { .kind = PORT_TCP, .number = 2222 }, at_one = { .kind = PORT_TCP, .number = 2222, .door_id = 7 };
	struct stream_said said = carried(), again;

	said.protocol = SNIFFER_TCP;
	port_name_to_host(&port, &said.host);
	assert(stream_decode(buf, stream_encode(&said, buf), &again) == 0);
	assert(again.protocol == SNIFFER_TCP && host_name_equal(&again.host, &said.host));
	port_name_to_host(&at_one, &said.host);
	assert(stream_decode(buf, stream_encode(&said, buf), &again) == -EBADMSG);
}

/* Only who is sniffed has no length of its own: less of it is another who has said less. */
static void test_what_is_cut_or_has_more_behind_it_is_refused(void)
{
	const struct stream_said first = { .kind = STREAM_FIRST, .saved_ms = 1 }, last = { .kind = STREAM_LAST, .n_handed = 1 },
				 middle = carried();
	const struct stream_said *all[] = { &first, &middle, &last };
	struct stream_said again;

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		const size_t n = stream_encode(all[i], buf);
		for (size_t cut = 0; cut < n; cut++) {
			uint8_t *exact = malloc(cut + 1); /* so that a reader that goes too far is seen */
			memcpy(exact, buf, cut);
			uint8_t *shrunk = realloc(exact, cut ? cut : 1);
			assert(stream_decode(shrunk, cut, &again) < 0);
			free(shrunk);
		}
		buf[n] = 0;
		assert(stream_decode(buf, n + 1, &again) == -EBADMSG);
	}
}

static void test_another_format_is_not_understood(void)
{
	const struct stream_said first = { .kind = STREAM_FIRST, .saved_ms = 1 };
	struct stream_said again;
	const size_t n = stream_encode(&first, buf);

	assert(stream_decode(buf, n, &again) == 0 && again.saved_ms == 1 && stream_count_fds(&again) == 0);
	buf[n - 9]++; /* the last of the label: a version */
	assert(stream_decode(buf, n, &again) == -EPROTONOSUPPORT);
}

static bool is_refused(const struct stream_said *said)
{
	struct stream_said again;

	return stream_decode(buf, stream_encode(said, buf), &again) == -EBADMSG;
}

static void test_what_contradicts_itself_is_refused(void)
{
	struct stream_said said = carried();

	said.flows[1].waiting = 0; /* in a pipe */
	assert(is_refused(&said));
	said.flows[1].waiting = STREAM_MAX_IN_PIPE + 1;
	assert(is_refused(&said));
	said = carried();
	said.flows[0].is_done = true; /* and something waits */
	assert(is_refused(&said));
	said = carried();
	said.flows[0] = (struct stream_flow){ .is_cut_off = true };
	assert(is_refused(&said));
	said.flows[0] = (struct stream_flow){ .is_finished = true };
	assert(is_refused(&said));
	said.flows[0] = said.flows[1] = (struct stream_flow){ .is_done = true };
	assert(is_refused(&said)); /* it is over */
	said = carried();
	strcpy(said.host.text, "App.example.org"); /* no name has capital letters */
	assert(is_refused(&said));
	strcpy(said.host.text, "app\nexample.org");
	assert(is_refused(&said));
}

int main(void)
{
	test_what_is_said_comes_out_again();
	test_a_port_stands_where_a_host_does();
	test_what_is_cut_or_has_more_behind_it_is_refused();
	test_another_format_is_not_understood();
	test_what_contradicts_itself_is_refused();
	return 0;
}
