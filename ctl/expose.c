/* p2pctl expose, unexpose, exposures. */
#include "ctl/admin.h"
#include "ctl/client.h"
#include "ctl/ctl.h"

#include "common/macros.h"
#include "common/table.h"
#include "node/exposure.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 5000
#define ASK_MS	   3000 /* that control and the target may take to answer */
#define AGAIN_MS   50
#define OPEN_MS	   1000 /* that a front door may take to open a port */

enum { EXPOSE_PROXY, EXPOSE_ALLOW, EXPOSE_RATE, EXPOSE_RATE_SOURCE, EXPOSE_TLS, EXPOSE_CERTIFICATE, EXPOSE_KEY, EXPOSE_H2,
       EXPOSE_QUIC };

static const struct cli_option expose_options[] = {
	[EXPOSE_PROXY] = { 0, "proxy", "VERSION", "Tell the server who the visitor is: PROXY protocol v1 or v2", NULL, NULL },
	[EXPOSE_ALLOW] = { 0, "allow", "PREFIX,…", "Take visitors from these addresses alone", NULL, NULL },
	[EXPOSE_RATE] = { 0, "rate", "N", "Take so many visitors a second", NULL, NULL },
	[EXPOSE_RATE_SOURCE] = { 0, "rate-source", "N", "Take so many of them from one source", NULL, NULL },
	[EXPOSE_TLS] = { 0, "tls", "HOW", "terminate, acme: HTTPS ends here, and TARGET is spoken to in plain", NULL, NULL },
	[EXPOSE_CERTIFICATE] = { 0, "certificate", "FILE", "Of --tls terminate: the certificate, in PEM", NULL, NULL },
	[EXPOSE_KEY] = { 0, "key", "FILE", "The certificate's key, which nobody else may read", NULL, NULL },
	[EXPOSE_H2] = { 0, "h2", "yes|no", "Of --tls terminate, acme: TARGET speaks HTTP/2 in plain [no]", NULL, NULL },
	[EXPOSE_QUIC] = { 0, "quic", "yes|no", "HTTP/3 goes to the UDP port of TARGET [yes, if HTTPS goes there as it comes]", NULL, NULL },
};

/* ---- reports ---- */

static const struct json *find_exposure(const struct json *result, const char *host)
{
	const struct json *list = json_member(result, "exposures");

	for (const struct json *i = list ? json_first(list) : NULL; i; i = json_next(i))
		if (strcmp(admin_text(i, "host", ""), host) == 0)
			return i;
	return NULL;
}

static void print_left_out(struct ctl *ctl, const struct json *list)
{
	if (json_length(list) > 0)
		fputs("\nLeft out, and kept until they are exposed or unexposed again:\n", ctl->out);
	for (const struct json *i = list ? json_first(list) : NULL; i; i = json_next(i))
		fprintf(ctl->out, "    %s\n        %s\n", admin_text(i, "line", "-"), admin_text(i, "why", "-"));
}

/* "until 2027-01-31", or its state where that says more; "-": TLS does not end here. */
static void put_certificate(struct table *table, const struct json *certificate)
{
	const char *state = certificate ? admin_text(certificate, "state", "-") : "-";

	if (strcmp(state, "valid") == 0)
		table_cell(table, "until %.10s", admin_text(certificate, "valid_until", "-"));
	else
		table_cell(table, "%s", state);
}

static void print_exposures(struct ctl *ctl, const struct json *result)
{
	struct table *table = table_new("HOST|TARGET|STATE|CERTIFICATE|SERVER|VISITORS|FROM");
	const struct json *list = json_member(result, "exposures");
	const char *last = "";

	for (const struct json *i = list ? json_first(list) : NULL; i; i = json_next(i)) {
		table_cell(table, "%s", admin_text(i, "host", "-"));
		table_cell(table, "%s", admin_text(i, "target", "-"));
		table_cell(table, "%s", admin_text(i, "state", "-"));
		put_certificate(table, json_member(i, "certificate"));
		table_cell(table, "%s", admin_text(i, "server", "-"));
		table_cell(table, "%s", admin_text(i, "visitors", "-"));
		table_cell(table, "%s", admin_text(i, "place", "p2pctl"));
	}
	char *text = table_text(table);
	fputs(text, ctl->out);
	free(text);
	table_free(table);
	for (const struct json *i = list ? json_first(list) : NULL; i; i = json_next(i)) {
		const char *why = admin_text(i, "why", "");
		if (why[0] != '\0' && strcmp(why, last) != 0)
			fprintf(ctl->out, "%s%s\n", last[0] ? "" : "\n", why);
		last = why[0] != '\0' ? why : last;
	}
	print_left_out(ctl, json_member(result, "left_out"));
}

static enum ctl_exit call(struct ctl *ctl, const char *method, const char *key, const char *value,
			  struct rpc_message *ret)
{
	struct json *params = json_object();

	if (key)
		json_put_string(params, key, value);
	return client_call(ctl, method, params, TIMEOUT_MS, ret);
}

/* ---- expose ---- */

/* The node is somewhere else: a path is told from the root on. As snprintf(). */
static size_t print_word(size_t option, const char *key, const char *value, char *ret, size_t size)
{
	char here[PATH_MAX] = "";
	const bool is_relative = (option == EXPOSE_CERTIFICATE || option == EXPOSE_KEY) && value[0] != '/' && value[0] != '\0';

	if (is_relative && !getcwd(here, sizeof(here)))
		here[0] = '\0';
	return (size_t)snprintf(ret, size, " %s=%s%s%s", key, here, is_relative ? "/" : "", value);
}

static enum ctl_exit print_words(struct ctl *ctl, const struct ctl_args *args, char ret[EXPOSURE_TEXT])
{
	static const char *const keys[] = { "proxy", "allow", "rate", "rate_source", "tls", "certificate", "key", "h2", "quic" };
	size_t len = (size_t)snprintf(ret, EXPOSURE_TEXT, "%s %s%s%s", args->argv[0], args->argv[1], args->n > 2 ? " " : "",
				      args->n > 2 ? args->argv[2] : "");

	for (size_t i = 0; i < ARRAY_LEN(keys) && len < EXPOSURE_TEXT; i++)
		if (args->values[i])
			len += print_word(i, keys[i], args->values[i], ret + len, EXPOSURE_TEXT - len);
	return len < EXPOSURE_TEXT ? CTL_OK : ctl_fail(ctl, CTL_USAGE, "expose: too long");
}

/* "why": something has to happen first. */
static bool is_under_way(const struct json *one, bool may_open)
{
	const char *state = one ? admin_text(one, "state", "") : "";

	if (strcmp(state, "port not opened") == 0)
		return may_open; /* a front door does so once it hears of it */
	return (strcmp(state, "asking control") == 0 || strcmp(state, "trying the target") == 0) && !json_member(one, "why");
}

/* Until control and the target have answered, or for so long. *answer is replaced. */
static enum ctl_exit await_answers(struct ctl *ctl, const char *host, struct rpc_message *answer)
{
	const struct timespec pause = { .tv_nsec = AGAIN_MS * 1000000L };
	enum ctl_exit exit = CTL_OK;

	for (int i = 0; i < ASK_MS / AGAIN_MS && exit == CTL_OK; i++) {
		if (!is_under_way(find_exposure(answer->result, host), i < OPEN_MS / AGAIN_MS))
			break;
		nanosleep(&pause, NULL);
		rpc_message_deinit(answer);
		exit = call(ctl, "node.exposures", NULL, NULL, answer);
	}
	return exit;
}

/* A port for both: HTTPS is passed on as it comes, and then the server has to speak TLS on the port of its HTTP. */
static void print_for_both(struct ctl *ctl, const struct exposure *exposure, const char *host)
{
	if (exposure->takes[DOOR_HTTP] && exposure->takes[DOOR_HTTPS] && exposure->tls == EXPOSURE_TLS_PASS)
		fprintf(ctl->out, "Visitors of http://%s and https://%s both come to that port, as they are. If its server speaks no TLS,\n"
				  "unexpose https://%s, or expose it with --tls acme.\n", host, host, host);
}

static void print_exposed(struct ctl *ctl, const struct exposure *exposure, const char *host, const struct json *result)
{
	const struct json *one = find_exposure(result, host);
	const char *why = one ? admin_text(one, "why", "") : "", *state = one ? admin_text(one, "state", "") : "";

	if (ctl->json && one)
		ctl_print_json_borrowed(ctl, one);
	else if (one && strcmp(state, "live") == 0)
		fprintf(ctl->out, "%s is live: visitors come to %s.\n", host, admin_text(one, "target", "-"));
	else
		fprintf(ctl->out, "%s is kept, but not live yet: %s%s%s\n", host, state, why[0] ? ": " : "", why);
	if (!ctl->json)
		print_for_both(ctl, exposure, host);
}

static enum ctl_exit run_expose(struct ctl *ctl, const struct ctl_args *args)
{
	char words[EXPOSURE_TEXT], host[EXPOSURE_HOST_TEXT];
	struct exposure exposure;
	struct rpc_message answer;
	struct error error;
	enum ctl_exit exit = print_words(ctl, args, words);

	if (exit != CTL_OK)
		return exit;
	if (exposure_parse(words, &exposure, &error) != 0)
		return ctl_fail(ctl, CTL_USAGE, "expose: %s", error.message);
	exposure_print_host(&exposure, host);
	exit = call(ctl, "node.expose", "exposure", words, &answer);
	if (exit == CTL_OK)
		exit = await_answers(ctl, host, &answer);
	if (exit != CTL_OK)
		return exit;
	print_exposed(ctl, &exposure, host, answer.result);
	rpc_message_deinit(&answer);
	return CTL_OK;
}

const struct ctl_command ctl_expose = {
	.name = "expose",
	.arguments = "HOST|tcp :PORT|udp :PORT TARGET",
	.min_arguments = 2,
	.max_arguments = 3,
	.options = expose_options,
	.n_options = ARRAY_LEN(expose_options),
	.summary = "Publish a server of this machine",
	.text = "Publishes what listens at TARGET, a port of this machine or an address with a port, under a host\n"
		"name: visitors come to the front door of a public node, and are led here, also behind a NAT. HOST\n"
		"is https://NAME, http://NAME, or NAME for both; the name may begin with '*.'. HTTPS stays encrypted\n"
		"to TARGET, which has the certificate; with --tls terminate it ends at this node, and TARGET is\n"
		"spoken to in plain. With --tls acme the node gets the certificate itself, and renews it: [acme] in\n"
		"p2pnode.conf says from whom, and that its terms are agreed to.\n"
		"\n"
		"'tcp :PORT' and 'udp :PORT' are a port of the front door instead: all who come\n"
		"there are led to TARGET, whatever they speak.\n"
		"\n"
		"An admin grants the name or the port to this node, before or after: 'p2pctl admin host add', 'p2pctl\n"
		"admin port add'. It is kept over a restart. Exit code 0 also when it waits for the grant or the server;\n"
		"--json and 'p2pctl exposures' tell.\n"
		"\n"
		"Examples:\n"
		"    p2pctl expose https://app.example.org 8443\n"
		"    p2pctl expose app.example.org 192.168.1.7:80 --proxy v2 --allow 192.0.2.0/24\n"
		"    p2pctl expose app.example.org 8080 --tls terminate --certificate app.pem --key app.key\n"
		"    p2pctl expose https://app.example.org 8080 --tls acme\n"
		"    p2pctl expose tcp :2222 22\n"
		"    p2pctl expose udp :5353 192.168.1.1:53\n",
	.run = run_expose,
};

/* ---- unexpose ---- */

static enum ctl_exit run_unexpose(struct ctl *ctl, const struct ctl_args *args)
{
	struct exposure host;
	struct error error;
	char words[EXPOSURE_TEXT], text[EXPOSURE_HOST_TEXT], done[EXPOSURE_HOST_TEXT + 40];

	snprintf(words, sizeof(words), "%s%s%s", args->argv[0], args->n > 1 ? " " : "", args->n > 1 ? args->argv[1] : "");
	if (exposure_parse_host(words, &host, &error) != 0)
		return ctl_fail(ctl, CTL_USAGE, "unexpose: %s", error.message);
	exposure_print_host(&host, text);
	struct json *params = json_object();
	json_put_string(params, "host", text);
	snprintf(done, sizeof(done), "%s is not exposed any more.", text);
	return client_order(ctl, "node.unexpose", params, TIMEOUT_MS, done);
}

const struct ctl_command ctl_unexpose = {
	.name = "unexpose",
	.arguments = "HOST|tcp :PORT|udp :PORT",
	.min_arguments = 1,
	.max_arguments = 2,
	.summary = "Publish a host or a port no more",
	.text = "Takes back what 'p2pctl expose' did, at once. Of a host that is exposed for HTTPS and HTTP,\n"
		"https://NAME takes back one, and the other stays. What stands in p2pnode.conf is taken out there.\n"
		"\n"
		"    p2pctl unexpose https://app.example.org\n"
		"    p2pctl unexpose tcp :2222\n",
	.run = run_unexpose,
};

/* ---- exposures ---- */

static enum ctl_exit run_exposures(struct ctl *ctl, const struct ctl_args *args)
{
	return client_list(ctl, "node.exposures", TIMEOUT_MS, print_exposures);
}

const struct ctl_command ctl_exposures = {
	.name = "exposures",
	.arguments = "",
	.summary = "List what this node publishes, and whether it is live",
	.text = "Lists the hosts that this node publishes, where their servers are, and the state of each: live; not\n"
		"granted (an admin has to grant the name); port not opened, port taken (by no front door, for want of\n"
		"leave or because it cannot); not open (front doors cannot come to this node); target down (no server\n"
		"answers); no certificate (HTTPS ends here, and there is none yet); no front door (no public node opens\n"
		"one); asking control; trying the target. CERTIFICATE is until when the one is good that visitors are\n"
		"shown, where HTTPS ends here. What is to be done stands below the table, and with --json as \"why\". FROM says\n"
		"where it stands: p2pctl, or the line of p2pnode.conf. What p2pctl has exposed before and is left out\n"
		"now follows with the reason.\n",
	.run = run_exposures,
};
