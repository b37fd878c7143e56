/* p2pctl admin key create, list, revoke. */
#include "ctl/admin.h"
#include "ctl/format.h"

#include "common/macros.h"
#include "common/table.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEY_REUSABLE, KEY_EXPIRES, KEY_EPHEMERAL, KEY_TAG, KEY_RELAY };

static const struct cli_option create_options[] = {
	[KEY_REUSABLE] = { 'r', "reusable", NULL, "Good for any number of nodes (else for one)",
			   NULL, NULL },
	[KEY_EXPIRES] = { 'e', "expires", "TIME|never",
			  "Good for so long: 30m, 24h, 7d, or never to expire (default 24h)", NULL,
			  NULL },
	[KEY_EPHEMERAL] = { 0, "ephemeral", "TIME", "Its nodes are removed when away for so long",
			    NULL, NULL },
	[KEY_TAG] = { 't', "tag", "TAGS", "Tags of its nodes, separated by commas", NULL, NULL },
	[KEY_RELAY] = { 0, "relay", NULL, "Its nodes may be relays, if their configuration says public", NULL, NULL },
};

static enum ctl_exit put_duration(struct ctl *ctl, struct json *params, const char *option,
				  const char *text, const char *member)
{
	int64_t seconds;

	if (!text)
		return CTL_OK;
	if (strcmp(text, "never") == 0)
		seconds = 0;
	else if (format_parse_duration(text, &seconds) != 0)
		return ctl_fail(ctl, CTL_USAGE,
				"--%s: must be a number and s, m, h, d or w, such as 24h; or never",
				option);
	json_put_integer(params, member, seconds);
	return CTL_OK;
}

/* "a,b" as an array. Control says which tags it takes. */
static void put_tags(struct json *params, const char *text)
{
	struct json *tags = json_array();
	char *copy = strdup(text), *rest = copy, *tag;

	if (!copy)
		abort();
	while ((tag = strsep(&rest, ",")))
		json_append_string(tags, tag);
	json_put(params, "tags", tags);
	free(copy);
}

static enum ctl_exit run_create(struct ctl *ctl, const struct ctl_args *args)
{
	struct json *params = json_object(), *result;
	enum ctl_exit exit =
		put_duration(ctl, params, "expires", args->values[KEY_EXPIRES], "expires_in_s");

	if (exit == CTL_OK)
		exit = put_duration(ctl, params, "ephemeral", args->values[KEY_EPHEMERAL],
				    "node_ttl_s");
	if (exit != CTL_OK) {
		json_free(params);
		return exit;
	}
	json_put_boolean(params, "reusable", args->flags[KEY_REUSABLE]);
	if (args->flags[KEY_RELAY])
		json_put_boolean(params, "relay", true);
	if (args->values[KEY_TAG])
		put_tags(params, args->values[KEY_TAG]);
	exit = admin_request(ctl, "admin.key.create", params, &result);
	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, result);
	else
		fprintf(ctl->out, "%s\n", admin_text(result, "link", ""));
	json_free(result);
	return CTL_OK;
}

const struct ctl_command ctl_admin_key_create = {
	.name = "admin key create",
	.arguments = "",
	.summary = "Make a join link",
	.text = "Makes a join key and prints the link that has it, for 'p2pctl join'. The link is shown this\n"
		"once: control keeps only a hash of the key.\n"
		"\n"
		"Examples:\n"
		"    p2pctl admin key create --expires 1h\n"
		"    p2pctl admin key create --reusable --tag web,eu\n",
	.options = create_options,
	.n_options = ARRAY_LEN(create_options),
	.run = run_create,
};

static const char *state_of(const struct json *key, int64_t now_s)
{
	int64_t expires_s = admin_integer(key, "expires_s", 0);

	if (admin_flag(key, "revoked"))
		return "revoked";
	if (expires_s != 0 && expires_s <= now_s)
		return "expired";
	if (!admin_flag(key, "reusable") && admin_integer(key, "uses", 0) > 0)
		return "used";
	return "valid";
}

static void print_keys(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new(">ID|KIND|STATE|>USES|EXPIRES|CREATED|RELAY|TAGS");
	const struct json *keys = json_member(result, "keys");
	int64_t now_s = (int64_t)time(NULL);

	for (const struct json *key = keys ? json_first(keys) : NULL; key; key = json_next(key)) {
		int64_t expires_s = admin_integer(key, "expires_s", 0);
		char *tags = admin_texts(key, "tags", ",");
		table_cell(table, "%lld", (long long)admin_integer(key, "id", 0));
		table_cell(table, "%s", admin_flag(key, "reusable") ? "reusable" : "one-off");
		table_cell(table, "%s", state_of(key, now_s));
		table_cell(table, "%lld", (long long)admin_integer(key, "uses", 0));
		table_cell(table, "%s", expires_s ? format_date(expires_s).s : "never");
		table_cell(table, "%s", format_date(admin_integer(key, "created_s", 0)).s);
		table_cell(table, "%s", admin_flag(key, "relay") ? "yes" : "");
		table_cell(table, "%s", tags);
		free(tags);
	}
	table_print(table, ctl->out);
}

static enum ctl_exit run_list(struct ctl *ctl, const struct ctl_args *args)
{
	return admin_list(ctl, "admin.key.list", print_keys);
}

const struct ctl_command ctl_admin_key_list = {
	.name = "admin key list",
	.arguments = "",
	.summary = "List the join keys",
	.text = "Lists the join keys with their use so far. Secrets are not shown: control does not have them.\n",
	.run = run_list,
};

static enum ctl_exit run_revoke(struct ctl *ctl, const struct ctl_args *args)
{
	struct json *params;
	struct error error;
	long id;

	if (cli_number("ID", args->argv[0], 1, INT32_MAX, &id, &error) != 0)
		return ctl_fail(ctl, CTL_USAGE, "%s; 'p2pctl admin key list' has it",
				error.message);
	params = json_object();
	json_put_integer(params, "id", id);
	return admin_order(ctl, "admin.key.revoke", params,
			   "Revoked. Nodes that joined with it stay.");
}

const struct ctl_command ctl_admin_key_revoke = {
	.name = "admin key revoke",
	.arguments = "ID",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "Make a join key useless",
	.text = "Nobody can join with this key any more. Nodes that did join with it stay members.\n"
		"\n"
		"Example:\n"
		"    p2pctl admin key list && p2pctl admin key revoke 3\n",
	.run = run_revoke,
};
