/* p2pctl diglett, diglett end, diglett token create, list, revoke. */
#include "ctl/admin.h"
#include "ctl/client.h"
#include "ctl/ctl.h"
#include "ctl/format.h"

#include "common/macros.h"
#include "common/table.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TIMEOUT_MS 5000

static struct json *one_param(const char *key, const char *value)
{
	struct json *params = json_object();

	json_put_string(params, key, value);
	return params;
}

static const struct json *first_of(const struct json *object, const char *list)
{
	const struct json *array = json_member(object, list);

	return array ? json_first(array) : NULL;
}

/* ---- diglett ---- */

static struct format_text since(const struct json *one)
{
	const int64_t since_s = admin_integer(one, "since_s", 0);

	return format_duration(since_s > 0 ? ((int64_t)time(NULL) - since_s) * 1000 : -1);
}

static struct format_text bytes_of(const struct json *one, const char *member)
{
	return format_bytes(strtoull(admin_text(one, member, "0"), NULL, 10));
}

/* A row for each of its ports; what it is as a whole stands in the first. */
static void put_agent(struct table *table, const struct json *agent)
{
	const char *token = admin_text(agent, "token", "-"), *label = admin_text(agent, "label", "");
	const char *node = admin_text(agent, "node", NULL);
	bool is_first = true;

	for (const struct json *port = first_of(agent, "ports"); port; port = json_next(port), is_first = false) {
		table_cell(table, "%s", admin_text(port, "name", "-"));
		table_cell(table, "%lld", (long long)admin_integer(port, "port", 0));
		table_cell(table, "%s", admin_text(port, "script", "-"));
		table_cell(table, "%s", is_first ? admin_text(agent, "address", "-") : "");
		table_cell(table, "%s", is_first ? since(agent).s : "");
		table_cell(table, is_first ? "%lld" : "%.0lld", is_first ? (long long)admin_integer(agent, "streams", 0) : 0LL);
		table_cell(table, "%s", is_first ? bytes_of(agent, "bytes_in").s : "");
		table_cell(table, "%s", is_first ? bytes_of(agent, "bytes_out").s : "");
		table_cell(table, "%s%s%s", is_first && node ? "node " : "", is_first ? (node ? node : label[0] ? label : token) : "",
			   is_first && admin_integer(agent, "version", 2) == 1 ? " (version 1, unsafe)" : "");
		table_cell(table, "%s", is_first ? admin_text(agent, "public_key", "-") : "");
	}
}

static void print_server(struct ctl *ctl, const struct json *server)
{
	struct table *table = table_new("NAME|>PORT|SCRIPT|AGENT|SINCE|>STREAMS|>IN|>OUT|BY|PUBLIC KEY");
	const char *domain = admin_text(server, "domain", "");

	fprintf(ctl->out, "Server at %s%s%s; public key %s\n", admin_text(server, "listen", "-"), domain[0] ? " for " : "",
		domain, admin_text(server, "public_key", "-"));
	for (const struct json *agent = first_of(server, "agents"); agent; agent = json_next(agent))
		put_agent(table, agent);
	if (table_rows(table) == 0)
		fputs("No agent is let in now.\n", ctl->out);
	else
		fputc('\n', ctl->out);
	if (table_rows(table) > 0)
		table_print(table, ctl->out);
	else
		table_free(table);
}

static void print_agent(struct ctl *ctl, const struct json *agent)
{
	struct table *table = table_new("NAME|TARGET");
	const char *state = admin_text(agent, "state", "-"), *why = admin_text(agent, "why", "");

	fprintf(ctl->out, "Agent of %s:%lld: %s", admin_text(agent, "server", "-"), (long long)admin_integer(agent, "port", 0),
		state);
	if (strcmp(state, "let in") == 0)
		fprintf(ctl->out, " since %s; %lld streams, %s in, %s out", since(agent).s,
			(long long)admin_integer(agent, "streams", 0), bytes_of(agent, "bytes_in").s,
			bytes_of(agent, "bytes_out").s);
	if (why[0] != '\0')
		fprintf(ctl->out, "; %s", why);
	fputs("\n\n", ctl->out);
	for (const struct json *tunnel = first_of(agent, "tunnels"); tunnel; tunnel = json_next(tunnel)) {
		table_cell(table, "%s", admin_text(tunnel, "name", "-"));
		table_cell(table, "%s", admin_text(tunnel, "target", "-"));
	}
	table_print(table, ctl->out);
}

static void print_diglett(struct ctl *ctl, const struct json *result)
{
	const struct json *server = json_member(result, "server"), *agent = json_member(result, "agent");

	if (server)
		print_server(ctl, server);
	if (server && agent)
		fputc('\n', ctl->out);
	if (agent)
		print_agent(ctl, agent);
}

static enum ctl_exit run_diglett(struct ctl *ctl, const struct ctl_args *args)
{
	return client_list(ctl, "diglett.status", TIMEOUT_MS, print_diglett);
}

const struct ctl_command ctl_diglett = {
	.name = "diglett",
	.arguments = "",
	.summary = "List the agents and tunnels of diglett",
	.text = "On a diglett server, lists the agents that are let in: their names and the ports on the loopback that\n"
		"lead to them, whether the gateway's script was told (told, waits, failed, none), from where and since\n"
		"when they are here, what they carry, by which token or as which node they came, and their public keys.\n"
		"On an agent, whether its server lets it in, and what its names lead to.\n",
	.run = run_diglett,
};

/* ---- diglett end ---- */

static enum ctl_exit run_end(struct ctl *ctl, const struct ctl_args *args)
{
	char done[512];

	snprintf(done, sizeof(done),
		 "The agent of %.300s is ended. It may come again: to keep it out, revoke its token, or, of one that came as a node,\n"
		 "take back the name: p2pctl admin host remove.",
		 args->argv[0]);
	return client_order(ctl, "diglett.end", one_param("name", args->argv[0]), TIMEOUT_MS, done);
}

const struct ctl_command ctl_diglett_end = {
	.name = "diglett end",
	.arguments = "NAME",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "End the agent that has a name",
	.text = "On a diglett server, ends the agent that has this name, with all its names and visitors. It comes again\n"
		"after a while; 'p2pctl diglett token revoke' ends it for good, or, when it came as a node, 'p2pctl admin\n"
		"host remove NODE NAME' does.\n",
	.run = run_end,
};

/* ---- diglett token ---- */

enum { TOKEN_LABEL };

static const struct cli_option create_options[] = {
	[TOKEN_LABEL] = { 'l', "label", "TEXT", "What it is for, to be found in the list", NULL, NULL },
};

static enum ctl_exit run_token_create(struct ctl *ctl, const struct ctl_args *args)
{
	struct json *params = json_object(), *names = json_array();
	struct rpc_message answer;

	for (int i = 0; i < args->n; i++)
		json_append_string(names, args->argv[i]);
	json_put(params, "names", names);
	if (args->values[TOKEN_LABEL])
		json_put_string(params, "label", args->values[TOKEN_LABEL]);
	enum ctl_exit exit = client_call(ctl, "diglett.token_create", params, TIMEOUT_MS, &answer);
	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, answer.result);
	else
		fprintf(ctl->out, "%s\n", admin_text(answer.result, "token", ""));
	rpc_message_deinit(&answer);
	return CTL_OK;
}

const struct ctl_command ctl_diglett_token_create = {
	.name = "diglett token create",
	.arguments = "NAMES",
	.min_arguments = 1,
	.max_arguments = 8,
	.options = create_options,
	.n_options = ARRAY_LEN(create_options),
	.summary = "Make a token for an agent's names",
	.text = "Makes a token with which an agent may have these names, and prints it, this once: the server keeps only\n"
		"a hash of it. A name may begin with '*.', for one label; one without a dot is below the server's domain.\n"
		"It is for the file token_file of [diglett-agent], and valid at once.\n"
		"\n"
		"Example:\n"
		"    p2pctl diglett token create app.example.org --label shop > token\n",
	.run = run_token_create,
};

static void print_tokens(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("ID|LABEL|FROM|NAMES");

	for (const struct json *token = first_of(result, "tokens"); token; token = json_next(token)) {
		char *names = admin_texts(token, "names", " ");
		table_cell(table, "%s", admin_text(token, "id", "-"));
		table_cell(table, "%s", admin_text(token, "label", ""));
		table_cell(table, "%s", admin_text(token, "place", "-"));
		table_cell(table, "%s", names);
		free(names);
	}
	table_print(table, ctl->out);
}

static enum ctl_exit run_token_list(struct ctl *ctl, const struct ctl_args *args)
{
	return client_list(ctl, "diglett.token_list", TIMEOUT_MS, print_tokens);
}

const struct ctl_command ctl_diglett_token_list = {
	.name = "diglett token list",
	.arguments = "",
	.summary = "List the tokens of a diglett server",
	.text = "Lists the tokens with the names that each is for, those of p2pctl and those of the file 'tokens' in\n"
		"p2pnode.conf. The tokens themselves are not shown: the server does not have them.\n",
	.run = run_token_list,
};

static enum ctl_exit run_token_revoke(struct ctl *ctl, const struct ctl_args *args)
{
	return client_order(ctl, "diglett.token_revoke", one_param("id", args->argv[0]), TIMEOUT_MS,
			    "Revoked. Agents that came by it are ended.");
}

const struct ctl_command ctl_diglett_token_revoke = {
	.name = "diglett token revoke",
	.arguments = "ID",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "Make a token useless",
	.text = "Nobody is let in by this token any more, and who was is ended at once. One that stands in the file\n"
		"'tokens' is revoked by taking its line away.\n"
		"\n"
		"Example:\n"
		"    p2pctl diglett token list && p2pctl diglett token revoke 2cf24dba\n",
	.run = run_token_revoke,
};
