/* p2pctl admin relay add, list, remove. */
#include "ctl/admin.h"

#include "common/macros.h"
#include "common/map.h"
#include "common/table.h"

#include <stdlib.h>
#include <string.h>

enum { ADD_REGION, ADD_COST };

static const struct cli_option add_options[] = {
	[ADD_REGION] = { 0, "region", "NAME", "Where it is, for people to read; empty: nothing", NULL, NULL },
	[ADD_COST] = { 0, "cost", "MS", "Counts as so many ms more latency when a home is chosen", NULL, NULL },
};

static enum ctl_exit put_hints(struct ctl *ctl, struct json *params, const struct ctl_args *args)
{
	const char *region = args->values[ADD_REGION], *cost = args->values[ADD_COST];
	struct error error;
	long cost_ms;

	if (region && region[0] && !map_name_is_valid(region))
		return ctl_fail(ctl, CTL_USAGE,
				"--region: must be one to %d of a-z, 0-9 and '-', such as eu-west; or empty",
				MAP_NAME_LEN);
	if (region)
		json_put_string(params, "region", region);
	if (!cost)
		return CTL_OK;
	if (cli_number("--cost", cost, 0, MAP_MAX_COST_MS, &cost_ms, &error) != 0)
		return ctl_fail(ctl, CTL_USAGE, "%s", error.message);
	json_put_integer(params, "cost_ms", cost_ms);
	return CTL_OK;
}

static enum ctl_exit run_add(struct ctl *ctl, const struct ctl_args *args)
{
	struct json *params = json_object(), *result;

	json_put_string(params, "name", args->argv[0]);
	enum ctl_exit exit = put_hints(ctl, params, args);
	if (exit != CTL_OK) {
		json_free(params);
		return exit;
	}
	exit = admin_request(ctl, "admin.relay.add", params, &result);
	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, result);
	else if (admin_flag(result, "public"))
		fprintf(ctl->out, "Added.\n");
	else
		fprintf(ctl->out, "Added. It is no public node yet: give its p2pnode.conf a section [public].\n");
	json_free(result);
	return CTL_OK;
}

const struct ctl_command ctl_admin_relay_add = {
	.name = "admin relay add",
	.arguments = "NAME",
	.min_arguments = 1,
	.max_arguments = 1,
	.options = add_options,
	.n_options = ARRAY_LEN(add_options),
	.summary = "Let a public node be a relay",
	.text = "Lets a member whose configuration has a section [public] be a relay and a STUN server of the\n"
		"network. All nodes learn of it at once. For one that is a relay already, the options change\n"
		"what is said of it. A link made with 'p2pctl admin key create --relay' does the same for all\n"
		"that join with it.\n"
		"\n"
		"Examples:\n"
		"    p2pctl admin relay add gate --region eu-west\n"
		"    p2pctl admin relay add backup --cost 50\n",
	.run = run_add,
};

static enum ctl_exit run_remove(struct ctl *ctl, const struct ctl_args *args)
{
	struct json *params = json_object();

	json_put_string(params, "name", args->argv[0]);
	return admin_order(ctl, "admin.relay.remove", params, "Removed. It stays a member.");
}

const struct ctl_command ctl_admin_relay_remove = {
	.name = "admin relay remove",
	.arguments = "NAME",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "Use a public node as a relay no more",
	.text = "All nodes stop using this relay at once, and those whose home it is choose another. The node\n"
		"stays a member. To move its clients away without haste, drain it first, there:\n"
		"'p2pctl relay drain'.\n",
	.run = run_remove,
};

static const char *state_of(const struct json *relay)
{
	if (!admin_flag(relay, "added"))
		return "not added";
	if (!admin_flag(relay, "public"))
		return "not public";
	return admin_flag(relay, "online") ? "online" : "offline";
}

static void print_relays(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("RELAY|STATE|ADDRESSES|>TLS|>UDP|REGION|>COST|>HOME OF|>ID");
	const struct json *relays = json_member(result, "relays");

	for (const struct json *relay = relays ? json_first(relays) : NULL; relay; relay = json_next(relay)) {
		char *addresses = admin_texts(relay, "addresses", " ");
		table_cell(table, "%s", admin_text(relay, "name", "-"));
		table_cell(table, "%s", state_of(relay));
		table_cell(table, "%s", addresses);
		table_cell(table, "%lld", (long long)admin_integer(relay, "tls_port", 0));
		table_cell(table, "%lld", (long long)admin_integer(relay, "stun_port", 0));
		table_cell(table, "%s", admin_text(relay, "region", ""));
		table_cell(table, "%lld ms", (long long)admin_integer(relay, "cost_ms", 0));
		table_cell(table, "%lld", (long long)admin_integer(relay, "home_of", 0));
		table_cell(table, "%lld", (long long)admin_integer(relay, "id", 0));
		free(addresses);
	}
	table_print(table, ctl->out);
}

static enum ctl_exit run_list(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.relay.list", print_relays);
}

const struct ctl_command ctl_admin_relay_list = {
	.name = "admin relay list",
	.arguments = "",
	.summary = "List the public nodes",
	.text = "Lists the public nodes: those that serve a relay and STUN to the others, and of how many\n"
		"nodes each is the home relay. \"not added\": it offers to be a relay, and 'p2pctl admin relay\n"
		"add' has not let it; \"not public\": it was one, and does not offer it any more.\n",
	.run = run_list,
};
