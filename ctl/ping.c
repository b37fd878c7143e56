#include "ctl/client.h"
#include "ctl/ctl.h"
#include "ctl/format.h"

#include "common/macros.h"
#include "node/local_api_wire.h"
#include "node/status.h"

#include <string.h>
#include <time.h>

#define GRACE_MS  3000 /* beyond the ping's own deadline */
#define MAX_COUNT 1000000

enum { PING_COUNT, PING_INTERVAL, PING_TIMEOUT };

static const struct cli_option options[] = {
	[PING_COUNT] = { 'c', "count", "N", "How many (default 4)", NULL, NULL },
	[PING_INTERVAL] = { 'i', "interval", "MS", "Milliseconds between them (default 1000)", NULL,
			    NULL },
	[PING_TIMEOUT] = { 't', "timeout", "MS",
			   "Milliseconds to wait for each answer (default 2000)", NULL, NULL },
};

struct plan {
	const char *peer;
	long count, interval_ms, timeout_ms;
};

static enum ctl_exit read_plan(struct ctl *ctl, const struct ctl_args *args, struct plan *ret)
{
	struct plan plan = { args->argv[0], 4, 1000, LOCAL_API_PING_TIMEOUT_MS };
	const char *const *given = args->values;
	struct error error;
	int r = 0;

	if (given[PING_COUNT])
		r = cli_number("--count", given[PING_COUNT], 1, MAX_COUNT, &plan.count, &error);
	if (r == 0 && given[PING_INTERVAL])
		r = cli_number("--interval", given[PING_INTERVAL], 0, 3600000, &plan.interval_ms,
			       &error);
	if (r == 0 && given[PING_TIMEOUT])
		r = cli_number("--timeout", given[PING_TIMEOUT], 1, LOCAL_API_PING_MAX_MS,
			       &plan.timeout_ms, &error);
	if (r != 0)
		return ctl_fail(ctl, CTL_USAGE, "%s", error.message);
	*ret = plan;
	return CTL_OK;
}

static void print_result(struct ctl *ctl, const struct plan *plan,
			 const struct node_ping_result *result)
{
	const char *name = result->peer[0] != '\0' ? result->peer : plan->peer;

	if (!result->answered)
		fprintf(ctl->out, "%s: no answer within %ld ms\n", name, plan->timeout_ms);
	else
		fprintf(ctl->out, "%s (%s): answer by %s in %s\n", name,
			endpoint_ip_text(&result->ip).s,
			format_path(result->path, &result->endpoint, result->relay).s,
			format_latency(result->latency_us).s);
	fflush(ctl->out);
}

static enum ctl_exit ping_once(struct ctl *ctl, const struct plan *plan, bool *ret_answered)
{
	struct node_ping_result result;
	struct rpc_message answer;
	struct error error;
	struct json *params = json_object();

	json_put_string(params, "peer", plan->peer);
	json_put_integer(params, "timeout_ms", plan->timeout_ms);
	enum ctl_exit exit = client_call(ctl, "node.ping", params,
					 (uint64_t)plan->timeout_ms + GRACE_MS, &answer);
	if (exit != CTL_OK)
		return exit;
	if (node_ping_result_from_json(answer.result, &result, &error) != 0) {
		exit = ctl_fail(ctl, CTL_FAILED, "the node's answer makes no sense: %s",
				error.message);
	} else {
		*ret_answered = result.answered;
		if (ctl->json)
			ctl_print_json_borrowed(ctl, answer.result);
		else
			print_result(ctl, plan, &result);
	}
	rpc_message_deinit(&answer);
	return exit;
}

static void pause_ms(long ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	struct plan plan;
	long answered = 0;
	enum ctl_exit exit = read_plan(ctl, args, &plan);

	for (long i = 0; i < plan.count && exit == CTL_OK; i++) {
		bool yes = false;
		if (i > 0)
			pause_ms(plan.interval_ms);
		exit = ping_once(ctl, &plan, &yes);
		answered += yes;
	}
	if (exit != CTL_OK)
		return exit;
	if (!ctl->json && plan.count > 1)
		fprintf(ctl->out, "%ld of %ld answered\n", answered, plan.count);
	if (answered > 0)
		return CTL_OK;
	return ctl_fail(ctl, CTL_FAILED,
			"%s does not answer; 'p2pctl status' shows its path, 'p2pctl netcheck' what is wrong "
			"here",
			plan.peer);
}

const struct ctl_command ctl_ping = {
	.name = "ping",
	.arguments = "NAME|ADDRESS",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "Ask a peer for an answer, and say by which path it came",
	.text = "Asks the peer, by its name or overlay address, and says by which path the answer came: direct,\n"
		"with the address it was reached at, or by a relay. Asking makes the node look for a direct\n"
		"path, so that the first answers may come by relay and later ones directly.\n"
		"\n"
		"Exit code 0 when at least one answer came, 1 when none did.\n"
		"\n"
		"Example:\n"
		"    p2pctl ping bob -c 10\n",
	.options = options,
	.n_options = ARRAY_LEN(options),
	.run = run,
};
