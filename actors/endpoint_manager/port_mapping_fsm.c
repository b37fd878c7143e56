/*
 * A forwarded port: see the drawing in the header and the table below. A request is repeated a few times, then
 * its way is given up; while a mapping holds, it is not.
 */
#include "actors/endpoint_manager/port_mapping_fsm.h"

#include "common/macros.h"
#include "common/wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((uint64_t)(n)*1000u)

#define LIFETIME_S    7200u /* asked for, as RFC 6886 section 3.3 recommends */
#define MAX_LIFETIME_S 86400u /* a router may say more: what it forgets is found out sooner */
#define MIN_RENEW_NS  S(4)    /* RFC 6887 section 11.2.1 */
#define REST_NS	      S(600)
#define UPNP_NS	      S(20) /* found, described, asked: the shell's time */
#define REMOVE_NS     MS(500)
#define UPNP_REMOVE_NS MS(1500)
#define EPOCH_SLACK_S 2
#define NEVER	      UINT64_MAX
#define MAX_EVENTS    8

#define ANY PORT_MAPPING_N_STATES

/* After the beginning of a request; then the end of its patience. */
static const uint64_t sends_ns[] = { 0, MS(250), MS(750), MS(1750) };
#define SILENT_NS MS(3000)

enum event {
	EV_ROUTER,    /* another router, or another address of ours */
	EV_NO_ROUTER,
	EV_MAPPED,
	EV_REFUSED,   /* or the router does not know this way */
	EV_SILENT,
	EV_NO_WAY_LEFT,
	EV_SEND_DUE,
	EV_RENEWAL_DUE,
	EV_EXPIRED,
	EV_FORGOTTEN, /* the router has begun anew */
	EV_REST_OVER,
	EV_STOP,
	EV_REMOVED,   /* or waited for in vain */
	N_EVENTS,
	EV_NONE = N_EVENTS,
};

static const char *const state_names[] = {
	[PORT_MAPPING_OFF] = "off",	      [PORT_MAPPING_ASKING] = "asking",
	[PORT_MAPPING_MAPPED] = "mapped",     [PORT_MAPPING_RENEWING] = "renewing",
	[PORT_MAPPING_RESTING] = "resting",   [PORT_MAPPING_REMOVING] = "removing",
};
static_assert(ARRAY_LEN(state_names) == PORT_MAPPING_N_STATES, "a name for every state");

static const char *const way_names[] = {
	[PORT_MAPPING_PCP] = "PCP", [PORT_MAPPING_NATPMP] = "NAT-PMP", [PORT_MAPPING_UPNP] = "UPnP"
};
static_assert(ARRAY_LEN(way_names) == PORT_MAPPING_N_WAYS, "a name for every way");

static const char *const event_names[] = {
	[EV_ROUTER] = "router",		[EV_NO_ROUTER] = "no router",	  [EV_MAPPED] = "mapped",
	[EV_REFUSED] = "refused",	[EV_SILENT] = "silent",		  [EV_NO_WAY_LEFT] = "no way left",
	[EV_SEND_DUE] = "send due",	[EV_RENEWAL_DUE] = "renewal due", [EV_EXPIRED] = "expired",
	[EV_FORGOTTEN] = "forgotten there",	[EV_REST_OVER] = "rest over",	  [EV_STOP] = "stop",
	[EV_REMOVED] = "removed",
};
static_assert(ARRAY_LEN(event_names) == N_EVENTS, "a name for every event");

static uint64_t next_random(struct port_mapping_fsm *fsm)
{
	uint64_t z = fsm->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static struct port_mapping_action *add(struct port_mapping_actions *out, enum port_mapping_action_type type)
{
	assert(out->n < PORT_MAPPING_MAX_ACTIONS);
	struct port_mapping_action *action = &out->all[out->n++];

	*action = (struct port_mapping_action){ .type = type };
	return action;
}

static bool same_ip(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

/* ---- requests ---- */

static void send_pcp(const struct port_mapping_fsm *fsm, uint32_t lifetime_s, struct port_mapping_actions *out)
{
	struct port_mapping_action *action = add(out, PORT_MAPPING_DO_SEND);
	struct pcp_map map = { .ours = fsm->ours, .lifetime_s = lifetime_s };

	/* Whoever removes leaves the suggestion out (RFC 6887 section 15.1). */
	if (lifetime_s > 0)
		map.external = fsm->suggested;
	memcpy(map.nonce, fsm->nonce, sizeof(map.nonce));
	action->len = pcp_encode_map(action->bytes, sizeof(action->bytes), &map);
}

static void send_natpmp(const struct port_mapping_fsm *fsm, uint32_t lifetime_s, struct port_mapping_actions *out)
{
	struct port_mapping_action *action;

	if (lifetime_s > 0) {
		action = add(out, PORT_MAPPING_DO_SEND);
		action->len = natpmp_encode_address(action->bytes, sizeof(action->bytes));
	}
	action = add(out, PORT_MAPPING_DO_SEND);
	const uint16_t wanted = fsm->suggested.port != 0 ? fsm->suggested.port : fsm->ours.port;
	action->len = natpmp_encode_map(action->bytes, sizeof(action->bytes), fsm->ours.port, wanted, lifetime_s);
}

static void send_upnp(const struct port_mapping_fsm *fsm, uint32_t lifetime_s, struct port_mapping_actions *out)
{
	struct port_mapping_action *action =
		add(out, lifetime_s > 0 ? PORT_MAPPING_DO_UPNP_MAP : PORT_MAPPING_DO_UPNP_REMOVE);

	action->external = fsm->suggested.port != 0 ? fsm->suggested : fsm->ours;
	action->lifetime_s = lifetime_s;
}

static void request(struct port_mapping_fsm *fsm, uint32_t lifetime_s, struct port_mapping_actions *out)
{
	fsm->n_sent++;
	switch (fsm->way) {
	case PORT_MAPPING_PCP:
		send_pcp(fsm, lifetime_s, out);
		return;
	case PORT_MAPPING_NATPMP:
		send_natpmp(fsm, lifetime_s, out);
		return;
	case PORT_MAPPING_UPNP:
		send_upnp(fsm, lifetime_s, out);
		return;
	case PORT_MAPPING_N_WAYS:
		break;
	}
}

/* UPnP is the shell's: it repeats by itself. */
static uint32_t max_sends(const struct port_mapping_fsm *fsm)
{
	return fsm->way == PORT_MAPPING_UPNP ? 1 : ARRAY_LEN(sends_ns);
}

static void begin_request(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
			  struct port_mapping_actions *out)
{
	fsm->begun_ns = in->now_ns;
	fsm->n_sent = 0;
	fsm->natpmp_address = (struct endpoint){ 0 };
	request(fsm, LIFETIME_S, out);
}

/* ---- what is done on the way ---- */

static void forget(struct port_mapping_fsm *fsm, struct port_mapping_actions *out)
{
	if (!endpoint_is_none(&fsm->external))
		add(out, PORT_MAPPING_DO_CHANGED);
	fsm->external = (struct endpoint){ 0 };
}

static void turn_off(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
		     struct port_mapping_actions *out)
{
	forget(fsm, out);
	fsm->suggested = (struct endpoint){ 0 };
	fsm->epoch_ns = 0;
}

/* From the first way on. */
static void begin(struct port_mapping_fsm *fsm, const struct port_mapping_input *in, struct port_mapping_actions *out)
{
	struct wire_writer w = wire_writer(fsm->nonce, sizeof(fsm->nonce));

	forget(fsm, out);
	wire_put_u64(&w, next_random(fsm));
	wire_put_u32(&w, (uint32_t)next_random(fsm));
	fsm->way = PORT_MAPPING_PCP;
	fsm->epoch_ns = 0;
	begin_request(fsm, in, out);
}

static void begin_elsewhere(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
			    struct port_mapping_actions *out)
{
	fsm->suggested = (struct endpoint){ 0 };
	begin(fsm, in, out);
}

static void try_next_way(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
			 struct port_mapping_actions *out)
{
	fsm->way++;
	begin_request(fsm, in, out);
}

/* Once, even when several are due because we were late. */
static void send_again(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
		       struct port_mapping_actions *out)
{
	request(fsm, fsm->state == PORT_MAPPING_REMOVING ? 0 : LIFETIME_S, out);
	while (fsm->n_sent < max_sends(fsm) && fsm->begun_ns + sends_ns[fsm->n_sent] <= in->now_ns)
		fsm->n_sent++;
}

/* At half of what is left, so that there is time to try again. */
static void plan_renewal(struct port_mapping_fsm *fsm, uint64_t now_ns)
{
	const uint64_t left_ns = fsm->expiry_ns > now_ns ? fsm->expiry_ns - now_ns : 0;

	fsm->renew_ns = now_ns + (left_ns / 2 > MIN_RENEW_NS ? left_ns / 2 : MIN_RENEW_NS);
}

/* What came is in the input, in one form for all ways (take_*). */
static void keep(struct port_mapping_fsm *fsm, const struct port_mapping_input *in, struct port_mapping_actions *out)
{
	const uint32_t lifetime_s = in->lifetime_s == 0 || in->lifetime_s > MAX_LIFETIME_S ? MAX_LIFETIME_S :
											     in->lifetime_s;

	if (!endpoint_equal(&fsm->external, &in->external))
		add(out, PORT_MAPPING_DO_CHANGED);
	fsm->external = fsm->suggested = in->external;
	fsm->expiry_ns = in->now_ns + S(lifetime_s);
	plan_renewal(fsm, in->now_ns);
}

static void postpone(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
		     struct port_mapping_actions *out)
{
	plan_renewal(fsm, in->now_ns);
}

static void rest(struct port_mapping_fsm *fsm, const struct port_mapping_input *in, struct port_mapping_actions *out)
{
	forget(fsm, out);
	fsm->rest_ns = in->now_ns + REST_NS;
}

static void remove_mapping(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
			   struct port_mapping_actions *out)
{
	forget(fsm, out);
	fsm->is_stopping = true;
	fsm->begun_ns = in->now_ns;
	fsm->n_sent = 0;
	request(fsm, 0, out);
}

static void end(struct port_mapping_fsm *fsm, const struct port_mapping_input *in, struct port_mapping_actions *out)
{
	forget(fsm, out);
	fsm->is_stopping = true;
	add(out, PORT_MAPPING_DO_ENDED);
}

/* ---- the table ---- */

typedef void deed(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
		  struct port_mapping_actions *out);

static const struct arrow {
	int from;
	enum event on;
	enum port_mapping_state to;
	deed *act;
} arrows[] = {
	/* clang-format off */
	/* from                   on               to                     act             */
	{ PORT_MAPPING_ASKING,    EV_MAPPED,       PORT_MAPPING_MAPPED,   keep            },
	{ PORT_MAPPING_ASKING,    EV_SEND_DUE,     PORT_MAPPING_ASKING,   send_again      },
	{ PORT_MAPPING_ASKING,    EV_REFUSED,      PORT_MAPPING_ASKING,   try_next_way    },
	{ PORT_MAPPING_ASKING,    EV_SILENT,       PORT_MAPPING_ASKING,   try_next_way    },
	{ PORT_MAPPING_ASKING,    EV_NO_WAY_LEFT,  PORT_MAPPING_RESTING,  rest            },
	{ PORT_MAPPING_MAPPED,    EV_RENEWAL_DUE,  PORT_MAPPING_RENEWING, begin_request   },
	{ PORT_MAPPING_RENEWING,  EV_MAPPED,       PORT_MAPPING_MAPPED,   keep            },
	{ PORT_MAPPING_RENEWING,  EV_SEND_DUE,     PORT_MAPPING_RENEWING, send_again      },
	{ PORT_MAPPING_RENEWING,  EV_SILENT,       PORT_MAPPING_MAPPED,   postpone        },
	{ PORT_MAPPING_RENEWING,  EV_REFUSED,      PORT_MAPPING_ASKING,   begin           },
	{ PORT_MAPPING_MAPPED,    EV_FORGOTTEN,    PORT_MAPPING_RENEWING, begin_request   },
	{ PORT_MAPPING_RENEWING,  EV_EXPIRED,      PORT_MAPPING_ASKING,   begin           },
	{ PORT_MAPPING_MAPPED,    EV_EXPIRED,      PORT_MAPPING_ASKING,   begin           },
	{ PORT_MAPPING_RESTING,   EV_REST_OVER,    PORT_MAPPING_ASKING,   begin           },
	{ PORT_MAPPING_REMOVING,  EV_SEND_DUE,     PORT_MAPPING_REMOVING, send_again      },
	{ PORT_MAPPING_REMOVING,  EV_REMOVED,      PORT_MAPPING_OFF,      end             },
	{ PORT_MAPPING_REMOVING,  EV_ROUTER,       PORT_MAPPING_OFF,      end             },
	{ PORT_MAPPING_REMOVING,  EV_NO_ROUTER,    PORT_MAPPING_OFF,      end             },
	{ PORT_MAPPING_MAPPED,    EV_STOP,         PORT_MAPPING_REMOVING, remove_mapping  },
	{ PORT_MAPPING_RENEWING,  EV_STOP,         PORT_MAPPING_REMOVING, remove_mapping  },
	{ PORT_MAPPING_ASKING,    EV_STOP,         PORT_MAPPING_REMOVING, remove_mapping  },
	{ PORT_MAPPING_REMOVING,  EV_STOP,         PORT_MAPPING_OFF,      end             },
	{ ANY,                    EV_STOP,         PORT_MAPPING_OFF,      end             },
	{ ANY,                    EV_ROUTER,       PORT_MAPPING_ASKING,   begin_elsewhere },
	{ ANY,                    EV_NO_ROUTER,    PORT_MAPPING_OFF,      turn_off        },
	/* clang-format on */
};

/* ---- answers ---- */

static bool is_asking(const struct port_mapping_fsm *fsm)
{
	return fsm->state == PORT_MAPPING_ASKING || fsm->state == PORT_MAPPING_RENEWING;
}

/*
 * RFC 6886 section 3.6, RFC 6887 section 8.5: a router whose clock is less than it would be had it run on at 7/8
 * of ours has lost its mappings.
 */
static bool has_forgotten(struct port_mapping_fsm *fsm, uint32_t epoch_s, uint64_t now_ns)
{
	const uint64_t passed_s = (now_ns - fsm->epoch_ns) / S(1);
	const bool knew = fsm->epoch_ns != 0;
	const uint64_t least_s = fsm->epoch_s + passed_s * 7 / 8;

	fsm->epoch_s = epoch_s;
	fsm->epoch_ns = now_ns;
	return knew && epoch_s + (uint64_t)EPOCH_SLACK_S < least_s;
}

/* An address that nobody can be reached at. */
static bool makes_sense(const struct endpoint *external)
{
	const uint8_t first = external->ip[12];

	return endpoint_is_v4(external) && external->port != 0 && first != 0 && first < 224 &&
	       !endpoint_is_loopback(external);
}

static enum event mapped(struct port_mapping_fsm *fsm, uint32_t epoch_s, const struct port_mapping_input *in)
{
	(void)has_forgotten(fsm, epoch_s, in->now_ns); /* whatever was: this one is new */
	return makes_sense(&in->external) ? EV_MAPPED : EV_REFUSED;
}

/* Unasked, to everybody on the network: the router has begun anew, or has another address. */
static enum event take_announcement(struct port_mapping_fsm *fsm, const struct port_mapping_input *in)
{
	struct natpmp_answer answer;
	uint32_t epoch_s;

	if (fsm->way == PORT_MAPPING_PCP && pcp_decode_announce(in->bytes, in->len, &epoch_s) == 0)
		return has_forgotten(fsm, epoch_s, in->now_ns) ? EV_FORGOTTEN : EV_NONE;
	if (fsm->way != PORT_MAPPING_NATPMP || natpmp_decode(in->bytes, in->len, &answer) != 0 ||
	    answer.type != NATPMP_ADDRESS)
		return EV_NONE;
	const bool moved = !same_ip(&answer.address, &fsm->external);
	return has_forgotten(fsm, answer.epoch_s, in->now_ns) || moved ? EV_FORGOTTEN : EV_NONE;
}

static enum event take_pcp(struct port_mapping_fsm *fsm, struct port_mapping_input *in)
{
	struct pcp_mapped answer = { 0 };
	const int r = pcp_decode_mapped(in->bytes, in->len, &answer);

	if (r == PORT_MAPPING_E_MALFORMED)
		return EV_NONE;
	if (r != 0)
		return is_asking(fsm) ? EV_REFUSED : EV_REMOVED;
	if (memcmp(answer.nonce, fsm->nonce, sizeof(fsm->nonce)) != 0 || answer.internal_port != fsm->ours.port)
		return EV_NONE;
	if (answer.lifetime_s == 0)
		return fsm->state == PORT_MAPPING_REMOVING ? EV_REMOVED : EV_NONE;
	if (!is_asking(fsm))
		return EV_NONE;
	in->external = answer.external;
	in->lifetime_s = answer.lifetime_s;
	return mapped(fsm, answer.epoch_s, in);
}

static enum event take_natpmp(struct port_mapping_fsm *fsm, struct port_mapping_input *in)
{
	struct natpmp_answer answer = { 0 };
	const int r = natpmp_decode(in->bytes, in->len, &answer);

	if (r == PORT_MAPPING_E_MALFORMED)
		return EV_NONE;
	if (r != 0)
		return is_asking(fsm) ? EV_REFUSED : EV_REMOVED;
	if (answer.type == NATPMP_ADDRESS) {
		fsm->natpmp_address = answer.address;
		return EV_NONE; /* the other part is asked for until it comes */
	}
	if (answer.internal_port != fsm->ours.port)
		return EV_NONE;
	if (answer.lifetime_s == 0)
		return fsm->state == PORT_MAPPING_REMOVING ? EV_REMOVED : EV_NONE;
	if (!is_asking(fsm) || endpoint_is_none(&fsm->natpmp_address))
		return EV_NONE;
	in->external = fsm->natpmp_address;
	in->external.port = answer.external_port;
	in->lifetime_s = answer.lifetime_s;
	return mapped(fsm, answer.epoch_s, in);
}

/* ---- classify ---- */

static enum event classify_network(struct port_mapping_fsm *fsm, const struct port_mapping_input *in)
{
	const bool has_router = endpoint_is_v4(&in->router) && endpoint_is_v4(&in->ours) && in->ours.port != 0;
	struct endpoint router = in->router;

	router.port = PORT_MAPPING_SERVER_PORT;
	if (fsm->is_stopping && fsm->state == PORT_MAPPING_OFF)
		return EV_NONE;
	if (!has_router) {
		fsm->router = (struct endpoint){ 0 };
		return fsm->state == PORT_MAPPING_OFF ? EV_NONE : EV_NO_ROUTER;
	}
	if (fsm->state != PORT_MAPPING_OFF && endpoint_equal(&router, &fsm->router) &&
	    endpoint_equal(&in->ours, &fsm->ours))
		return EV_NONE;
	fsm->router = router;
	fsm->ours = in->ours;
	return EV_ROUTER;
}

static enum event classify_datagram(struct port_mapping_fsm *fsm, struct port_mapping_input *in)
{
	if (!endpoint_equal(&in->from, &fsm->router))
		return EV_NONE;
	if (fsm->state == PORT_MAPPING_MAPPED)
		return take_announcement(fsm, in);
	if (!is_asking(fsm) && fsm->state != PORT_MAPPING_REMOVING)
		return EV_NONE;
	if (fsm->way == PORT_MAPPING_PCP)
		return take_pcp(fsm, in);
	return fsm->way == PORT_MAPPING_NATPMP ? take_natpmp(fsm, in) : EV_NONE;
}

static enum event classify_upnp(const struct port_mapping_fsm *fsm, const struct port_mapping_input *in)
{
	if (fsm->way != PORT_MAPPING_UPNP)
		return EV_NONE;
	if (fsm->state == PORT_MAPPING_REMOVING)
		return EV_REMOVED;
	if (!is_asking(fsm))
		return EV_NONE;
	return makes_sense(&in->external) ? EV_MAPPED : EV_REFUSED;
}

/* What comes next, and when. */
static uint64_t request_alarm(const struct port_mapping_fsm *fsm, uint64_t patience_ns, enum event when_over,
			      enum event *ret)
{
	if (fsm->n_sent < max_sends(fsm) && sends_ns[fsm->n_sent] < patience_ns) {
		*ret = EV_SEND_DUE;
		return fsm->begun_ns + sends_ns[fsm->n_sent];
	}
	*ret = when_over;
	return fsm->begun_ns + patience_ns;
}

static uint64_t next_alarm(const struct port_mapping_fsm *fsm, enum event *ret)
{
	const bool is_upnp = fsm->way == PORT_MAPPING_UPNP;
	const uint64_t patience_ns = is_upnp ? UPNP_NS : SILENT_NS;
	uint64_t at_ns;

	switch (fsm->state) {
	case PORT_MAPPING_ASKING:
		return request_alarm(fsm, patience_ns, EV_SILENT, ret);
	case PORT_MAPPING_RENEWING:
		at_ns = request_alarm(fsm, patience_ns, EV_SILENT, ret);
		if (at_ns < fsm->expiry_ns)
			return at_ns;
		*ret = EV_EXPIRED;
		return fsm->expiry_ns;
	case PORT_MAPPING_MAPPED:
		*ret = fsm->renew_ns < fsm->expiry_ns ? EV_RENEWAL_DUE : EV_EXPIRED;
		return fsm->renew_ns < fsm->expiry_ns ? fsm->renew_ns : fsm->expiry_ns;
	case PORT_MAPPING_RESTING:
		*ret = EV_REST_OVER;
		return fsm->rest_ns;
	case PORT_MAPPING_REMOVING:
		return request_alarm(fsm, is_upnp ? UPNP_REMOVE_NS : REMOVE_NS, EV_REMOVED, ret);
	case PORT_MAPPING_OFF:
	case PORT_MAPPING_N_STATES:
		break;
	}
	*ret = EV_NONE;
	return NEVER;
}

/* Also fills in what an answer says. */
static enum event classify(struct port_mapping_fsm *fsm, struct port_mapping_input *in)
{
	switch (in->type) {
	case PORT_MAPPING_IN_NETWORK:
		return classify_network(fsm, in);
	case PORT_MAPPING_IN_DATAGRAM:
		return classify_datagram(fsm, in);
	case PORT_MAPPING_IN_UPNP:
		return classify_upnp(fsm, in);
	case PORT_MAPPING_IN_STOP:
		return fsm->is_stopping && fsm->state == PORT_MAPPING_OFF ? EV_NONE : EV_STOP;
	case PORT_MAPPING_IN_DEADLINE:
	case PORT_MAPPING_N_INPUTS:
		break;
	}
	return EV_NONE;
}

/* The last way has failed. */
static enum event or_no_way_left(const struct port_mapping_fsm *fsm, enum event event)
{
	const bool fails = event == EV_REFUSED || event == EV_SILENT;

	return fails && fsm->state == PORT_MAPPING_ASKING && fsm->way + 1 == PORT_MAPPING_N_WAYS ? EV_NO_WAY_LEFT :
												    event;
}

/* ---- the engine ---- */

static void trace(const struct port_mapping_fsm *fsm, uint64_t now_ns, enum event event, const char *to)
{
	char line[120];

	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%5llu] %s %s: %s -> %s", (unsigned long long)(now_ns / 1000000),
		 state_names[fsm->state], way_names[fsm->way], event_names[event], to);
	fsm->trace(fsm->trace_arg, line);
}

static void take(struct port_mapping_fsm *fsm, enum event event, const struct port_mapping_input *in,
		 struct port_mapping_actions *out)
{
	for (const struct arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++) {
		if ((a->from != (int)fsm->state && a->from != ANY) || a->on != event)
			continue;
		trace(fsm, in->now_ns, event, state_names[a->to]);
		a->act(fsm, in, out);
		fsm->state = a->to;
		return;
	}
	trace(fsm, in->now_ns, event, "(ignored)");
}

static bool invariant_holds(const struct port_mapping_fsm *fsm, uint64_t now_ns)
{
	const bool may_be_mapped = fsm->state == PORT_MAPPING_MAPPED || fsm->state == PORT_MAPPING_RENEWING;

	return (fsm->state == PORT_MAPPING_OFF) == (fsm->deadline_ns == 0) &&
	       (fsm->deadline_ns == 0 || fsm->deadline_ns > now_ns) &&
	       may_be_mapped == !endpoint_is_none(&fsm->external) && fsm->way < PORT_MAPPING_N_WAYS;
}

void port_mapping_fsm_init(struct port_mapping_fsm *fsm, uint64_t seed)
{
	*fsm = (struct port_mapping_fsm){ .state = PORT_MAPPING_OFF, .random = seed };
}

void port_mapping_fsm_step(struct port_mapping_fsm *fsm, const struct port_mapping_input *input,
			   struct port_mapping_actions *ret)
{
	struct port_mapping_input in = *input;
	enum event event = or_no_way_left(fsm, classify(fsm, &in));
	uint64_t alarm_ns;

	ret->n = 0;
	if (event != EV_NONE)
		take(fsm, event, &in, ret);
	for (int n = 0; next_alarm(fsm, &event) <= in.now_ns; n++) {
		assert(n < MAX_EVENTS);
		take(fsm, or_no_way_left(fsm, event), &in, ret);
	}
	alarm_ns = next_alarm(fsm, &event);
	fsm->deadline_ns = alarm_ns == NEVER ? 0 : alarm_ns;
	assert(invariant_holds(fsm, in.now_ns));
}

const char *port_mapping_state_name(enum port_mapping_state state)
{
	return state_names[state];
}

const char *port_mapping_way_name(enum port_mapping_way way)
{
	return way_names[way];
}
