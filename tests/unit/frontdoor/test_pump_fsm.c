/* What a copier does next: one row for each thing it can know. The drawing is in pump_fsm.h. */
#include "relay/frontdoor/pump_fsm.h"

#include <assert.h>
#include <stdio.h>

#define BUDGET 1000

struct row {
	const char *rule;
	struct pump_flow flow;
	struct pump_end from, to;
	size_t budget;
	enum pump_deed deed;
};

#define READY  { .is_readable = true, .is_writable = true }
#define QUIET  { .is_writable = true }
#define FULL   { .is_readable = true }
#define BROKEN { .is_readable = true, .is_writable = true, .is_broken = true }

static const struct row rows[] = {
	{ "what is there is taken", { 0 }, READY, READY, BUDGET, PUMP_FILL },
	{ "nothing is there", { 0 }, QUIET, READY, BUDGET, PUMP_REST },
	{ "nothing is taken for who does not read", { 0 }, READY, FULL, BUDGET, PUMP_REST },
	{ "the others have their turn", { 0 }, READY, READY, 0, PUMP_YIELD },
	{ "what waits goes, without a budget too", { .waiting = 1 }, READY, READY, 0, PUMP_DRAIN },
	{ "what waits waits for room", { .waiting = 1 }, READY, FULL, BUDGET, PUMP_REST },
	{ "the end goes behind the last byte", { .waiting = 1, .has_ended = true }, QUIET, READY, BUDGET, PUMP_DRAIN },
	{ "and not before", { .waiting = 1, .has_ended = true }, QUIET, FULL, BUDGET, PUMP_REST },
	{ "an end is passed on", { .has_ended = true }, QUIET, READY, BUDGET, PUMP_FINISH },
	{ "also to who does not read", { .has_ended = true }, QUIET, FULL, BUDGET, PUMP_FINISH },
	{ "a broken end's bytes are taken", { 0 }, BROKEN, READY, BUDGET, PUMP_FILL },
	{ "and given", { .waiting = 1, .has_ended = true, .is_cut_off = true }, BROKEN, READY, BUDGET, PUMP_DRAIN },
	{ "then it is no end, but a reset", { .has_ended = true, .is_cut_off = true }, BROKEN, READY, BUDGET, PUMP_RESET },
	{ "an end that came before it broke is an end", { .has_ended = true }, BROKEN, READY, BUDGET, PUMP_FINISH },
	{ "nothing goes to a broken end", { .waiting = 1 }, READY, BROKEN, BUDGET, PUMP_DISCARD },
	{ "no end either", { .has_ended = true }, READY, BROKEN, BUDGET, PUMP_DISCARD },
	{ "who is done is done", { .has_ended = true, .is_done = true }, READY, BROKEN, BUDGET, PUMP_REST },
};

static void test_each_row(void)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		const enum pump_deed deed = pump_next(&rows[i].flow, &rows[i].from, &rows[i].to, rows[i].budget);
		if (deed != rows[i].deed) {
			printf("%s: %d instead of %d\n", rows[i].rule, deed, rows[i].deed);
			assert(false);
		}
	}
}

static void test_an_end_that_failed_is_read_to_its_end(void)
{
	struct pump_end end = { 0 };

	pump_edge(&end, false, false, true);
	assert(end.is_broken && end.is_readable);
	pump_edge(&end, false, true, false);
	assert(end.is_broken && end.is_writable);
}

int main(void)
{
	test_each_row();
	test_an_end_that_failed_is_read_to_its_end();
	return 0;
}
