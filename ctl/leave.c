#include "ctl/client.h"
#include "ctl/ctl.h"

#define TIMEOUT_MS 30000

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	struct rpc_message answer;
	enum ctl_exit exit = client_call(ctl, "node.leave", NULL, TIMEOUT_MS, &answer);

	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, answer.result);
	else
		fputs("This node has left its network.\n", ctl->out);
	rpc_message_deinit(&answer);
	return CTL_OK;
}

const struct ctl_command ctl_leave = {
	.name = "leave",
	.arguments = "",
	.summary = "Leave the network",
	.text = "Ends this node's membership: control forgets it, its overlay addresses and name are free\n"
		"again, its certificate and map are removed from this machine. To come back, join with a\n"
		"new link.\n",
	.run = run,
};
