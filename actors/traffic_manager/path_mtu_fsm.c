#include "actors/traffic_manager/path_mtu_fsm.h"

#include "common/macros.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define MS(n)		  ((uint64_t)(n)*1000000u)
#define MAX_PROBES	  3	    /* of one size */
#define WAIT_MIN_NS	  MS(250)   /* for an answer: a busy machine, a queue of our own */
#define WAIT_MAX_NS	  MS(1000)
#define PATIENT_NS	  MS(1000)  /* … to what has passed before, while data comes by the path */
#define CONFIRM_NS	  MS(10000)
#define CONFIRM_SOON_NS	  MS(1000)  /* when not even a small one was answered */
#define SUSPICION_NS	  MS(250)   /* data went out and nothing came in */
/*
 * By relay what is too long arrives in pieces, and is rarely lost. Nothing coming back says rather that the relay hangs:
 * long probes in the queue to it would look like life there, and delay that this is noticed (uplink_watch.h).
 */
#define SUSPICION_RELAY_NS MS(1500)
#define SUSPICION_EACH_NS MS(2000)  /* some flows go one way only */
#define RAISE_NS	  MS(600000)
#define ERROR_NS	  MS(60000)
#define SOON_AGAIN_NS	  MS(5000)  /* when nothing at all was answered by a peer that knows probes */

static void trace(const struct path_mtu_fsm *fsm, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void trace(const struct path_mtu_fsm *fsm, const char *format, ...)
{
	char line[96];
	va_list arguments;

	if (!fsm->trace)
		return;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	fsm->trace(fsm->trace_arg, line);
}

const char *path_mtu_state_name(enum path_mtu_state state)
{
	static const char *const names[PATH_MTU_N_STATES] = {
		[PATH_MTU_DISABLED] = "disabled", [PATH_MTU_BASE] = "base",   [PATH_MTU_SEARCHING] = "searching",
		[PATH_MTU_COMPLETE] = "complete", [PATH_MTU_ERROR] = "error", [PATH_MTU_SILENT] = "silent",
	};

	return (unsigned)state < PATH_MTU_N_STATES ? names[state] : "?";
}

static void enter(struct path_mtu_fsm *fsm, enum path_mtu_state state, const char *why)
{
	if (fsm->state != state)
		trace(fsm, "mtu %s -> %s: %s", path_mtu_state_name(fsm->state), path_mtu_state_name(state), why);
	fsm->state = state;
}

static void act(struct path_mtu_actions *out, enum path_mtu_action_type type, uint32_t size)
{
	assert(out->n < PATH_MTU_MAX_ACTIONS);
	out->all[out->n++] = (struct path_mtu_action){ .type = type, .size = size };
}

/* Said once a step at most: a step may change its mind. */
static void say(struct path_mtu_fsm *fsm, struct path_mtu_actions *out, uint32_t size)
{
	if (size != 0 && size < PATH_MTU_MIN)
		size = PATH_MTU_MIN;
	if (size == fsm->said)
		return;
	fsm->said = size;
	for (uint32_t i = 0; i < out->n; i++)
		if (out->all[i].type == PATH_MTU_DO_SAY) {
			out->all[i].size = size;
			return;
		}
	act(out, PATH_MTU_DO_SAY, size);
}

/* ---- asking ---- */

static uint64_t wait_ns(const struct path_mtu_fsm *fsm, const struct path_mtu_input *in)
{
	uint64_t ns = (uint64_t)in->rtt_us * 3000;

	if (fsm->confirms && fsm->has_received)
		return PATIENT_NS;
	return ns < WAIT_MIN_NS ? WAIT_MIN_NS : ns > WAIT_MAX_NS ? WAIT_MAX_NS : ns;
}

/* What is still asked, once more. */
static void send_round(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	for (uint32_t i = 0; i < fsm->n_sizes; i++) {
		act(out, PATH_MTU_DO_PROBE, fsm->sizes[i]);
		if (fsm->sizes[i] > fsm->largest_sent)
			fsm->largest_sent = fsm->sizes[i];
	}
	fsm->n_rounds++;
	fsm->round_ns = in->now_ns + wait_ns(fsm, in);
}

static void forget_asked(struct path_mtu_fsm *fsm)
{
	fsm->n_sizes = fsm->n_rounds = 0;
	fsm->round_ns = 0;
	fsm->confirms = false;
}

/* Sizes are given from the largest to the smallest; those that make no sense are left out. */
static void add_size(struct path_mtu_fsm *fsm, uint32_t size)
{
	if (size > fsm->max || (fsm->n_sizes > 0 && size >= fsm->sizes[fsm->n_sizes - 1]))
		return;
	fsm->sizes[fsm->n_sizes++] = size;
}

static void begin(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	forget_asked(fsm);
	fsm->passed = 0;
	fsm->failed = fsm->max + 1;
	add_size(fsm, fsm->max);
	add_size(fsm, fsm->common);
	add_size(fsm, PATH_MTU_MIN);
	add_size(fsm, PATH_MTU_SMALL);
	send_round(fsm, in, out);
}

/* ---- what comes of it ---- */

static void complete(struct path_mtu_fsm *fsm, const struct path_mtu_input *in)
{
	forget_asked(fsm);
	enter(fsm, PATH_MTU_COMPLETE, "nothing is left to try");
	fsm->confirm_ns = in->now_ns + CONFIRM_NS;
	if (fsm->again_ns <= in->now_ns)
		fsm->again_ns = in->now_ns + RAISE_NS;
}

static void rest(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, enum path_mtu_state state,
		 const char *why, uint64_t ns)
{
	forget_asked(fsm);
	enter(fsm, state, why);
	fsm->again_ns = in->now_ns + ns;
}

/* Everything that was asked is answered, or has been asked often enough. */
static void go_on(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	if (fsm->passed == 0 && !fsm->is_known) {
		rest(fsm, in, PATH_MTU_SILENT, "nothing is answered", fsm->was_silent ? RAISE_NS : ERROR_NS);
		fsm->was_silent = true;
		say(fsm, out, PATH_MTU_MIN);
		return;
	}
	if (fsm->passed == 0) { /* an outage: that is not a matter of size */
		rest(fsm, in, PATH_MTU_ERROR, "nothing is answered", SOON_AGAIN_NS);
		if (fsm->said > fsm->until_known)
			say(fsm, out, PATH_MTU_MIN);
		return;
	}
	if (fsm->passed < PATH_MTU_MIN) {
		rest(fsm, in, PATH_MTU_ERROR, "the base does not pass", ERROR_NS);
		say(fsm, out, PATH_MTU_MIN);
		return;
	}
	say(fsm, out, fsm->passed);
	if (fsm->passed == fsm->max || fsm->failed - fsm->passed <= PATH_MTU_STEP) {
		complete(fsm, in);
		return;
	}
	forget_asked(fsm);
	enter(fsm, PATH_MTU_SEARCHING, "base passed");
	uint32_t middle = (fsm->passed + (fsm->failed - fsm->passed) / 2) & ~(PATH_MTU_STEP - 1u);
	if (middle <= fsm->passed)
		middle = fsm->passed + PATH_MTU_STEP;
	add_size(fsm, middle);
	send_round(fsm, in, out);
}

/* Sizes up to what passed need no more asking, nor do those that were refused. */
static void strike(struct path_mtu_fsm *fsm)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < fsm->n_sizes; i++)
		if (fsm->sizes[i] > fsm->passed && fsm->sizes[i] < fsm->failed)
			fsm->sizes[n++] = fsm->sizes[i];
	fsm->n_sizes = n;
}

static void on_confirmed(struct path_mtu_fsm *fsm, const struct path_mtu_input *in)
{
	forget_asked(fsm);
	fsm->confirm_ns = in->now_ns + CONFIRM_NS;
}

static void on_passed(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	if (!fsm->active || fsm->state == PATH_MTU_DISABLED || in->size > fsm->largest_sent || in->size > fsm->max)
		return; /* nobody waits for it, or it is of another path, or a lie */
	fsm->is_known = true;
	if (in->size <= fsm->passed) {
		fsm->small_passes |= fsm->confirms;
		if (fsm->confirms && in->size == fsm->passed)
			on_confirmed(fsm, in);
		return;
	}
	trace(fsm, "mtu %u passed", in->size);
	fsm->passed = in->size;
	if (fsm->failed <= fsm->passed)
		fsm->failed = fsm->max + 1; /* it was late, not too large */
	if (fsm->confirms)
		forget_asked(fsm);
	strike(fsm);
	if (fsm->n_sizes == 0)
		go_on(fsm, in, out);
	else if (fsm->said != 0 && fsm->passed > fsm->said)
		say(fsm, out, fsm->passed);
}

static void on_refused(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	if (fsm->state == PATH_MTU_DISABLED || in->size >= fsm->failed || fsm->n_sizes == 0)
		return;
	trace(fsm, "mtu %u refused by the first link", in->size);
	if (in->size <= fsm->passed) {
		begin(fsm, in, out); /* the link has become smaller */
		enter(fsm, PATH_MTU_BASE, "the first link refuses");
		return;
	}
	fsm->failed = in->size;
	strike(fsm);
	if (fsm->n_sizes == 0)
		go_on(fsm, in, out);
}

static void on_lost(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	if (fsm->confirms && !fsm->small_passes) {
		forget_asked(fsm); /* nothing passes: that is not a matter of size */
		fsm->confirm_ns = in->now_ns + CONFIRM_SOON_NS;
		return;
	}
	if (fsm->confirms) {
		trace(fsm, "mtu %u no longer passes", fsm->passed);
		say(fsm, out, PATH_MTU_MIN);
		enter(fsm, PATH_MTU_BASE, "black hole");
		begin(fsm, in, out);
		return;
	}
	for (uint32_t i = 0; i < fsm->n_sizes; i++)
		if (fsm->sizes[i] < fsm->failed)
			fsm->failed = fsm->sizes[i];
	trace(fsm, "mtu %u does not pass", fsm->failed);
	go_on(fsm, in, out);
}

/* ---- search complete ---- */

static void confirm(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	forget_asked(fsm);
	fsm->confirms = true;
	fsm->has_received = fsm->small_passes = false;
	add_size(fsm, fsm->passed);
	add_size(fsm, PATH_MTU_SMALL);
	send_round(fsm, in, out);
}

static void raise_again(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	fsm->again_ns = in->now_ns + RAISE_NS;
	if (fsm->passed == fsm->max)
		return;
	forget_asked(fsm);
	enter(fsm, PATH_MTU_SEARCHING, "a larger one may pass by now");
	fsm->failed = fsm->max + 1;
	add_size(fsm, fsm->max);
	if (fsm->common > fsm->passed + PATH_MTU_STEP)
		add_size(fsm, fsm->common);
	add_size(fsm, fsm->passed + PATH_MTU_STEP);
	send_round(fsm, in, out);
}

static bool is_due(uint64_t at_ns, const struct path_mtu_input *in)
{
	return at_ns != 0 && at_ns <= in->now_ns;
}

static uint64_t suspicion_ns(const struct path_mtu_fsm *fsm)
{
	if (fsm->unanswered_ns == 0)
		return 0;
	const uint64_t patience_ns = fsm->until_known != 0 ? SUSPICION_RELAY_NS : SUSPICION_NS;
	const uint64_t ns = fsm->unanswered_ns + patience_ns, soonest = fsm->suspected_ns + SUSPICION_EACH_NS;
	return fsm->suspected_ns != 0 && ns < soonest ? soonest : ns;
}

static void on_due(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	if (!fsm->active)
		return;
	if (fsm->n_sizes > 0) {
		if (!is_due(fsm->round_ns, in))
			return;
		if (fsm->n_rounds >= MAX_PROBES)
			on_lost(fsm, in, out);
		else
			send_round(fsm, in, out);
		return;
	}
	if (fsm->state == PATH_MTU_COMPLETE && is_due(fsm->again_ns, in))
		raise_again(fsm, in, out);
	if (fsm->state == PATH_MTU_COMPLETE && is_due(suspicion_ns(fsm), in)) {
		fsm->suspected_ns = in->now_ns;
		confirm(fsm, in, out);
	} else if (fsm->state == PATH_MTU_COMPLETE && is_due(fsm->confirm_ns, in)) {
		confirm(fsm, in, out);
	} else if ((fsm->state == PATH_MTU_ERROR || fsm->state == PATH_MTU_SILENT) && is_due(fsm->again_ns, in)) {
		enter(fsm, PATH_MTU_BASE, "again");
		begin(fsm, in, out);
	}
}

/* ---- paths and traffic ---- */

static void on_path(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	assert(in->max >= PATH_MTU_MIN);
	forget_asked(fsm);
	fsm->max = in->max;
	fsm->common = in->common;
	fsm->again_ns = fsm->confirm_ns = fsm->unanswered_ns = fsm->suspected_ns = 0;
	fsm->passed = fsm->largest_sent = 0;
	fsm->failed = fsm->max + 1;
	enter(fsm, PATH_MTU_BASE, "path");
	fsm->until_known = in->until_known;
	say(fsm, out, in->until_known != 0 && in->until_known < fsm->max ? in->until_known : fsm->max);
	if (fsm->active)
		begin(fsm, in, out);
}

static void on_no_path(struct path_mtu_fsm *fsm, struct path_mtu_actions *out)
{
	forget_asked(fsm);
	enter(fsm, PATH_MTU_DISABLED, "no path");
	say(fsm, out, 0);
}

static void on_traffic(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	if (fsm->active)
		return;
	fsm->active = true;
	fsm->unanswered_ns = 0;
	if (fsm->state == PATH_MTU_BASE || fsm->state == PATH_MTU_SEARCHING) {
		enter(fsm, PATH_MTU_BASE, "traffic");
		begin(fsm, in, out);
	} else {
		/* Who says something now and then is not asked each time; that nothing comes back is suspicious soon enough. */
		if (is_due(fsm->confirm_ns, in))
			fsm->confirm_ns = in->now_ns + CONFIRM_NS;
		on_due(fsm, in, out);
	}
}

static void on_idle(struct path_mtu_fsm *fsm)
{
	fsm->active = false;
	forget_asked(fsm);
}

static uint64_t next_deadline(const struct path_mtu_fsm *fsm)
{
	uint64_t due[] = { fsm->again_ns, 0, 0 }, first = 0;

	if (!fsm->active || fsm->state == PATH_MTU_DISABLED)
		return 0;
	if (fsm->n_sizes > 0)
		return fsm->round_ns;
	if (fsm->state == PATH_MTU_COMPLETE) {
		due[1] = fsm->confirm_ns;
		due[2] = suspicion_ns(fsm);
	}
	for (size_t i = 0; i < ARRAY_LEN(due); i++)
		if (due[i] != 0 && (first == 0 || due[i] < first))
			first = due[i];
	return first;
}

void path_mtu_fsm_step(struct path_mtu_fsm *fsm, const struct path_mtu_input *in, struct path_mtu_actions *out)
{
	out->n = 0;
	switch (in->type) {
	case PATH_MTU_IN_PATH:
		on_path(fsm, in, out);
		break;
	case PATH_MTU_IN_NO_PATH:
		on_no_path(fsm, out);
		break;
	case PATH_MTU_IN_TRAFFIC:
		on_traffic(fsm, in, out);
		break;
	case PATH_MTU_IN_IDLE:
		on_idle(fsm);
		break;
	case PATH_MTU_IN_PASSED:
		on_passed(fsm, in, out);
		break;
	case PATH_MTU_IN_REFUSED:
		on_refused(fsm, in, out);
		break;
	case PATH_MTU_IN_SENT:
		if (fsm->unanswered_ns == 0)
			fsm->unanswered_ns = in->now_ns;
		break;
	case PATH_MTU_IN_RECEIVED:
		fsm->unanswered_ns = 0;
		fsm->has_received = true;
		break;
	case PATH_MTU_IN_DEADLINE:
		on_due(fsm, in, out);
		break;
	}
	fsm->deadline_ns = next_deadline(fsm);
}
