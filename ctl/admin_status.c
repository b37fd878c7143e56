/* p2pctl admin status. */
#include "ctl/admin.h"
#include "ctl/format.h"

static void print_status(struct ctl *ctl, const struct json *result)
{
	fprintf(ctl->out, "network     %s, control running for %s (p2pcontrol %s)\n",
		admin_text(result, "network", "-"), format_duration(admin_integer(result, "uptime_ms", -1)).s,
		admin_text(result, "version", "-"));
	fprintf(ctl->out, "members     %lld, %lld of them online\n", (long long)admin_integer(result, "nodes", 0),
		(long long)admin_integer(result, "online", 0));
	fprintf(ctl->out, "relays      %lld\n", (long long)admin_integer(result, "relays", 0));
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.status", print_status);
}

const struct ctl_command ctl_admin_status = {
	.name = "admin status",
	.arguments = "",
	.summary = "Show how the network is",
	.text = "Shows the network from control's side: members, how many of them are online, relays.\n",
	.run = run,
};
