/* p2pctl admin host add, remove, list. */
#include "ctl/admin.h"

#include "common/table.h"

#include <stdlib.h>

static struct json *params_of(const struct ctl_args *args)
{
	struct json *params = json_object();

	json_put_string(params, "name", args->argv[0]);
	json_put_string(params, "host", args->argv[1]);
	return params;
}

static enum ctl_exit run_add(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_order(ctl, "admin.host.add", params_of(args), "Granted.");
}

const struct ctl_command ctl_admin_host_add = {
	.name = "admin host add",
	.arguments = "MEMBER HOST",
	.min_arguments = 2,
	.max_arguments = 2,
	.summary = "Let a member publish a host",
	.text = "Grants a host name to a member, which may then publish it: 'p2pctl expose' there. One that waits\n"
		"for the grant is live at once. '*.example.org' stands for one label, such as app.example.org, but\n"
		"not for a name that is granted by itself to another member. A name may be granted to several.\n"
		"\n"
		"Examples:\n"
		"    p2pctl admin host add alice app.example.org\n"
		"    p2pctl admin host add alice '*.example.org'\n",
	.run = run_add,
};

static enum ctl_exit run_remove(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_order(ctl, "admin.host.remove", params_of(args), "Revoked.");
}

const struct ctl_command ctl_admin_host_remove = {
	.name = "admin host remove",
	.arguments = "MEMBER HOST",
	.min_arguments = 2,
	.max_arguments = 2,
	.summary = "Let a member publish a host no more",
	.text = "Takes a grant back. No new visitor is led to the member under that name; it waits for a grant\n"
		"again.\n"
		"\n"
		"    p2pctl admin host remove alice app.example.org\n",
	.run = run_remove,
};

static const char *state_of(const struct json *host)
{
	if (!admin_flag(host, "granted"))
		return "waits for a grant";
	if (!admin_flag(host, "exposed"))
		return "not exposed";
	return admin_flag(host, "online") ? "exposed" : "exposed, offline";
}

static void print_hosts(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("HOST|MEMBER|STATE");
	const struct json *hosts = json_member(result, "hosts");

	for (const struct json *host = hosts ? json_first(hosts) : NULL; host; host = json_next(host)) {
		table_cell(table, "%s", admin_text(host, "host", "-"));
		table_cell(table, "%s", admin_text(host, "name", "-"));
		table_cell(table, "%s", state_of(host));
	}
	table_print(table, ctl->out);
}

static enum ctl_exit run_list(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.host.list", print_hosts);
}

const struct ctl_command ctl_admin_host_list = {
	.name = "admin host list",
	.arguments = "",
	.summary = "List the hosts that members may publish",
	.text = "Lists which host names are granted to whom, whether they are published, and what members would\n"
		"publish if it were granted to them.\n",
	.run = run_list,
};
