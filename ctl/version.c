#include "ctl/ctl.h"

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	if (ctl->json) {
		struct json *json = json_object();
		json_put_string(json, "version", P2P_VERSION);
		ctl_print_json(ctl, json);
	} else {
		fprintf(ctl->out, "p2pctl %s\n", P2P_VERSION);
	}
	return CTL_OK;
}

const struct ctl_command ctl_version = {
	.name = "version",
	.arguments = "",
	.summary = "Print the version of p2pctl",
	.text = "Prints the version of p2pctl. The node tells its own in 'p2pctl status'.\n",
	.run = run,
};
