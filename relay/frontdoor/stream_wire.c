/* A kind, its fields, and what is left is bytes: their number must be just what the fields say. */
#include "relay/frontdoor/stream_wire.h"

#include "common/wire.h"
#include "relay/frontdoor/port_name.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define LABEL	  "p2pnode front door streams 1"
#define LABEL_LEN (sizeof(LABEL) - 1)

enum visitor_flag { VISITOR_AT_RELAYS = 1, VISITOR_MEMBERS = 2 };
enum end_flag { END_URGENT = 1, END_BROKEN = 2, END_PROMPT = 4, END_ALL = 7 };
enum flow_flag { FLOW_IN_PIPE = 1, FLOW_ENDED = 2, FLOW_CUT_OFF = 4, FLOW_DONE = 8, FLOW_FINISHED = 16, FLOW_BULK = 32,
		 FLOW_ALL = 63 };

size_t stream_count_fds(const struct stream_said *said)
{
	if (said->kind == STREAM_CARRIED)
		return 2u + 2u * said->flows[0].is_in_pipe + 2u * said->flows[1].is_in_pipe;
	return said->kind == STREAM_SNIFFED;
}

/* ---- writing ---- */

static void put_visitor(struct wire_writer *w, const struct stream_said *said)
{
	wire_put_endpoint(w, &said->remote);
	wire_put_u32(w, said->remote.scope_id);
	wire_put_u32(w, said->quiet_ms);
	wire_put_u8(w, said->n_doors);
	wire_put_u8(w, (uint8_t)((said->is_at_relays ? VISITOR_AT_RELAYS : 0) | (said->is_members ? VISITOR_MEMBERS : 0)));
}

static void put_flow(struct wire_writer *w, const struct stream_flow *flow)
{
	const int flags = (flow->is_in_pipe ? FLOW_IN_PIPE : 0) | (flow->has_ended ? FLOW_ENDED : 0) |
			  (flow->is_cut_off ? FLOW_CUT_OFF : 0) | (flow->is_done ? FLOW_DONE : 0) |
			  (flow->is_finished ? FLOW_FINISHED : 0) | (flow->is_bulk ? FLOW_BULK : 0);

	wire_put_u8(w, (uint8_t)flags);
	wire_put_u32(w, flow->waiting);
	wire_put_u64(w, flow->n_bytes);
}

static void put_carried(struct wire_writer *w, const struct stream_said *said)
{
	put_visitor(w, said);
	wire_put_u8(w, (uint8_t)said->protocol);
	wire_put_u8(w, said->host.len);
	wire_put(w, said->host.text, said->host.len);
	for (int i = 0; i < 2; i++)
		wire_put_u8(w, (uint8_t)((said->ends[i].is_urgent ? END_URGENT : 0) |
					 (said->ends[i].is_broken ? END_BROKEN : 0) |
					 (said->ends[i].is_prompt ? END_PROMPT : 0)));
	for (int i = 0; i < 2; i++)
		put_flow(w, &said->flows[i]);
	for (int i = 0; i < 2; i++)
		if (!said->flows[i].is_in_pipe && said->flows[i].waiting > 0)
			wire_put(w, said->flows[i].head, said->flows[i].waiting);
}

size_t stream_encode(const struct stream_said *said, uint8_t buf[STREAM_MAX_MESSAGE])
{
	struct wire_writer w = wire_writer(buf, STREAM_MAX_MESSAGE);

	wire_put_u8(&w, (uint8_t)said->kind);
	switch (said->kind) {
	case STREAM_FIRST:
		wire_put(&w, LABEL, LABEL_LEN);
		wire_put_u64(&w, said->saved_ms);
		break;
	case STREAM_CARRIED:
		put_carried(&w, said);
		break;
	case STREAM_SNIFFED:
		put_visitor(&w, said);
		if (said->n_bytes > 0)
			wire_put(&w, said->bytes, said->n_bytes);
		break;
	case STREAM_LAST:
		wire_put_u32(&w, said->n_handed);
		wire_put_u32(&w, said->n_left);
		break;
	}
	assert(!w.failed);
	return (size_t)(w.at - w.base);
}

/* ---- reading ---- */

static void get_visitor(struct wire_reader *r, struct stream_said *ret)
{
	ret->remote = wire_endpoint(r);
	ret->remote.scope_id = wire_u32(r);
	ret->quiet_ms = wire_u32(r);
	ret->n_doors = wire_u8(r);
	const uint8_t flags = wire_u8(r);
	const uint8_t known = VISITOR_AT_RELAYS | (ret->kind == STREAM_CARRIED ? VISITOR_MEMBERS : 0);
	r->failed = r->failed || (flags & ~known) != 0;
	ret->is_at_relays = flags & VISITOR_AT_RELAYS;
	ret->is_members = flags & VISITOR_MEMBERS;
}

/* As names are that were normalised; no other one can be asked for. */
static void get_host(struct wire_reader *r, struct host_name *ret)
{
	const uint8_t len = wire_u8(r);
	const uint8_t *text = wire_take(r, len);
	struct host_name host = { 0 };

	if (r->failed || len == 0)
		return;
	if (port_or_host_from((const char *)text, len, &host) != 0 || host.len != len || memcmp(host.text, text, len) != 0)
		r->failed = true;
	*ret = host;
}

static void get_end(struct wire_reader *r, struct stream_end *ret)
{
	const uint8_t flags = wire_u8(r);

	r->failed = r->failed || flags > END_ALL;
	*ret = (struct stream_end){ .is_urgent = flags & END_URGENT, .is_broken = flags & END_BROKEN,
				    .is_prompt = flags & END_PROMPT };
}

static bool is_flow_good(const struct stream_flow *flow)
{
	if (flow->is_in_pipe ? flow->waiting == 0 || flow->waiting > STREAM_MAX_IN_PIPE : flow->waiting > STREAM_MAX_KEPT)
		return false;
	return !(flow->is_done && flow->waiting > 0) && !(flow->is_finished && !flow->is_done) &&
	       !(flow->is_finished && !flow->has_ended) && !(flow->is_cut_off && !flow->has_ended);
}

static void get_flow(struct wire_reader *r, struct stream_flow *ret)
{
	const uint8_t flags = wire_u8(r);

	*ret = (struct stream_flow){ .is_in_pipe = flags & FLOW_IN_PIPE, .has_ended = flags & FLOW_ENDED,
				     .is_cut_off = flags & FLOW_CUT_OFF, .is_done = flags & FLOW_DONE,
				     .is_finished = flags & FLOW_FINISHED, .is_bulk = flags & FLOW_BULK };
	ret->waiting = wire_u32(r);
	ret->n_bytes = wire_u64(r);
	r->failed = r->failed || flags > FLOW_ALL || !is_flow_good(ret);
}

static void get_carried(struct wire_reader *r, struct stream_said *ret)
{
	get_visitor(r, ret);
	const uint8_t protocol = wire_u8(r);
	r->failed = r->failed || protocol >= SNIFFER_N_PROTOCOLS;
	ret->protocol = (enum sniffer_protocol)protocol;
	get_host(r, &ret->host);
	for (int i = 0; i < 2; i++)
		get_end(r, &ret->ends[i]);
	for (int i = 0; i < 2; i++)
		get_flow(r, &ret->flows[i]);
	r->failed = r->failed || (ret->flows[0].is_done && ret->flows[1].is_done); /* it is over */
	for (int i = 0; i < 2; i++)
		if (!ret->flows[i].is_in_pipe && ret->flows[i].waiting > 0)
			ret->flows[i].head = wire_take(r, ret->flows[i].waiting);
}

static void get_sniffed(struct wire_reader *r, struct stream_said *ret)
{
	get_visitor(r, ret);
	ret->n_bytes = wire_left(r);
	r->failed = r->failed || ret->n_bytes > SNIFFER_MAX;
	ret->bytes = wire_take(r, ret->n_bytes);
}

static int get_first(struct wire_reader *r, struct stream_said *ret)
{
	const uint8_t *label = wire_take(r, LABEL_LEN);

	if (!label || memcmp(label, LABEL, LABEL_LEN) != 0)
		return -EPROTONOSUPPORT;
	ret->saved_ms = wire_u64(r);
	return 0;
}

int stream_decode(const uint8_t *buf, size_t len, struct stream_said *ret)
{
	struct wire_reader r = wire_reader(buf, len);
	struct stream_said said = { .kind = (enum stream_kind)wire_u8(&r) };
	int bad = 0;

	switch (said.kind) {
	case STREAM_FIRST:
		bad = get_first(&r, &said);
		break;
	case STREAM_CARRIED:
		get_carried(&r, &said);
		break;
	case STREAM_SNIFFED:
		get_sniffed(&r, &said);
		break;
	case STREAM_LAST:
		said.n_handed = wire_u32(&r);
		said.n_left = wire_u32(&r);
		break;
	default:
		bad = -EBADMSG;
	}
	if (bad < 0 || !wire_done(&r))
		return bad < 0 ? bad : -EBADMSG;
	*ret = said;
	return 0;
}
