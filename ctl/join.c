#include "ctl/client.h"
#include "ctl/ctl.h"

#include "common/join_link.h"
#include "common/macros.h"
#include "node/status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS        60000
#define STATUS_TIMEOUT_MS 5000

enum { JOIN_NAME };

static const struct cli_option options[] = {
	[JOIN_NAME] = { 'n', "name", "NAME",
			"Name in the network (default: p2pnode.conf, else the host's name)", NULL,
			NULL },
};

/* The link, from the argument (which is wiped) or from standard input. */
static enum ctl_exit read_link(struct ctl *ctl, char *argument, struct join_link *ret)
{
	char text[JOIN_LINK_MAX_LEN + 64];
	struct error error;

	if (strcmp(argument, "-") != 0) {
		snprintf(text, sizeof(text), "%s", argument);
		cli_wipe(argument);
	} else if (!fgets(text, sizeof(text), ctl->in)) {
		return ctl_fail(ctl, CTL_USAGE, "join: no link on standard input");
	}
	int r = join_link_parse(text, ret, &error);
	sodium_memzero(text, sizeof(text));
	if (r != 0)
		return ctl_fail(ctl, CTL_USAGE, "join: %s", error.message);
	if (ret->kind == JOIN_LINK_NODE)
		return CTL_OK;
	join_link_wipe(ret);
	return ctl_fail(
		ctl, CTL_USAGE,
		"join: this is an admin link, which is not for nodes; make a join link with "
		"'p2pctl admin key create'");
}

static enum ctl_exit join(struct ctl *ctl, const struct join_link *link, const char *name)
{
	struct join_link_text text = join_link_text(link);
	struct json *params = json_object();
	struct rpc_message answer;

	json_put_string(params, "link", text.s);
	sodium_memzero(&text, sizeof(text));
	if (name)
		json_put_string(params, "name", name);
	enum ctl_exit exit = client_call(ctl, "node.join", params, TIMEOUT_MS, &answer);
	if (exit == CTL_OK)
		rpc_message_deinit(&answer);
	return exit;
}

static void print_joined(struct ctl *ctl, const struct node_status *status)
{
	char ip4[INET_ADDRSTRLEN] = "", ip6[INET6_ADDRSTRLEN] = "";

	inet_ntop(AF_INET, &status->self.ip4, ip4, sizeof(ip4));
	inet_ntop(AF_INET6, &status->self.ip6, ip6, sizeof(ip6));
	fprintf(ctl->out, "Joined network %s as %s: %s, %s\n", status->network, status->self.name,
		ip4, ip6);
}

static enum ctl_exit say_who_we_are(struct ctl *ctl)
{
	struct rpc_message answer;
	struct node_status status;
	struct error error;
	enum ctl_exit exit = client_call(ctl, "node.status", NULL, STATUS_TIMEOUT_MS, &answer);

	if (exit != CTL_OK)
		return exit;
	if (ctl->json) {
		ctl_print_json_borrowed(ctl, answer.result);
	} else if (node_status_from_json(answer.result, &status, &error) == 0) {
		print_joined(ctl, &status);
		node_status_deinit(&status);
	}
	rpc_message_deinit(&answer);
	return CTL_OK;
}

static enum ctl_exit run(struct ctl *ctl, const struct ctl_args *args)
{
	const char *name = args->values[JOIN_NAME];
	struct join_link link;

	if (name && !map_name_is_valid(name))
		return ctl_fail(
			ctl, CTL_USAGE,
			"--name: must be one to %d of a-z, 0-9 and '-', with no '-' at either end, such as "
			"web-1",
			MAP_NAME_LEN);
	enum ctl_exit exit = read_link(ctl, args->argv[0], &link);
	if (exit != CTL_OK)
		return exit;
	exit = join(ctl, &link, name);
	join_link_wipe(&link);
	return exit == CTL_OK ? say_who_we_are(ctl) : exit;
}

const struct ctl_command ctl_join = {
	.name = "join",
	.arguments = "LINK|-",
	.min_arguments = 1,
	.max_arguments = 1,
	.summary = "Join a network with a link",
	.text = "Makes this node a member of the network that the link belongs to. A link is made by\n"
		"'p2pctl admin key create' (or printed by 'p2pcontrol init') and is a secret: with '-' it is\n"
		"read from standard input, so that it stays out of the shell's history.\n"
		"\n"
		"Examples:\n"
		"    p2pctl join 'p2p://control.example.org:8443/#PIN.KEY'\n"
		"    p2pctl join - --name web-1 <link.txt\n",
	.options = options,
	.n_options = ARRAY_LEN(options),
	.run = run,
};
