/* p2pctl relay drain, undrain: before a public node is taken away, and afterwards. */
#include "ctl/client.h"
#include "ctl/ctl.h"
#include "node/local_api_wire.h"
#include "node/relay_status.h"

#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 5000
#define LOOK_MS	   250
#define TELL_MS	   2000 /* how often a line is added where none can be written over */

enum { DRAIN_DEADLINE, DRAIN_UNDO };

static const struct cli_option options[] = {
	[DRAIN_DEADLINE] = { 'd', "deadline", "SECONDS", "By when all clients are sent away (60)", NULL, NULL },
	[DRAIN_UNDO] = { 'u', "undo", NULL, "Take clients again, as relay undrain", NULL, NULL },
};

static enum ctl_exit call(struct ctl *ctl, const char *method, struct json *params_take)
{
	struct rpc_message answer;
	enum ctl_exit exit = client_call(ctl, method, params_take, TIMEOUT_MS, &answer);

	if (exit == CTL_OK)
		rpc_message_deinit(&answer);
	return exit;
}

static enum ctl_exit look(struct ctl *ctl, struct relay_status *ret)
{
	struct json *params = json_object();
	struct rpc_message answer;
	struct error error;

	json_put_boolean(params, "clients", false); /* there may be thousands, and it is asked often */
	enum ctl_exit exit = client_call_with_new_params(ctl, "relay.status", params, TIMEOUT_MS, &answer);

	if (exit != CTL_OK)
		return exit;
	if (relay_status_from_json(answer.result, ret, &error) != 0)
		exit = ctl_fail(ctl, CTL_FAILED, "the relay's status makes no sense: %s", error.message);
	rpc_message_deinit(&answer);
	return exit;
}

static uint32_t n_clients(const struct relay_status *status)
{
	return status->tls_clients + status->udp_clients;
}

/* One line that is written over on a terminal; elsewhere a line now and then. */
static void tell_progress(struct ctl *ctl, const struct relay_status *status, uint32_t look_number)
{
	bool on_terminal = isatty(fileno(ctl->out));

	if (ctl->json || (!on_terminal && look_number % (TELL_MS / LOOK_MS) != 0))
		return;
	fprintf(ctl->out, "%sdraining: %u clients left, %u s until the deadline%s", on_terminal ? "\r" : "",
		n_clients(status), (unsigned)((status->drain_left_ms + 999) / 1000),
		on_terminal ? "   " : "\n");
	fflush(ctl->out);
}

static enum ctl_exit report_end(struct ctl *ctl, const struct relay_status *status)
{
	bool is_empty = status->draining && n_clients(status) == 0;

	if (ctl->json) {
		struct json *json = json_object();
		json_put_boolean(json, "drained", is_empty);
		json_put_integer(json, "clients", n_clients(status));
		ctl_print_json(ctl, json);
		return is_empty ? CTL_OK : CTL_FAILED;
	}
	if (isatty(fileno(ctl->out)))
		fputs("\r\x1b[K", ctl->out);
	if (!status->draining)
		return ctl_fail(ctl, CTL_FAILED, "draining was ended: the relay takes clients again");
	if (!is_empty)
		return ctl_fail(ctl, CTL_FAILED, "%u clients are still here at the deadline; p2pctl relay status "
				"lists them", n_clients(status));
	fputs("The relay is empty and takes no clients until it is restarted, or p2pctl relay undrain.\n", ctl->out);
	return CTL_OK;
}

static enum ctl_exit await_empty(struct ctl *ctl)
{
	const struct timespec pause = { .tv_nsec = LOOK_MS * 1000000L };
	struct relay_status status;
	enum ctl_exit exit;

	for (uint32_t n = 0;; n++) {
		relay_status_init(&status);
		exit = look(ctl, &status);
		if (exit != CTL_OK)
			return exit;
		if (n_clients(&status) == 0 || status.drain_left_ms == 0 || !status.draining)
			break;
		tell_progress(ctl, &status, n);
		relay_status_deinit(&status);
		nanosleep(&pause, NULL);
	}
	exit = report_end(ctl, &status);
	relay_status_deinit(&status);
	return exit;
}

static enum ctl_exit undrain(struct ctl *ctl)
{
	enum ctl_exit exit = call(ctl, "relay.undrain", NULL);

	if (exit == CTL_OK && !ctl->json)
		fputs("The relay takes clients.\n", ctl->out);
	else if (exit == CTL_OK)
		fputs("{\"done\":true}\n", ctl->out);
	return exit;
}

static enum ctl_exit run_undrain(struct ctl *ctl, const struct ctl_args *args)
{
	return undrain(ctl);
}

static enum ctl_exit run_drain(struct ctl *ctl, const struct ctl_args *args)
{
	long deadline_s = LOCAL_API_DRAIN_S;
	struct error error;

	if (args->flags[DRAIN_UNDO])
		return undrain(ctl);
	if (args->values[DRAIN_DEADLINE] && cli_number("--deadline", args->values[DRAIN_DEADLINE], 1,
						       LOCAL_API_DRAIN_MAX_S, &deadline_s, &error) != 0)
		return ctl_fail(ctl, CTL_USAGE, "%s", error.message);
	struct json *params = json_object();
	json_put_integer(params, "deadline_s", deadline_s);
	enum ctl_exit exit = call(ctl, "relay.drain", params);
	return exit == CTL_OK ? await_empty(ctl) : exit;
}

const struct ctl_command ctl_relay_drain = {
	.name = "relay drain",
	.arguments = "",
	.summary = "Send this public node's clients to other relays",
	.text = "On a node with a [public] section: its relay takes no clients any more and sends away those it\n"
		"has, one after another, so that other relays are not flooded: they find another one within a\n"
		"second. Waits, and shows how many are left, until none is, or the deadline. STUN goes on. The\n"
		"relay takes clients again after 'p2pctl relay undrain', or when p2pnode is started anew.\n"
		"\n"
		"Exit code 1 when clients are left at the deadline, or this node is no public node.\n"
		"\n"
		"    p2pctl relay drain --deadline 30 && systemctl stop p2pnode\n",
	.options = options,
	.n_options = ARRAY_LEN(options),
	.run = run_drain,
};

const struct ctl_command ctl_relay_undrain = {
	.name = "relay undrain",
	.arguments = "",
	.summary = "Let this public node take clients again",
	.text = "On a node with a [public] section: ends what 'p2pctl relay drain' began. Clients come back as\n"
		"they look for relays again.\n",
	.run = run_undrain,
};
