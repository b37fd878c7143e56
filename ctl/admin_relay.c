/* p2pctl admin relay list. */
#include "ctl/admin.h"

#include "common/table.h"

#include <stdlib.h>
#include <string.h>

/* "198.51.100.1 2001:db8::1" */
static char *addresses_of(const struct json *relay)
{
	const struct json *addresses = json_member(relay, "addresses");
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	for (const struct json *i = addresses ? json_first(addresses) : NULL; i; i = json_next(i))
		fprintf(out, "%s%s", ftell(out) > 0 ? " " : "", json_text(i) ? json_text(i) : "-");
	fclose(out);
	return text;
}

static void print_relays(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("RELAY|ADDRESSES|>TLS|>STUN|ONLINE|>ID");
	const struct json *relays = json_member(result, "relays");

	for (const struct json *relay = relays ? json_first(relays) : NULL; relay; relay = json_next(relay)) {
		char *addresses = addresses_of(relay);
		table_cell(table, "%s", admin_text(relay, "name", "-"));
		table_cell(table, "%s", addresses);
		table_cell(table, "%lld", (long long)admin_integer(relay, "tls_port", 0));
		table_cell(table, "%lld", (long long)admin_integer(relay, "stun_port", 0));
		table_cell(table, "%s", admin_flag(relay, "online") ? "yes" : "no");
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
	.text = "Lists the public nodes: those that serve a relay and STUN to the others.\n",
	.run = run,
};
