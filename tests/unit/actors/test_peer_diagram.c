/*
 * The peer machine's table against its drawings.
 *
 * 1. docs/fsm/peer_fsm.dot is what the table says (run with --print to write it anew).
 * 2. Every arrow of the architecture's diagram is in the table, or is corrected with a reason.
 * 3. Every arrow of the table is in that diagram, or is an addition with a reason.
 * 4. Every state meets every event: an arrow, or on the list of what is ignored.
 */
#include "actors/traffic_manager/peer_fsm.h"
#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- 1: the drawing ---- */

/* Arrows with the same ends share a line of the drawing. */
static void draw(FILE *f)
{
	fprintf(f, "// Written by test_peer_diagram --print; a test compares it with the table.\n"
		   "digraph peer_fsm {\n\tnode [shape=box, style=rounded];\n");
	for (int s = 0; s < PEER_N_STATES; s++)
		if (peer_state_is_transient((enum peer_state)s))
			fprintf(f, "\t\"%s\" [style=\"rounded,dashed\"];\n", peer_state_name((enum peer_state)s));
	fprintf(f, "\tsubgraph cluster_establishing {\n\t\tlabel=\"establishing\";\n");
	for (int s = 0; s < PEER_N_STATES; s++)
		if (peer_state_is_establishing((enum peer_state)s))
			fprintf(f, "\t\t\"%s\";\n", peer_state_name((enum peer_state)s));
	fprintf(f, "\t\t\"establishing\" [label=\"the three that wait\", shape=plaintext];\n\t}\n"
		   "\t\"*\" [label=\"any state\", shape=plaintext];\n");
	for (size_t i = 0; i < peer_fsm_n_arrows(); i++) {
		struct peer_arrow_text a = peer_fsm_arrow(i);

		fprintf(f, "\t\"%s\" -> \"%s\" [label=\"%s / %s\"];\n", a.from, a.to, a.on, a.act);
	}
	fprintf(f, "}\n");
}

static void test_the_drawing_in_docs_is_the_table(const char *path)
{
	char *drawn = NULL, *kept = NULL;
	size_t n_drawn, n_kept = 0, cap = 0;
	FILE *f = open_memstream(&drawn, &n_drawn);

	draw(f);
	fclose(f);
	f = fopen(path, "r");
	if (f)
		n_kept = (size_t)getdelim(&kept, &cap, '\0', f);
	if (!f || n_kept != n_drawn || memcmp(kept, drawn, n_drawn) != 0) {
		fprintf(stderr, "%s differs from the table; write it with test_peer_diagram --print\n", path);
		abort();
	}
	fclose(f);
	free(drawn);
	free(kept);
}

/* ---- 2 and 3: the architecture's diagram ---- */

struct arrow_name {
	const char *from, *on, *to;
};

/* An arrow of the architecture: its words, and where it is in the table. */
static const struct {
	const char *words;
	struct arrow_name arrow;
	const char *correction; /* set: not as drawn there, because … */
} architecture[] = {
	{ "[*] > WaitingForInfo > Inactive", { "waiting for info", "info", "inactive" }, NULL },
	{ "I > R: connection active, retry immediately", { "inactive", "traffic", "trying" }, NULL },
	{ "I > Eing: received rendezvous", { "inactive", "rendezvous", "rendezvous got" }, NULL },
	{ "R > Eing: retry timer fires", { "trying", "retry due", "pre-transmit" }, NULL },
	{ "R > Eing: received rendezvous", { "trying", "rendezvous", "rendezvous got" }, NULL },
	{ "I > I: ping > pong", { "inactive", "ping", "inactive" }, NULL },
	{ "R > R: ping > pong", { "trying", "ping by relay", "trying" },
	  "a direct ping is answered in half-establishing: the peer is punching now, and without a relay "
	  "no rendezvous can tell" },
	{ "PT > T: send pings and rendezvous", { "pre-transmit", "then", "transmitting" }, NULL },
	{ "T > GR: got rendezvous", { "transmitting", "rendezvous", "rendezvous got" }, NULL },
	{ "GR > RR: send pings to rendezvous endpoints",
	  { "rendezvous got", "then", "rendezvous acknowledged" }, NULL },
	{ "RR > he_pre: got ping", { "rendezvous acknowledged", "ping", "half-establishing" }, NULL },
	{ "T > he_pre: got ping", { "transmitting", "ping", "half-establishing" }, NULL },
	{ "he_pre > hE: send pong and ping", { "half-establishing", "then", "half-established" }, NULL },
	{ "hE > hE: ping > pong", { "half-established", "ping", "half-established" }, NULL },
	{ "RR, hE, T > F: got pong", { "establishing", "pong", "finalizing" }, NULL },
	{ "F > [*], Eing > B", { "finalizing", "then", "booting" }, NULL },
	{ "B > E: set path and AKA", { "booting", "then", "established" }, NULL },
	{ "Eing > R: timeout of 10 s, retry after 40 s", { "establishing", "timed out", "trying" },
	  "the retry comes after 1, 2, 4 … 600 s with jitter, and never while the peer is idle" },
	{ "E > TD: no ping or pong in 5 s", { "established", "lost", "teardown" },
	  "authenticated data is liveness as well; with traffic and a relay a path is given up in under a "
	  "second, 5 s is the bound without" },
	{ "E > TD: connection inactive", { "established", "unused", "teardown" }, NULL },
	{ "TD > I", { "teardown", "unwanted", "inactive" }, NULL },
	{ "TD > R: retry immediately", { "teardown", "wanted", "trying" },
	  "not immediately when the path lived less than 10 s: it must not flap" },
	{ "E > E: send pings every 2 s", { "established", "keepalive due", "established" },
	  "only when no authenticated data came" },
	{ "E > E: ping > pong", { "established", "ping", "established" }, NULL },
};

/* Arrows that are not drawn there. */
static const struct {
	struct arrow_name arrow; /* "" stands for any */
	const char *reason;
} additions[] = {
	{ { "*", "removed", "" }, "peers leave the map" },
	{ { "*", "reset", "" }, "the stage stops and starts" },
	{ { "", "adopt", "booting" }, "a Session is rebuilt without dropping a working path" },
	{ { "", "rendezvous", "" }, "a rendezvous is honoured in every state" },
	{ { "", "ping from a stranger", "" }, "a ping from an address nobody told us is a ping" },
	{ { "", "ping by relay", "" }, "the relay is measured like any path" },
	{ { "", "pong by relay", "" }, "the relay is measured like any path" },
	{ { "", "data", "" }, "authenticated data is liveness, and a sign where the peer is" },
	{ { "", "data by relay", "" }, "the peer may not hear us directly: ask" },
	{ { "", "data sent", "" }, "silence counts from the first unanswered packet" },
	{ { "", "pong", "" }, "liveness and measurement while established" },
	{ { "", "new session", "" }, "the peer was restarted: what we know is in doubt" },
	{ { "", "new endpoints", "" }, "a retry at once on new endpoints" },
	{ { "", "our endpoints", "" }, "a retry at once on new endpoints, ours as well" },
	{ { "", "relay up", "" }, "a rendezvous can be sent again" },
	{ { "", "relay down", "" }, "the relay cannot win any more" },
	{ { "trying", "ping", "half-establishing" }, "see the correction of R > R" },
	{ { "trying", "idle", "inactive" }, "an idle peer is not retried" },
	{ { "establishing", "round due", "establishing" }, "pings come in bursts, not once" },
	{ { "established", "round due", "established" }, "new endpoints get a burst as well" },
	{ { "established", "silent", "established" }, "a path is suspect after one missed round" },
	{ { "established", "no answer", "established" }, "a path is suspect after one missed round" },
	{ { "established", "probe due", "established" }, "a suspect path is probed fast" },
	{ { "established", "other works", "established" }, "another way needs no new attempt" },
	{ { "established", "send failed", "established" }, "a path whose send fails is suspect" },
	{ { "established", "too big", "established" }, "a path too narrow for a packet is not enough" },
	{ { "established", "fits again", "established" }, "paths change" },
	{ { "established", "receipt", "established" }, "data passes, so the path is all right" },
	{ { "established", "no receipt", "established" }, "what lets pings pass need not let data pass" },
	{ { "established", "receipt due", "established" }, "and that is asked for" },
	{ { "established", "undelivered", "established" }, "and another way is taken" },
	{ { "established", "watch due", "established" }, "how much is lost takes many pings to tell" },
	{ { "established", "survey due", "established" }, "the best path is found by measuring" },
};

static bool matches(const struct arrow_name *pattern, const struct peer_arrow_text *a)
{
	return (!*pattern->from || strcmp(pattern->from, a->from) == 0) && strcmp(pattern->on, a->on) == 0 &&
	       (!*pattern->to || strcmp(pattern->to, a->to) == 0);
}

static void test_every_arrow_of_the_architecture_is_in_the_table(void)
{
	for (size_t i = 0; i < ARRAY_LEN(architecture); i++) {
		bool found = false;

		for (size_t k = 0; k < peer_fsm_n_arrows() && !found; k++) {
			struct peer_arrow_text a = peer_fsm_arrow(k);
			found = matches(&architecture[i].arrow, &a);
		}
		if (!found) {
			fprintf(stderr, "not in the table: %s\n", architecture[i].words);
			abort();
		}
	}
}

static void test_every_other_arrow_is_an_addition_with_a_reason(void)
{
	bool used[ARRAY_LEN(additions)] = { false };

	for (size_t k = 0; k < peer_fsm_n_arrows(); k++) {
		struct peer_arrow_text a = peer_fsm_arrow(k);
		bool explained = false;

		for (size_t i = 0; i < ARRAY_LEN(architecture); i++)
			explained |= matches(&architecture[i].arrow, &a);
		for (size_t i = 0; i < ARRAY_LEN(additions); i++)
			if (matches(&additions[i].arrow, &a))
				explained = used[i] = true;
		if (!explained) {
			fprintf(stderr, "no reason for: %s: %s -> %s\n", a.from, a.on, a.to);
			abort();
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(additions); i++)
		assert(used[i]); /* a reason for something that is not there */
}

static void test_every_state_of_the_architecture_is_there(void)
{
	static const char *const states[] = {
		"waiting for info", "inactive", "trying", "pre-transmit", "transmitting", "rendezvous got",
		"rendezvous acknowledged", "half-establishing", "half-established", "finalizing", "booting",
		"established", "teardown",
	};
	assert(ARRAY_LEN(states) == PEER_N_STATES);
	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		assert(strcmp(states[i], peer_state_name((enum peer_state)i)) == 0);
}

/* ---- 4: every state meets every event ---- */

#define ALARMS                                                                                     \
	"retry due, round due, timed out, silent, keepalive due, no answer, probe due, lost, other works, "     \
	"receipt due, undelivered, watch due, survey due, fits again, unused, then, wanted, unwanted"

/* Events an awake state does nothing about; those of the clock and "at once" cannot come. */
static const char *const ignored[PEER_N_STATES] = {
	[PEER_WAITING_FOR_INFO] = "same info, new session, new endpoints, traffic, idle, ping, "
				  "ping from a stranger, ping by relay, pong, pong by relay, stale pong, "
				  "rendezvous, our endpoints, data, data by relay, data sent, receipt, "
				  "no receipt, send failed, too big, "
				  "other send failed, relay up, relay down, adopt, " ALARMS,
	[PEER_INACTIVE] = "info, same info, idle, pong, pong by relay, stale pong, data by relay, data sent, "
			  "receipt, no receipt, "
			  "send failed, too big, other send failed, relay up, relay down, " ALARMS,
	[PEER_TRYING] = "info, same info, traffic, pong, pong by relay, stale pong, data by relay, data sent, "
			  "receipt, no receipt, "
			"send failed, too big, other send failed, relay down, round due, timed out, silent, "
			"keepalive due, no answer, probe due, lost, other works, "
			"receipt due, undelivered, watch due, survey due, fits again, unused, then, wanted, "
			"unwanted",
	[PEER_TRANSMITTING] = "info, same info, traffic, idle, stale pong, data by relay, data sent, "
			  "receipt, no receipt, "
			      "send failed, too big, other send failed, relay down, adopt, retry due, silent, "
			      "keepalive due, no answer, probe due, lost, other works, "
			"receipt due, undelivered, watch due, survey due, fits again, unused, then, "
			      "wanted, unwanted",
	[PEER_ESTABLISHED] = "info, same info, traffic, idle, stale pong, other send failed, relay up, adopt, "
			     "retry due, timed out, then, wanted, unwanted",
};

static const char *ignored_in(enum peer_state state)
{
	if (state == PEER_RENDEZVOUS_ACKNOWLEDGED || state == PEER_HALF_ESTABLISHED)
		return ignored[PEER_TRANSMITTING];
	return ignored[state];
}

/* Is it one of the names in the list, which are separated by ", "? */
static bool is_listed(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; (p = strstr(p, name)); p++)
		if ((p == list || p[-1] == ' ') && (p == list || p[-2] == ',') && (p[n] == ',' || p[n] == '\0'))
			return true;
	return false;
}

static void check_pair(enum peer_state state, size_t event)
{
	const char *name = peer_fsm_event_name(event);
	bool has_arrow = peer_fsm_next(state, event) >= 0;
	bool is_ignored;

	if (peer_state_is_transient(state)) /* only what leads out of it, in the same step */
		is_ignored = strcmp(name, "then") && strcmp(name, "wanted") && strcmp(name, "unwanted") &&
			     strcmp(name, "removed") && strcmp(name, "reset");
	else
		is_ignored = is_listed(ignored_in(state), name);
	if (has_arrow == is_ignored && !peer_state_is_transient(state)) {
		fprintf(stderr, "%s: %s is %s\n", peer_state_name(state), name,
			has_arrow ? "an arrow, but listed as ignored" : "neither an arrow nor listed");
		abort();
	}
	assert(!has_arrow || !is_ignored);
}

static void test_every_event_in_every_state_is_an_arrow_or_listed_as_ignored(void)
{
	for (int state = 0; state < PEER_N_STATES; state++)
		for (size_t event = 0; event < peer_fsm_n_events(); event++)
			check_pair((enum peer_state)state, event);
}

static void test_every_transient_state_is_left_at_once(void)
{
	for (int state = 0; state < PEER_N_STATES; state++) {
		int exits = 0;

		for (size_t event = 0; event < peer_fsm_n_events(); event++) {
			const char *name = peer_fsm_event_name(event);

			if (strcmp(name, "then") == 0 || strcmp(name, "wanted") == 0 ||
			    strcmp(name, "unwanted") == 0)
				exits += peer_fsm_next((enum peer_state)state, event) >= 0;
		}
		assert((exits > 0) == peer_state_is_transient((enum peer_state)state));
	}
}

int main(int argc, char *argv[])
{
	if (argc == 2 && strcmp(argv[1], "--print") == 0) {
		draw(stdout);
		return 0;
	}
	assert(argc == 2);
	test_the_drawing_in_docs_is_the_table(argv[1]);
	test_every_state_of_the_architecture_is_there();
	test_every_arrow_of_the_architecture_is_in_the_table();
	test_every_other_arrow_is_an_addition_with_a_reason();
	test_every_event_in_every_state_is_an_arrow_or_listed_as_ignored();
	test_every_transient_state_is_left_at_once();
	puts("ok");
}
