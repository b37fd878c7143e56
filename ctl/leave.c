#include "ctl/client.h"
#include "ctl/ctl.h"

#define TIMEOUT_MS 30000

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	return client_order(ctl, "node.leave", NULL, TIMEOUT_MS, "This node has left its network.");
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
