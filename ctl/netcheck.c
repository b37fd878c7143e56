#include "ctl/client.h"
#include "ctl/ctl.h"
#include "ctl/report.h"

#include "node/status.h"

#define TIMEOUT_MS 30000

static enum ctl_exit exit_of(const struct node_netcheck *netcheck)
{
	if (!node_status_is_member(&netcheck->status))
		return CTL_NOT_JOINED;
	return report_netcheck_is_good(netcheck) ? CTL_OK : CTL_FAILED;
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	struct node_netcheck netcheck;
	struct rpc_message answer;
	struct error error;
	enum ctl_exit exit = client_call(ctl, "node.netcheck", NULL, TIMEOUT_MS, &answer);

	if (exit != CTL_OK)
		return exit;
	if (node_netcheck_from_json(answer.result, &netcheck, &error) != 0) {
		exit = ctl_fail(ctl, CTL_FAILED, "the node's netcheck makes no sense: %s",
				error.message);
	} else {
		if (ctl->json)
			ctl_print_json_borrowed(ctl, answer.result);
		else
			report_netcheck(ctl->out, &netcheck);
		exit = exit_of(&netcheck);
		node_netcheck_deinit(&netcheck);
	}
	rpc_message_deinit(&answer);
	return exit;
}

const struct ctl_command ctl_netcheck = {
	.name = "netcheck",
	.arguments = "",
	.summary = "Check this machine's network, and say what to do",
	.text = "Measures the relays anew, asks their STUN servers how this machine is seen from outside, and\n"
		"says in plain words what is wrong and what to do about it.\n"
		"\n"
		"Exit code 0 when control and a relay can be reached, 1 when not, 4 when this node has not\n"
		"joined a network.\n",
	.run = run,
};
