/* p2pctl admin node list, remove, rename. */
#include "ctl/admin.h"
#include "ctl/format.h"

#include "common/map.h"
#include "common/table.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void print_nodes(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("NODE|ADDRESS|IPV6|SEEN|>ID|RELAY|TAGS|KEY");
	const struct json *nodes = json_member(result, "nodes");
	int64_t now_s = (int64_t)time(NULL);

	for (const struct json *node = nodes ? json_first(nodes) : NULL; node;
	     node = json_next(node)) {
		char *tags = admin_texts(node, "tags", ",");
		int64_t seen_s = admin_integer(node, "last_seen_s", 0);
		table_cell(table, "%s", admin_text(node, "name", "-"));
		table_cell(table, "%s", admin_text(node, "address4", "-"));
		table_cell(table, "%s", admin_text(node, "address6", "-"));
		if (admin_flag(node, "online"))
			table_cell(table, "online");
		else
			table_cell(table, "%s ago",
				   seen_s ? format_duration((now_s - seen_s) * 1000).s : "long");
		table_cell(table, "%lld", (long long)admin_integer(node, "id", 0));
		table_cell(table, "%s", admin_flag(node, "relay") ? "yes" : "");
		table_cell(table, "%s", tags);
		table_cell(table, "%.8s", admin_text(node, "node_key", "-"));
		free(tags);
	}
	table_print(table, ctl->out);
}

static enum ctl_exit run_list(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.node.list", print_nodes);
}

const struct ctl_command ctl_admin_node_list = {
	.name = "admin node list",
	.arguments = "",
	.summary = "List the members",
	.text = "Lists the members of the network and when control heard of each last.\n",
	.run = run_list,
};

static enum ctl_exit run_remove(struct ctl *ctl, const struct ctl_args *args)
{
	struct json *params = json_object();

	json_put_string(params, "name", args->argv[0]);
	return admin_order(ctl, "admin.node.remove", params, "Removed.");
}

const struct ctl_command ctl_admin_node_remove = {
	.name = "admin node remove",
	.arguments = "NAME",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "End a node's membership",
	.text = "All other nodes forget it at once, and relays turn it away. It may join again with a new link.\n",
	.run = run_remove,
};

static enum ctl_exit run_rename(struct ctl *ctl, const struct ctl_args *args)
{
	if (!map_name_is_valid(args->argv[1]))
		return ctl_fail(
			ctl, CTL_USAGE,
			"NEW: must be one to %d of a-z, 0-9 and '-', with no '-' at either end, such as web-1",
			MAP_NAME_LEN);
	struct json *params = json_object();
	json_put_string(params, "name", args->argv[0]);
	json_put_string(params, "new_name", args->argv[1]);
	return admin_order(ctl, "admin.node.rename", params, "Renamed.");
}

const struct ctl_command ctl_admin_node_rename = {
	.name = "admin node rename",
	.arguments = "NAME NEW",
	.min_arguments = 2,
	.max_arguments = 2,
	.summary = "Give a node another name",
	.text = "Gives a member another name. Its addresses stay the same.\n"
		"\n"
		"Example:\n"
		"    p2pctl admin node rename debian web-1\n",
	.run = run_rename,
};
