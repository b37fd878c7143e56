/*
 * A forwarded port: see the drawing in the header and the table below. A request is repeated a few times, then
 * its way is given up; while a mapping holds, it is not.
 */
#include "actors/endpoint_manager/port_mapping_fsm.h"

#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((uint64_t)(n)*1000u)

#define LIFETIME_S    7200u /* asked for, as RFC 6886 section 3.3 recommends */
#define MAX_LIFETIME_S 86400u /* a router may say more: what it forgets is found out sooner */
#define MIN_RENEW_NS  S(4)    /* RFC 6887 section 11.2.1 */
#define MIN_LIFETIME_S 60u   /* what is given for less is not worth the keeping */
#define REST_NS	      S(600)
#define PASSING_REST_NS S(30)
#define MAX_REST_NS   S(3600)
#define HEED_NS	      S(30) /* announcements may be forged: one in so long is heeded */
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
	EV_ROUTER,    /* a router, another one, or another address of ours */
	EV_MOVED,     /* another address of ours at the router where we have a mapping */
	EV_NO_ROUTER,
	EV_MAPPED,
	EV_REFUSED,   /* or the router does not know this way */
	EV_NOT_NOW,   /* a refusal that will pass */
	EV_SILENT,
	EV_NO_WAY_LEFT,
	EV_SEND_DUE,
	EV_RENEWAL_DUE,
	EV_EXPIRED,
	EV_ANNOUNCED, /* the router says that it has begun anew */
	EV_REST_OVER,
	EV_STOP,
	EV_WITHDRAWN, /* stop, and what was asked for in a datagram has no answer yet */
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
	[EV_ANNOUNCED] = "announced",	[EV_REST_OVER] = "rest over",	  [EV_STOP] = "stop",
	[EV_REMOVED] = "removed",	[EV_NOT_NOW] = "refused for now", [EV_WITHDRAWN] = "withdrawn",
	[EV_MOVED] = "our address is another",
};
static_assert(ARRAY_LEN(event_names) == N_EVENTS, "a name for every event");

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

static void send_upnp(struct port_mapping_fsm *fsm, uint32_t lifetime_s, struct port_mapping_actions *out)
{
	struct port_mapping_action *action =
		add(out, lifetime_s > 0 ? PORT_MAPPING_DO_UPNP_MAP : PORT_MAPPING_DO_UPNP_REMOVE);

	action->router = fsm->router;
	action->ours = fsm->ours;
	action->external = fsm->suggested.port != 0 ? fsm->suggested : fsm->ours;
	action->lifetime_s = lifetime_s;
	action->serial = ++fsm->upnp_serial;
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
	fsm->epoch_ns = 0;
	add(out, PORT_MAPPING_DO_SOCKET);
}

/* From the first way on. */
static void begin(struct port_mapping_fsm *fsm, const struct port_mapping_input *in, struct port_mapping_actions *out)
{
	forget(fsm, out);
	fsm->way = PORT_MAPPING_PCP;
	fsm->epoch_ns = 0;
	fsm->is_passing = false;
	begin_request(fsm, in, out);
}

/* After a mere interruption what we had is asked for again. */
static void begin_here(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
		       struct port_mapping_actions *out)
{
	struct endpoint router = in->router;

	router.port = PORT_MAPPING_SERVER_PORT;
	if (!endpoint_equal(&router, &fsm->router) || !endpoint_equal(&in->ours, &fsm->ours)) {
		fsm->suggested = (struct endpoint){ 0 };
		memset(fsm->known, 0, sizeof(fsm->known));
	}
	fsm->router = router;
	fsm->ours = in->ours;
	memcpy(fsm->nonce, in->nonce, sizeof(fsm->nonce));
	fsm->n_rests = 0;
	fsm->heeded_ns = 0;
	forget(fsm, out);
	add(out, PORT_MAPPING_DO_SOCKET);
	begin(fsm, in, out);
}

/* The old mapping leads nowhere. What asks for its end leaves from the old address, as long as the machine has that. */
static void give_back_and_begin(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
				struct port_mapping_actions *out)
{
	request(fsm, 0, out);
	begin_here(fsm, in, out);
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
	fsm->n_rests = 0;
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
	uint64_t rest_ns = fsm->is_passing ? PASSING_REST_NS : REST_NS;

	for (uint32_t i = 0; i < fsm->n_rests && rest_ns < MAX_REST_NS; i++)
		rest_ns *= 2;
	fsm->n_rests++;
	forget(fsm, out);
	fsm->rest_ns = in->now_ns + (rest_ns < MAX_REST_NS ? rest_ns : MAX_REST_NS);
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

/* It may have been heard, and be answered when nobody listens any more. */
static void withdraw(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
		     struct port_mapping_actions *out)
{
	request(fsm, 0, out);
	end(fsm, in, out);
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
	{ PORT_MAPPING_ASKING,    EV_NOT_NOW,      PORT_MAPPING_ASKING,   try_next_way    },
	{ PORT_MAPPING_ASKING,    EV_SILENT,       PORT_MAPPING_ASKING,   try_next_way    },
	{ PORT_MAPPING_ASKING,    EV_NO_WAY_LEFT,  PORT_MAPPING_RESTING,  rest            },
	{ PORT_MAPPING_MAPPED,    EV_RENEWAL_DUE,  PORT_MAPPING_RENEWING, begin_request   },
	{ PORT_MAPPING_RENEWING,  EV_MAPPED,       PORT_MAPPING_MAPPED,   keep            },
	{ PORT_MAPPING_RENEWING,  EV_SEND_DUE,     PORT_MAPPING_RENEWING, send_again      },
	{ PORT_MAPPING_RENEWING,  EV_SILENT,       PORT_MAPPING_MAPPED,   postpone        },
	{ PORT_MAPPING_RENEWING,  EV_NOT_NOW,      PORT_MAPPING_MAPPED,   postpone        },
	{ PORT_MAPPING_RENEWING,  EV_REFUSED,      PORT_MAPPING_ASKING,   begin           },
	{ PORT_MAPPING_MAPPED,    EV_ANNOUNCED,    PORT_MAPPING_RENEWING, begin_request   },
	{ PORT_MAPPING_RESTING,   EV_ANNOUNCED,    PORT_MAPPING_ASKING,   begin           },
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
	{ PORT_MAPPING_ASKING,    EV_WITHDRAWN,    PORT_MAPPING_OFF,      withdraw        },
	{ PORT_MAPPING_REMOVING,  EV_STOP,         PORT_MAPPING_OFF,      end             },
	{ ANY,                    EV_STOP,         PORT_MAPPING_OFF,      end             },
	{ ANY,                    EV_ROUTER,       PORT_MAPPING_ASKING,   begin_here      },
	{ ANY,                    EV_MOVED,        PORT_MAPPING_ASKING,   give_back_and_begin },
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
static bool has_forgotten(const struct port_mapping_fsm *fsm, uint32_t epoch_s, uint64_t now_ns)
{
	const uint64_t passed_s = (now_ns - fsm->epoch_ns) / S(1);
	const uint64_t least_s = fsm->epoch_s + passed_s * 7 / 8;

	return fsm->epoch_ns != 0 && epoch_s + (uint64_t)EPOCH_SLACK_S < least_s;
}

/* An address that nobody can be reached at. */
static bool makes_sense(const struct endpoint *external)
{
	const uint8_t first = external->ip[12];

	return endpoint_is_v4(external) && external->port != 0 && first != 0 && first < 224 &&
	       !endpoint_is_loopback(external);
}

/* What comes of an answer that gives us a port. */
static enum event granted(const struct port_mapping_input *in)
{
	if (in->lifetime_s != 0 && in->lifetime_s < MIN_LIFETIME_S)
		return EV_REFUSED;
	return makes_sense(&in->external) ? EV_MAPPED : EV_REFUSED;
}

static void read_epoch(struct port_mapping_fsm *fsm, uint32_t epoch_s, uint64_t now_ns)
{
	fsm->epoch_s = epoch_s;
	fsm->epoch_ns = now_ns;
}

static enum event refused(struct port_mapping_fsm *fsm, bool passes)
{
	if (!is_asking(fsm))
		return EV_REMOVED;
	fsm->is_passing |= passes;
	return passes ? EV_NOT_NOW : EV_REFUSED;
}

/* Whoever only heard of us knows it: it may be anybody. */
static bool is_announcement(const struct port_mapping_fsm *fsm, const struct port_mapping_input *in)
{
	const bool is_mapped = fsm->state == PORT_MAPPING_MAPPED && fsm->way != PORT_MAPPING_UPNP;
	struct natpmp_answer answer;
	uint32_t epoch_s;

	if (pcp_decode_announce(in->bytes, in->len, &epoch_s) == 0)
		return !is_mapped || has_forgotten(fsm, epoch_s, in->now_ns);
	if (natpmp_decode(in->bytes, in->len, &answer) != 0 || answer.type != NATPMP_ADDRESS)
		return false;
	return !is_mapped || has_forgotten(fsm, answer.epoch_s, in->now_ns) ||
	       !same_ip(&answer.address, &fsm->external);
}

static enum event take_pcp(struct port_mapping_fsm *fsm, struct port_mapping_input *in)
{
	struct pcp_mapped answer = { 0 };
	const int r = pcp_decode_mapped(in->bytes, in->len, &answer);

	if (r == PORT_MAPPING_E_MALFORMED)
		return EV_NONE;
	if (r == PORT_MAPPING_E_VERSION) {
		fsm->known[PORT_MAPPING_PCP] = PORT_MAPPING_NOT_SPOKEN;
		return refused(fsm, false);
	}
	if (memcmp(answer.nonce, fsm->nonce, sizeof(fsm->nonce)) != 0 || answer.internal_port != fsm->ours.port)
		return EV_NONE;
	fsm->known[PORT_MAPPING_PCP] = PORT_MAPPING_SPOKEN;
	if (r != 0)
		return refused(fsm, pcp_refusal_passes(answer.result));
	if (answer.lifetime_s == 0)
		return fsm->state == PORT_MAPPING_REMOVING ? EV_REMOVED : EV_NONE;
	if (!is_asking(fsm))
		return EV_NONE;
	in->external = answer.external;
	in->lifetime_s = answer.lifetime_s;
	read_epoch(fsm, answer.epoch_s, in->now_ns);
	return granted(in);
}

static enum event take_natpmp_port(struct port_mapping_fsm *fsm, struct port_mapping_input *in,
				   const struct natpmp_answer *answer)
{
	if (answer->internal_port != fsm->ours.port)
		return EV_NONE;
	if (answer->lifetime_s == 0)
		return fsm->state == PORT_MAPPING_REMOVING ? EV_REMOVED : EV_NONE;
	if (!is_asking(fsm) || endpoint_is_none(&fsm->natpmp_address))
		return EV_NONE;
	in->external = fsm->natpmp_address;
	in->external.port = answer->external_port;
	in->lifetime_s = answer->lifetime_s;
	read_epoch(fsm, answer->epoch_s, in->now_ns);
	return granted(in);
}

static enum event take_natpmp(struct port_mapping_fsm *fsm, struct port_mapping_input *in)
{
	struct natpmp_answer answer = { 0 };
	const int r = natpmp_decode(in->bytes, in->len, &answer);

	/* Another version is what PCP, asked before, is answered with; it may come more than once. */
	if (r == PORT_MAPPING_E_MALFORMED || r == PORT_MAPPING_E_VERSION)
		return EV_NONE;
	fsm->known[PORT_MAPPING_NATPMP] = PORT_MAPPING_SPOKEN;
	if (r != 0)
		return refused(fsm, natpmp_refusal_passes(answer.result));
	if (answer.type != NATPMP_ADDRESS)
		return take_natpmp_port(fsm, in, &answer);
	fsm->natpmp_address = answer.address;
	return EV_NONE; /* the other part is asked for until it comes */
}

/* ---- classify ---- */

static bool is_mapped(const struct port_mapping_fsm *fsm)
{
	return fsm->state == PORT_MAPPING_MAPPED || fsm->state == PORT_MAPPING_RENEWING;
}

static enum event classify_network(const struct port_mapping_fsm *fsm, const struct port_mapping_input *in)
{
	const bool has_router = endpoint_is_v4(&in->router) && endpoint_is_v4(&in->ours) && in->ours.port != 0 &&
				endpoint_is_private(&in->ours);
	const bool is_off = fsm->state == PORT_MAPPING_OFF;

	if (fsm->is_stopping && is_off)
		return EV_NONE;
	if (!has_router)
		return is_off ? EV_NONE : EV_NO_ROUTER;
	if (is_off || !same_ip(&in->router, &fsm->router))
		return EV_ROUTER;
	if (endpoint_equal(&in->ours, &fsm->ours))
		return EV_NONE;
	return is_mapped(fsm) ? EV_MOVED : EV_ROUTER;
}

static enum event classify_datagram(struct port_mapping_fsm *fsm, struct port_mapping_input *in)
{
	struct natpmp_answer besides;

	if (!endpoint_equal(&in->from, &fsm->router))
		return EV_NONE;
	if (fsm->state == PORT_MAPPING_MAPPED && natpmp_decode(in->bytes, in->len, &besides) == 0)
		fsm->known[PORT_MAPPING_NATPMP] = PORT_MAPPING_SPOKEN;
	if (!is_asking(fsm) && fsm->state != PORT_MAPPING_REMOVING)
		return EV_NONE;
	if (fsm->way == PORT_MAPPING_PCP)
		return take_pcp(fsm, in);
	return fsm->way == PORT_MAPPING_NATPMP ? take_natpmp(fsm, in) : EV_NONE;
}

static enum event classify_announcement(struct port_mapping_fsm *fsm, const struct port_mapping_input *in)
{
	const bool is_heard = fsm->state == PORT_MAPPING_MAPPED || fsm->state == PORT_MAPPING_RESTING;

	if (!is_heard || !endpoint_equal(&in->from, &fsm->router) ||
	    (fsm->heeded_ns != 0 && in->now_ns - fsm->heeded_ns < HEED_NS) || !is_announcement(fsm, in))
		return EV_NONE;
	fsm->heeded_ns = in->now_ns;
	return EV_ANNOUNCED;
}

static enum event classify_upnp(struct port_mapping_fsm *fsm, const struct port_mapping_input *in)
{
	static const enum port_mapping_known knows[PORT_MAPPING_N_OUTCOMES] = {
		[PORT_MAPPING_UPNP_MAPPED] = PORT_MAPPING_SPOKEN,
		[PORT_MAPPING_UPNP_PASSING] = PORT_MAPPING_SPOKEN,
		[PORT_MAPPING_UPNP_REFUSED] = PORT_MAPPING_SPOKEN,
		[PORT_MAPPING_UPNP_NONE] = PORT_MAPPING_NOT_SPOKEN,
	};

	if (fsm->way != PORT_MAPPING_UPNP || in->serial != fsm->upnp_serial)
		return EV_NONE;
	if (fsm->state == PORT_MAPPING_REMOVING)
		return EV_REMOVED;
	if (!is_asking(fsm))
		return EV_NONE;
	if (knows[in->outcome] != PORT_MAPPING_UNKNOWN)
		fsm->known[PORT_MAPPING_UPNP] = knows[in->outcome];
	if (in->outcome == PORT_MAPPING_UPNP_MAPPED)
		return granted(in);
	return in->outcome == PORT_MAPPING_UPNP_SILENT ? EV_SILENT :
							 refused(fsm, in->outcome == PORT_MAPPING_UPNP_PASSING);
}

static enum event classify_nobody(struct port_mapping_fsm *fsm)
{
	if (fsm->way == PORT_MAPPING_UPNP)
		return EV_NONE;
	if (fsm->state == PORT_MAPPING_REMOVING)
		return EV_REMOVED;
	if (fsm->state != PORT_MAPPING_ASKING)
		return EV_NONE;
	fsm->known[fsm->way] = PORT_MAPPING_NOT_SPOKEN;
	return EV_REFUSED;
}

static enum event classify_stop(const struct port_mapping_fsm *fsm)
{
	if (fsm->is_stopping && fsm->state == PORT_MAPPING_OFF)
		return EV_NONE;
	return fsm->state == PORT_MAPPING_ASKING && fsm->way != PORT_MAPPING_UPNP ? EV_WITHDRAWN : EV_STOP;
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
	case PORT_MAPPING_IN_ANNOUNCEMENT:
		return classify_announcement(fsm, in);
	case PORT_MAPPING_IN_NOBODY:
		return classify_nobody(fsm);
	case PORT_MAPPING_IN_UPNP:
		return classify_upnp(fsm, in);
	case PORT_MAPPING_IN_STOP:
		return classify_stop(fsm);
	case PORT_MAPPING_IN_KNOWN:
		if (same_ip(&in->router, &fsm->router) && fsm->known[in->way] == PORT_MAPPING_UNKNOWN)
			fsm->known[in->way] = in->known;
		return EV_NONE;
	case PORT_MAPPING_IN_DEADLINE:
	case PORT_MAPPING_N_INPUTS:
		break;
	}
	return EV_NONE;
}

/* The last way has failed. Who was silent when asked does not speak that way. */
static enum event or_no_way_left(struct port_mapping_fsm *fsm, enum event event)
{
	const bool fails = event == EV_REFUSED || event == EV_SILENT || event == EV_NOT_NOW;

	if (!fails || fsm->state != PORT_MAPPING_ASKING)
		return event;
	if (event == EV_SILENT && fsm->known[fsm->way] == PORT_MAPPING_UNKNOWN)
		fsm->known[fsm->way] = PORT_MAPPING_NOT_SPOKEN;
	return fsm->way + 1 == PORT_MAPPING_N_WAYS ? EV_NO_WAY_LEFT : event;
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
	return (fsm->state == PORT_MAPPING_OFF) == (fsm->deadline_ns == 0) &&
	       (fsm->deadline_ns == 0 || fsm->deadline_ns > now_ns) &&
	       is_mapped(fsm) == !endpoint_is_none(&fsm->external) && fsm->way < PORT_MAPPING_N_WAYS;
}

void port_mapping_fsm_init(struct port_mapping_fsm *fsm)
{
	*fsm = (struct port_mapping_fsm){ .state = PORT_MAPPING_OFF };
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
