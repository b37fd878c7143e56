/* p2pctl relay status: for whoever runs a public node. */
#include "ctl/client.h"
#include "ctl/ctl.h"
#include "ctl/relay_report.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS   5000
#define MAX_SECONDS  3600
#define SUMMARY_ROWS 15 /* what stands above and below the clients, with the cursor */

enum { STATUS_WATCH };

static const struct cli_option options[] = {
	[STATUS_WATCH] = { 'w', "watch", NULL, "Again every second, or every SECONDS, with rates", NULL, NULL },
};

/* What a picture needs of those before it. */
struct watch {
	bool on_terminal;
	bool has_earlier;
	struct relay_status earlier;
};

/* As many clients as the terminal has room for; 0: all. */
static uint32_t room_for_clients(const struct ctl *ctl, const struct watch *watch)
{
	struct winsize size;

	if (!watch || !watch->on_terminal || ioctl(fileno(ctl->out), TIOCGWINSZ, &size) != 0 || size.ws_row == 0)
		return 0;
	return size.ws_row > SUMMARY_ROWS ? size.ws_row - (uint32_t)SUMMARY_ROWS : 1;
}

/* watch: NULL when it is asked only once. */
static enum ctl_exit print_answer(struct ctl *ctl, const struct json *result, struct watch *watch)
{
	struct relay_status status;
	struct error error;

	if (relay_status_from_json(result, &status, &error) != 0)
		return ctl_fail(ctl, CTL_FAILED, "the relay's status makes no sense: %s", error.message);
	if (watch && watch->on_terminal)
		fputs("\x1b[H\x1b[2J", ctl->out);
	if (ctl->json)
		ctl_print_json_borrowed(ctl, result);
	else
		report_relay_status(ctl->out, &status, watch && watch->has_earlier ? &watch->earlier : NULL,
				    room_for_clients(ctl, watch));
	if (watch) {
		relay_status_deinit(&watch->earlier);
		watch->earlier = status;
		watch->has_earlier = true;
	} else {
		relay_status_deinit(&status);
	}
	fflush(ctl->out);
	return CTL_OK;
}

static enum ctl_exit once(struct ctl *ctl, struct watch *watch)
{
	struct rpc_message answer;
	enum ctl_exit exit = client_call(ctl, "relay.status", NULL, TIMEOUT_MS, &answer);

	if (exit != CTL_OK)
		return exit;
	exit = print_answer(ctl, answer.result, watch);
	rpc_message_deinit(&answer);
	return exit;
}

/* A node that answered once may restart and comes back; one that never did is told about and left. */
static enum ctl_exit watch_every(struct ctl *ctl, long seconds)
{
	const struct timespec pause = { .tv_sec = seconds };
	struct watch watch = { .on_terminal = !ctl->json && isatty(fileno(ctl->out)) };
	enum ctl_exit exit;

	relay_status_init(&watch.earlier);
	for (;;) {
		exit = once(ctl, &watch);
		if (!watch.has_earlier || exit == CTL_DENIED || ferror(ctl->out))
			break;
		if (!watch.on_terminal && !ctl->json)
			fputc('\n', ctl->out);
		fflush(ctl->out);
		nanosleep(&pause, NULL);
	}
	relay_status_deinit(&watch.earlier);
	return exit;
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	struct error error;
	long seconds = 1;

	if (args->n > 0 && !args->flags[STATUS_WATCH])
		return ctl_fail(ctl, CTL_USAGE, "relay status: SECONDS go with --watch");
	if (args->n > 0 && cli_number("--watch", args->argv[0], 1, MAX_SECONDS, &seconds, &error) != 0)
		return ctl_fail(ctl, CTL_USAGE, "%s", error.message);
	return args->flags[STATUS_WATCH] ? watch_every(ctl, seconds) : once(ctl, NULL);
}

const struct ctl_command ctl_relay_status = {
	.name = "relay status",
	.arguments = "[SECONDS]",
	.max_arguments = 1,
	.summary = "Show what this public node's relay does",
	.text = "Shows, on a node with a [public] section: the CPU time it took, what the relay carried, what it\n"
		"dropped, refused and closed and why, what STUN was asked, and each client with its traffic,\n"
		"those with most bytes first. IN is what a client gave to be passed on, in bytes of sealed\n"
		"packets; OUT is what it got, in bytes of all frames; DROPPED is what it was too slow for.\n"
		"\n"
		"With --watch again every second, or every SECONDS, until interrupted; from the second time on\n"
		"with what each client does a second, and on a terminal as many clients as it has room for.\n"
		"\n"
		"Exit code 1 when this node is no public node, 4 when it has not joined a network.\n"
		"\n"
		"    p2pctl relay status --watch 5\n",
	.options = options,
	.n_options = ARRAY_LEN(options),
	.run = run,
};
