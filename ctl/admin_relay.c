/* p2pctl admin relay list. */
#include "ctl/admin.h"

#include "common/table.h"

#include <stdlib.h>
#include <string.h>

static void print_relays(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("RELAY|ADDRESSES|>TLS|>STUN|ONLINE|>HOME OF|>ID");
	const struct json *relays = json_member(result, "relays");

	for (const struct json *relay = relays ? json_first(relays) : NULL; relay;
	     relay = json_next(relay)) {
		char *addresses = admin_texts(relay, "addresses", " ");
		table_cell(table, "%s", admin_text(relay, "name", "-"));
		table_cell(table, "%s", addresses);
		table_cell(table, "%lld", (long long)admin_integer(relay, "tls_port", 0));
		table_cell(table, "%lld", (long long)admin_integer(relay, "stun_port", 0));
		table_cell(table, "%s", admin_flag(relay, "online") ? "yes" : "no");
		table_cell(table, "%lld", (long long)admin_integer(relay, "home_of", 0));
		table_cell(table, "%lld", (long long)admin_integer(relay, "id", 0));
		free(addresses);
	}
	char *text = table_text(table);
	fputs(text, ctl->out);
	free(text);
	table_free(table);
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.relay.list", print_relays);
}

const struct ctl_command ctl_admin_relay_list = {
	.name = "admin relay list",
	.arguments = "",
	.summary = "List the public nodes",
	.text = "Lists the public nodes: those that serve a relay and STUN to the others,\n"
		"and of how many nodes each is the home relay.\n",
	.run = run,
};
