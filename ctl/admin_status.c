/* p2pctl admin status. */
#include "ctl/admin.h"

static long long count(const struct json *result, const char *key)
{
	return (long long)admin_integer(result, key, 0);
}

static void print_status(struct ctl *ctl, const struct json *result)
{
	fprintf(ctl->out, "network     %s, %s, %s\n", admin_text(result, "network", "-"),
		admin_text(result, "prefix4", "-"), admin_text(result, "prefix6", "-"));
	fprintf(ctl->out, "control     %s port %lld, p2pcontrol %s\n",
		admin_text(result, "host", "-"), count(result, "port"),
		admin_text(result, "version", "-"));
	fprintf(ctl->out, "nodes       %lld, %lld of them online\n", count(result, "nodes"),
		count(result, "online"));
	fprintf(ctl->out, "joins       %s since control started, %s refused\n",
		admin_text(result, "joins", "0"), admin_text(result, "refused_joins", "0"));
	fprintf(ctl->out, "garbage     %s messages, %s handshakes, %s connections refused\n",
		admin_text(result, "bad_messages", "0"), admin_text(result, "broken_handshakes", "0"),
		admin_text(result, "refused_connections", "0"));
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.status", print_status);
}

const struct ctl_command ctl_admin_status = {
	.name = "admin status",
	.arguments = "",
	.summary = "Show how the network is",
	.text = "Shows the network from control's side: members, how many of them are online, joins.\n",
	.run = run,
};
