#include "ctl/client.h"
#include "ctl/ctl.h"
#include "ctl/report.h"

#include "common/macros.h"
#include "node/status.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 5000

enum { STATUS_WATCH };

static const struct cli_option options[] = {
	[STATUS_WATCH] = { 'w', "watch", NULL, "Again every second, until interrupted", NULL,
			   NULL },
};

static enum ctl_exit print_answer(struct ctl *ctl, const struct json *result)
{
	struct node_status status;
	struct error error;

	if (node_status_from_json(result, &status, &error) != 0)
		return ctl_fail(ctl, CTL_FAILED, "the node's status makes no sense: %s",
				error.message);
	if (ctl->json) {
		ctl_print_json_borrowed(ctl, result);
	} else {
		report_status(ctl->out, &status);
		fflush(ctl->out);
	}
	enum ctl_exit exit = node_status_is_member(&status) ? CTL_OK : CTL_NOT_JOINED;
	node_status_deinit(&status);
	return exit;
}

static enum ctl_exit once(struct ctl *ctl)
{
	struct rpc_message answer;
	enum ctl_exit exit = client_call(ctl, "node.status", NULL, TIMEOUT_MS, &answer);

	if (exit != CTL_OK)
		return exit;
	exit = print_answer(ctl, answer.result);
	rpc_message_deinit(&answer);
	return exit;
}

static enum ctl_exit watch(struct ctl *ctl)
{
	const struct timespec second = { .tv_sec = 1 };
	bool terminal = !ctl->json && isatty(fileno(ctl->out));

	for (;;) {
		if (terminal)
			fputs("\x1b[H\x1b[2J", ctl->out);
		enum ctl_exit exit = once(ctl); /* a node that restarts comes back */
		if (exit == CTL_USAGE || exit == CTL_DENIED || ferror(ctl->out))
			return exit;
		if (!terminal && !ctl->json)
			fputc('\n', ctl->out);
		fflush(ctl->out);
		nanosleep(&second, NULL);
	}
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	return args->flags[STATUS_WATCH] ? watch(ctl) : once(ctl);
}

const struct ctl_command ctl_status = {
	.name = "status",
	.arguments = "",
	.summary = "Show this node, its peers and their paths",
	.text = "Shows who this node is, whether control and the relay are there, and for each peer the path\n"
		"that packets take now, its latency, and the age of the last handshake and of the last packet\n"
		"that came from it and was authentic. Only these ages say that a peer is alive: 'direct' or\n"
		"'relay' is where packets are sent.\n"
		"\n"
		"Exit code 4 when this node has not joined a network.\n"
		"\n"
		"Examples:\n"
		"    p2pctl status --watch\n"
		"    p2pctl status --json | jq '.peers[] | select(.path == \"direct\") | .name'\n",
	.options = options,
	.n_options = ARRAY_LEN(options),
	.run = run,
};
