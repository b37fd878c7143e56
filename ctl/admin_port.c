/* p2pctl admin port add, remove, list. */
#include "ctl/admin.h"

#include "common/macros.h"
#include "common/table.h"
#include "relay/frontdoor/port_name.h"

#include <string.h>

enum { PORT_ON };

static const struct cli_option on_options[] = {
	[PORT_ON] = { 0, "on", "NODE", "At the front door of this public node alone", NULL, NULL },
};

static enum ctl_exit order(struct ctl *ctl, const struct ctl_args *args, const char *method, const char *done)
{
	const char *text = args->argv[1], *on = args->values[PORT_ON];
	struct port_name port;
	char name[PORT_NAME_TEXT];
	bool is_wrong;
	const size_t len = port_name_word(text, &port, &is_wrong);

	if (len == 0 || text[len] != '\0')
		return ctl_fail(ctl, CTL_USAGE, "a port of the front door such as tcp:2222 or udp:5353; '%.80s' is none", text);
	port_name_print(&port, name);
	struct json *params = json_object();
	json_put_string(params, "name", args->argv[0]);
	json_put_string(params, "port", name);
	if (on)
		json_put_string(params, "on", on);
	return admin_order(ctl, method, params, done);
}

static enum ctl_exit run_add(struct ctl *ctl, const struct ctl_args *args)
{
	return order(ctl, args, "admin.port.add", "Granted.");
}

const struct ctl_command ctl_admin_port_add = {
	.name = "admin port add",
	.arguments = "MEMBER PORT",
	.min_arguments = 2,
	.max_arguments = 2,
	.options = on_options,
	.n_options = ARRAY_LEN(on_options),
	.summary = "Let a member publish a port",
	.text = "Grants a port of front doors to a member, which may then publish it: 'p2pctl expose' there. PORT is\n"
		"tcp:NUMBER or udp:NUMBER. A door opens it if its operator has it in tcp_ports or udp_ports of\n"
		"[frontdoor]. A port may be granted to several members, who share its visitors.\n"
		"\n"
		"Examples:\n"
		"    p2pctl admin port add alice tcp:2222\n"
		"    p2pctl admin port add alice udp:5353 --on gate\n",
	.run = run_add,
};

static enum ctl_exit run_remove(struct ctl *ctl, const struct ctl_args *args)
{
	return order(ctl, args, "admin.port.remove", "Revoked.");
}

const struct ctl_command ctl_admin_port_remove = {
	.name = "admin port remove",
	.arguments = "MEMBER PORT",
	.min_arguments = 2,
	.max_arguments = 2,
	.options = on_options,
	.n_options = ARRAY_LEN(on_options),
	.summary = "Let a member publish a port no more",
	.text = "Takes a grant back; without --on those of all front doors. The port is closed at once, if it is\n"
		"nobody else's; TCP connections that are there stay.\n"
		"\n"
		"    p2pctl admin port remove alice tcp:2222\n",
	.run = run_remove,
};

static const char *state_of(const struct json *port)
{
	if (!admin_flag(port, "granted"))
		return "waits for a grant";
	if (!admin_flag(port, "exposed"))
		return "not exposed";
	return admin_flag(port, "online") ? "exposed" : "exposed, offline";
}

static void print_ports(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("PORT|MEMBER|ON|STATE");
	const struct json *ports = json_member(result, "ports");

	for (const struct json *port = ports ? json_first(ports) : NULL; port; port = json_next(port)) {
		table_cell(table, "%s", admin_text(port, "port", "-"));
		table_cell(table, "%s", admin_text(port, "name", "-"));
		table_cell(table, "%s", admin_text(port, "on", "any"));
		table_cell(table, "%s", state_of(port));
	}
	table_print(table, ctl->out);
}

static enum ctl_exit run_list(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.port.list", print_ports);
}

const struct ctl_command ctl_admin_port_list = {
	.name = "admin port list",
	.arguments = "",
	.summary = "List the ports that members may publish",
	.text = "Lists which ports of front doors are granted to whom, and at whose front door, whether they are\n"
		"published, and what members would publish if it were granted to them.\n",
	.run = run_list,
};
