#include "ctl/client.h"
#include "ctl/ctl.h"

#include "common/log.h"

#include <string.h>

#define TIMEOUT_MS 5000

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	struct rpc_message answer;
	enum log_level level;

	if (log_level_parse(args->argv[0], &level) != 0)
		return ctl_fail(ctl, CTL_USAGE,
				"log-level: must be error, warning, info, debug or trace");

	struct json *params = json_object();
	json_put_string(params, "level", args->argv[0]);
	enum ctl_exit exit = client_call(ctl, "node.log_level", params, TIMEOUT_MS, &answer);
	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, answer.result);
	rpc_message_deinit(&answer);
	return CTL_OK;
}

const struct ctl_command ctl_log_level = {
	.name = "log-level",
	.arguments = "LEVEL",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "Let the node log more or less, until it restarts",
	.text = "Sets how much the running node logs: error, warning, info, debug or trace. The level in\n"
		"p2pnode.conf(5) is back after a restart.\n"
		"\n"
		"Example, to watch how a path is found:\n"
		"    p2pctl log-level debug && journalctl -fu p2pnode\n",
	.run = run,
};
