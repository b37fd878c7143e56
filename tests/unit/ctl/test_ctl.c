/*
 * p2pctl as a whole: command lines in, text and exit codes out. The node behind the socket is the
 * real local API with fake ports, on a loop in a process of its own.
 */
#include "ctl/ctl.h"
#include "node/local_api.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECRET "jk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
#define PIN    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define LINK   "p2p://192.0.2.1:8443/#" PIN "." SECRET
#define ADMIN  "p2p-admin://192.0.2.1:8443/#" PIN ".at_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

/* the node */

struct node {
	struct local_api *api;
	bool joined;
	char name[64];
	int pings, questions;
	int clients; /* of the relay: one fewer with each look while it drains */
	bool drains;
	char exposed[EXPOSURE_HOST_TEXT]; /* "": nothing */
};

static void port_status(void *owner, struct node_status *ret)
{
	struct node *node = owner;

	if (!node->joined)
		return;
	ret->state = NODE_RUNNING;
	strcpy(ret->network, "home");
	snprintf(ret->self.name, sizeof(ret->self.name), "%s", node->name);
	inet_pton(AF_INET, "100.64.0.1", &ret->self.ip4);
	inet_pton(AF_INET6, "fd00::1", &ret->self.ip6);
}

static void port_join(void *owner, local_api_request request, const struct join_link *link, const char *name)
{
	struct node *node = owner;

	if (node->joined) {
		local_api_refuse(node->api, request, RPC_ALREADY, "this node is a member of home; leave it first");
		return;
	}
	assert(strcmp(link->secret, SECRET) == 0);
	node->joined = true;
	snprintf(node->name, sizeof(node->name), "%s", name[0] ? name : "host");
	local_api_done(node->api, request);
}

static void port_leave(void *owner, local_api_request request)
{
	struct node *node = owner;

	if (node->joined)
		local_api_done(node->api, request);
	else
		local_api_refuse(node->api, request, RPC_UNAVAILABLE, "this node has not joined a network");
	node->joined = false;
}

/* carol never answers; others first by relay, then directly. */
static void port_ping(void *owner, local_api_request request, const struct local_api_ping *ping)
{
	struct node *node = owner;
	struct node_ping_result result = { .latency_us = NODE_STATUS_UNKNOWN };

	snprintf(result.peer, sizeof(result.peer), "%s", ping->name);
	if (strcmp(ping->name, "carol") != 0) {
		bool direct = node->pings++ > 0;
		result.answered = true;
		result.ip = endpoint_from_v4(0x64400002, 0);
		result.path = direct ? NODE_PATH_DIRECT : NODE_PATH_RELAY;
		result.endpoint = direct ? endpoint_from_v4(0xc6336409, 51820) : (struct endpoint){ 0 };
		strcpy(result.relay, direct ? "" : "gate");
		result.latency_us = direct ? 900 : 40000;
	}
	local_api_answer_ping(node->api, request, &result);
}

static void port_netcheck(void *owner, local_api_request request)
{
	struct node *node = owner;
	struct node_netcheck netcheck;

	node_netcheck_init(&netcheck);
	port_status(node, &netcheck.status);
	netcheck.control_reachable = true;
	local_api_answer_netcheck(node->api, request, &netcheck);
	node_netcheck_deinit(&netcheck);
}

/* A relay while the node is a member; with each question a second has passed, and alice has sent more. */
static void port_relay_status(void *owner, local_api_request request, bool with_clients)
{
	struct node *node = owner;
	struct relay_status status;

	if (!node->joined) {
		local_api_refuse(node->api, request, RPC_NOT_FOUND, "this node serves no relay: a section is missing");
		return;
	}
	if (with_clients && node->drains && node->clients > 0) { /* there may be thousands, and it is asked often */
		local_api_refuse(node->api, request, RPC_BUSY, "who waits for clients to leave wants no list of them");
		return;
	}
	relay_status_init(&status);
	status.tls_port = 443;
	status.stun_port = 3478;
	status.uptime_ms = 60000 + 1000 * (uint64_t)node->questions++;
	status.draining = node->drains;
	status.drain_left_ms = node->drains ? 5000 : 0;
	if (node->drains && node->clients-- <= 0) {
		local_api_answer_relay_status(node->api, request, &status);
		relay_status_deinit(&status);
		return;
	}
	struct relay_status_client *client = relay_status_add_client(&status);
	strcpy(client->name, "alice");
	strcpy(client->transport, "tls");
	status.tls_clients = 1;
	client->remote = endpoint_from_v4(0xc6336409, 40000);
	client->connected_ms = 5000;
	client->packets_in = 17 * (uint64_t)node->questions;
	local_api_answer_relay_status(node->api, request, &status);
	relay_status_deinit(&status);
}

static void port_relay_drain(void *owner, local_api_request request, uint32_t deadline_s)
{
	struct node *node = owner;

	if (!node->joined) {
		local_api_refuse(node->api, request, RPC_NOT_FOUND, "this node serves no relay: a section is missing");
		return;
	}
	node->drains = true;
	node->clients = 2;
	local_api_done(node->api, request);
}

static void port_relay_undrain(void *owner, local_api_request request)
{
	struct node *node = owner;

	node->drains = false;
	local_api_done(node->api, request);
}

static struct json *left_out_json(void)
{
	struct json *list = json_array(), *one = json_object();

	json_put_string(one, "line", "c.org 1 later=1");
	json_put_string(one, "why", "'later': not known");
	json_append(list, one);
	return list;
}

/* Control takes a moment to answer; it has granted all below example.org. */
static void answer_exposures(struct node *node, local_api_request request)
{
	const bool granted = strstr(node->exposed, "example.org");
	struct json *json = json_object(), *list = json_array(), *one = json_object();

	json_put_string(one, "host", node->exposed);
	json_put_string(one, "target", "127.0.0.1:8443");
	json_put_string(one, "state", node->questions < 2 ? "asking control" : granted ? "live" : "not granted");
	if (node->questions++ >= 2 && !granted)
		json_put_string(one, "why", "not granted; p2pctl admin host add alice");
	if (node->exposed[0])
		json_append(list, one);
	else
		json_free(one);
	json_put(json, "exposures", list);
	if (node->exposed[0] && !granted)
		json_put(json, "left_out", left_out_json());
	local_api_answer(node->api, request, json);
}

static void port_expose(void *owner, local_api_request request, const struct exposure *exposure)
{
	struct node *node = owner;

	node->questions = 0;
	exposure_print_host(exposure, node->exposed);
	answer_exposures(node, request);
}

static void port_unexpose(void *owner, local_api_request request, const struct exposure *host)
{
	struct node *node = owner;

	if (!node->exposed[0]) {
		local_api_refuse(node->api, request, RPC_NOT_FOUND, "it is not exposed here");
		return;
	}
	node->exposed[0] = '\0';
	answer_exposures(node, request);
}

static void port_exposures(void *owner, local_api_request request)
{
	answer_exposures(owner, request);
}

static struct json *diglett_status(void)
{
	static const char text[] =
		"{\"server\":{\"listen\":\"0.0.0.0:20000\",\"public_key\":\"02aa\",\"domain\":\"apps.demo\",\"agents\":[{\"address\":"
		"\"198.51.100.7:999\",\"public_key\":\"03bb\",\"since_s\":0,\"token\":\"2cf24dba\",\"label\":\"shop\",\"streams\":2,"
		"\"bytes_in\":\"2048\",\"bytes_out\":\"17\",\"ports\":[{\"name\":\"a.demo\",\"port\":40001,\"script\":\"told\"},"
		"{\"name\":\"b.demo\",\"port\":40002,\"script\":\"waits\"}]}]},"
		"\"agent\":{\"server\":\"gate\",\"port\":20000,\"state\":\"waits\",\"why\":\"Connection refused\",\"tunnels\":["
		"{\"name\":\"web\",\"target\":\"127.0.0.1:80\"}]}}";
	const struct json_limits limits = { .max_len = sizeof(text) };
	struct json *json;

	assert(json_parse(text, sizeof(text) - 1, &limits, &json, NULL) == 0);
	return json;
}

static void port_diglett(void *owner, local_api_request request, const struct diglett_order *order)
{
	struct node *node = owner;
	struct json *json = json_object();

	if (order->kind == DIGLETT_ORDER_STATUS) {
		json_free(json);
		json = diglett_status();
	} else if (order->kind == DIGLETT_ORDER_TOKEN_CREATE) {
		json_put_string(json, "id", "2cf24dba");
		json_put_string(json, "token", order->token.n_patterns == 2 ? "the-secret" : "another");
	}
	local_api_answer(node->api, request, json);
}

static void run_node(const char *path, int ready)
{
	struct node node = { .joined = false };
	struct local_api_ports ports = { &node,	    port_status,   port_join,	     port_leave,
					 port_ping, port_netcheck, port_relay_status, port_relay_drain,
					 port_relay_undrain, port_expose, port_unexpose, port_exposures,
					 port_diglett };
	uv_loop_t loop;

	log_set_level(LOG_LEVEL_WARNING);
	assert(uv_loop_init(&loop) == 0 && local_api_new(&loop, path, &ports, &node.api, NULL) == 0);
	assert(write(ready, "x", 1) == 1);
	uv_run(&loop, UV_RUN_DEFAULT);
}

/* the world: a folder, a node, and what p2pctl said last */

struct world {
	char folder[32], socket[64];
	pid_t node;
	char *out, *err;
	int exit;
};

static void begin(struct world *w)
{
	int ready[2];
	char byte;

	*w = (struct world){ .folder = "/tmp/p2pctl-test-XXXXXX" };
	assert(mkdtemp(w->folder) && pipe(ready) == 0);
	snprintf(w->socket, sizeof(w->socket), "%s/s", w->folder);
	setenv("P2PNODE_SOCKET", w->socket, 1);
	w->node = fork();
	if (w->node == 0)
		run_node(w->socket, ready[1]);
	close(ready[1]);
	assert(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
}

static void end(struct world *w)
{
	kill(w->node, SIGKILL);
	assert(waitpid(w->node, NULL, 0) == w->node);
	unlink(w->socket);
	assert(rmdir(w->folder) == 0);
	free(w->out);
	free(w->err);
}

/* Runs "p2pctl LINE", words between single spaces. */
static void run_with(struct world *w, const char *line, const char *input)
{
	char copy[512], *argv[16] = { "p2pctl" }, *rest = copy, *word;
	size_t out_len, err_len;
	int argc = 1;

	free(w->out);
	free(w->err);
	snprintf(copy, sizeof(copy), "%s", line);
	while (copy[0] != '\0' && (word = strsep(&rest, " ")))
		argv[argc++] = word;
	FILE *in = fmemopen((void *)(uintptr_t)input, strlen(input) + 1, "r");
	FILE *out = open_memstream(&w->out, &out_len), *err = open_memstream(&w->err, &err_len);
	w->exit = ctl_main(argc, argv, in, out, err);
	fclose(in);
	fclose(out);
	fclose(err);
}

static void run(struct world *w, const char *line)
{
	run_with(w, line, "\n");
}

static void expect(struct world *w, int exit, const char *out, const char *err)
{
	if (w->exit != exit || strcmp(w->out, out) != 0 || strcmp(w->err, err) != 0)
		fprintf(stderr, "expected %d:\n%s%sgot %d:\n%s%s", exit, out, err, w->exit, w->out, w->err);
	assert(w->exit == exit && strcmp(w->out, out) == 0 && strcmp(w->err, err) == 0);
}

static void test_a_node_joins_and_leaves(void)
{
	struct world w;
	begin(&w);

	run(&w, "status");
	assert(w.exit == CTL_NOT_JOINED && strstr(w.out, "has not joined a network"));
	run(&w, "leave");
	expect(&w, CTL_NOT_JOINED, "", "p2pctl: this node has not joined a network\n");
	run(&w, "join " LINK " --name alice");
	expect(&w, CTL_OK, "Joined network home as alice: 100.64.0.1, fd00::1\n", "");
	run(&w, "join " LINK);
	expect(&w, CTL_FAILED, "", "p2pctl: this node is a member of home; leave it first\n");
	run(&w, "status --json");
	assert(w.exit == CTL_OK && strstr(w.out, "\"state\":\"running\""));
	run(&w, "leave");
	expect(&w, CTL_OK, "This node has left its network.\n", "");
	run_with(&w, "join -", "  " LINK "\n");
	expect(&w, CTL_OK, "Joined network home as host: 100.64.0.1, fd00::1\n", "");

	end(&w);
}

static void test_a_bad_link_is_told_without_its_secret(void)
{
	struct world w;
	begin(&w);

	run(&w, "join " LINK "x");
	assert(w.exit == CTL_USAGE && strstr(w.err, "p2pctl: join: ") && !strstr(w.err, "jk_AA"));
	run(&w, "join " ADMIN);
	assert(w.exit == CTL_USAGE && strstr(w.err, "this is an admin link"));
	run_with(&w, "join -", "");
	assert(w.exit == CTL_USAGE);
	run(&w, "join " LINK " --name Alice");
	assert(w.exit == CTL_USAGE && strstr(w.err, "--name: must be one to 63 of a-z"));
	run(&w, "leave " LINK);
	assert(w.exit == CTL_USAGE && strstr(w.err, "too many arguments, from 'p2p://192.0.2.1:8443/…' on"));
	run(&w, LINK);
	assert(w.exit == CTL_USAGE && !strstr(w.err, SECRET));

	end(&w);
}

static void test_the_link_is_wiped_from_the_command_line(void)
{
	struct world w;
	char link[] = LINK, *argv[] = { (char[]){ "p2pctl" }, (char[]){ "join" }, link, NULL };
	char *text = NULL;
	size_t len;
	begin(&w);

	FILE *out = open_memstream(&text, &len);
	assert(ctl_main(3, argv, stdin, out, out) == CTL_OK);
	fclose(out);
	assert(strspn(link, "*") == strlen(LINK));

	free(text);
	end(&w);
}

static void test_a_ping_says_by_which_path_the_answer_came(void)
{
	struct world w;
	begin(&w);

	run(&w, "ping bob -c 2 -i 0");
	expect(&w, CTL_OK, "bob (100.64.0.2): answer by relay gate in 40.0 ms\n"
			   "bob (100.64.0.2): answer by direct 198.51.100.9:51820 in 900 us\n"
			   "2 of 2 answered\n", "");
	run(&w, "ping carol -c1 --timeout=100");
	expect(&w, CTL_FAILED, "carol: no answer within 100 ms\n",
	       "p2pctl: carol does not answer; 'p2pctl status' shows its path, 'p2pctl netcheck' what is wrong here\n");
	run(&w, "ping bob -c1 --json");
	expect(&w, CTL_OK, "{\"answered\":true,\"peer\":\"bob\",\"ip\":\"100.64.0.2\",\"path\":\"direct\","
			   "\"endpoint\":\"198.51.100.9:51820\",\"relay\":null,\"latency_us\":900}\n", "");
	run(&w, "ping Bob!");
	assert(w.exit == CTL_FAILED && strstr(w.err, "must be the name or the overlay address of a peer"));
	run(&w, "ping bob -c 0");
	expect(&w, CTL_USAGE, "", "p2pctl: --count: must be a whole number from 1 to 1000000\n");

	end(&w);
}

static void test_netcheck_and_log_level(void)
{
	struct world w;
	begin(&w);

	run(&w, "netcheck");
	assert(w.exit == CTL_NOT_JOINED && strstr(w.out, "p2pctl join LINK"));
	run(&w, "join " LINK);
	run(&w, "netcheck");
	assert(w.exit == CTL_FAILED && strstr(w.out, "Give the network a public node"));
	run(&w, "log-level debug");
	expect(&w, CTL_OK, "", "");
	run(&w, "log-level loud");
	expect(&w, CTL_USAGE, "", "p2pctl: log-level: must be error, warning, info, debug or trace\n");

	end(&w);
}

static void test_a_relay_tells_of_its_clients(void)
{
	struct world w;
	begin(&w);

	run(&w, "relay status");
	expect(&w, CTL_FAILED, "", "p2pctl: this node serves no relay: a section is missing\n");
	run(&w, "relay status --watch");
	expect(&w, CTL_FAILED, "", "p2pctl: this node serves no relay: a section is missing\n");
	run(&w, "join " LINK);
	run(&w, "relay status");
	assert(w.exit == CTL_OK && strstr(w.out, "relay       TLS on TCP port 443; UDP port 3478, as STUN\n"));
	assert(strstr(w.out, "alice   tls  198.51.100.9:40000        5 s          17 "));
	run(&w, "relay status --json");
	assert(w.exit == CTL_OK && strstr(w.out, "\"packets_in\":\"34\""));

	end(&w);
}

static void test_a_relay_is_drained_until_it_is_empty(void)
{
	struct world w;
	begin(&w);

	run(&w, "relay drain");
	expect(&w, CTL_FAILED, "", "p2pctl: this node serves no relay: a section is missing\n");
	run(&w, "join " LINK);
	run(&w, "relay drain --deadline 5");
	assert(w.exit == CTL_OK && strstr(w.out, "draining: 1 clients left, 5 s until the deadline\n"));
	assert(strstr(w.out, "The relay is empty and takes no clients until it is restarted"));
	run(&w, "relay status");
	assert(w.exit == CTL_OK && strstr(w.out, "state       draining, clients are sent away"));
	run(&w, "relay drain --json");
	expect(&w, CTL_OK, "{\"drained\":true,\"clients\":0}\n", "");
	run(&w, "relay undrain");
	expect(&w, CTL_OK, "The relay takes clients.\n", "");
	run(&w, "relay status");
	assert(w.exit == CTL_OK && !strstr(w.out, "draining"));
	run(&w, "relay drain --undo");
	expect(&w, CTL_OK, "The relay takes clients.\n", "");
	run(&w, "relay drain --deadline 0");
	expect(&w, CTL_USAGE, "", "p2pctl: --deadline: must be a whole number from 1 to 3600\n");

	end(&w);
}

#define OLDER_ERROR "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32602,\"message\":\"no parameters\"}}\n"
#define OLDER_DONE  "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n"

/* A node whose relay.status had no parameters yet, and whose relay is empty as soon as it drains. */
static void run_older_node(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct relay_status status;
	char line[1024], empty[4096];
	const int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	relay_status_init(&status);
	status.draining = true;
	char *text = json_print(relay_status_to_json(&status));
	snprintf(empty, sizeof(empty), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":%s}\n", text);
	strcpy(address.sun_path, path);
	assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0);
	for (;;) {
		FILE *client = fdopen(accept(fd, NULL, NULL), "r+");
		assert(client && fgets(line, sizeof(line), client));
		const char *answer = !strstr(line, "relay.status") ? OLDER_DONE
				     : strstr(line, "params")	   ? OLDER_ERROR
								   : empty;
		assert(write(fileno(client), answer, strlen(answer)) == (ssize_t)strlen(answer));
		fclose(client);
	}
}

static void test_a_relay_of_an_earlier_version_is_drained_as_well(void)
{
	struct world w;
	begin(&w);
	kill(w.node, SIGKILL);
	waitpid(w.node, NULL, 0);
	unlink(w.socket);
	w.node = fork();
	if (w.node == 0)
		run_older_node(w.socket);
	do /* until it listens */
		run(&w, "relay undrain");
	while (w.exit == CTL_NO_NODE);

	run(&w, "relay drain --json");
	expect(&w, CTL_OK, "{\"drained\":true,\"clients\":0}\n", "");

	end(&w);
}

static void test_a_host_is_exposed_once_control_has_answered(void)
{
	struct world w;
	begin(&w);

	run(&w, "expose https://App.example.org 8443 --proxy v2");
	expect(&w, CTL_OK, "https://app.example.org is live: visitors come to 127.0.0.1:8443.\n", "");
	run(&w, "exposures");
	expect(&w, CTL_OK, "HOST                     TARGET          STATE  CERTIFICATE  SERVER  VISITORS  FROM\n"
			   "https://app.example.org  127.0.0.1:8443  live   -            -       -         p2pctl\n", "");
	run(&w, "unexpose https://app.example.org");
	expect(&w, CTL_OK, "https://app.example.org is not exposed any more.\n", "");
	run(&w, "unexpose https://app.example.org");
	expect(&w, CTL_FAILED, "", "p2pctl: it is not exposed here\n");
	run(&w, "expose b.org 80");
	expect(&w, CTL_OK, "b.org is kept, but not live yet: not granted: not granted; p2pctl admin host add alice\n"
			   "Visitors of http://b.org and https://b.org both come to that port, as they are. If its server speaks no TLS,\n"
			   "unexpose https://b.org, or expose it with --tls acme.\n", "");
	run(&w, "exposures --json");
	assert(w.exit == CTL_OK && strstr(w.out, "\"state\":\"not granted\""));
	run(&w, "exposures");
	assert(w.exit == CTL_OK && strstr(w.out, "not granted; p2pctl admin host add alice\n\nLeft out, and kept until they are "
						 "exposed or unexposed again:\n    c.org 1 later=1\n        'later': not known\n"));

	end(&w);
}

static void test_diglett_lists_its_agents_and_its_own_tunnels(void)
{
	struct world w;
	begin(&w);

	run(&w, "diglett");
	expect(&w, CTL_OK,
	       "Server at 0.0.0.0:20000 for apps.demo; public key 02aa\n\n"
	       "NAME     PORT  SCRIPT  AGENT             SINCE  STREAMS       IN   OUT  BY    PUBLIC KEY\n"
	       "a.demo  40001  told    198.51.100.7:999  -            2  2.0 KiB  17 B  shop  03bb\n"
	       "b.demo  40002  waits\n"
	       "\n"
	       "Agent of gate:20000: waits; Connection refused\n\n"
	       "NAME  TARGET\n"
	       "web   127.0.0.1:80\n", "");
	run(&w, "diglett token create a.demo *.b.demo --label shop");
	expect(&w, CTL_OK, "the-secret\n", "");
	run(&w, "diglett end a.demo");
	expect(&w, CTL_OK,
	       "The agent of a.demo is ended. It may come again: to keep it out, revoke its token, or, of one that came as a node,\n"
	       "take back the name: p2pctl admin host remove.\n",
	       "");
	run(&w, "diglett token revoke nothex");
	assert(w.exit == CTL_FAILED && strstr(w.err, "8 hex digits"));
	run(&w, "diglett token");
	assert(w.exit == CTL_USAGE);

	end(&w);
}

static void test_what_is_no_exposure_is_told_before_the_node_is_asked(void)
{
	struct world w;
	begin(&w);

	run(&w, "expose ftp://a.org 80");
	assert(w.exit == CTL_USAGE && strstr(w.err, "p2pctl: expose: a host such as app.example.org"));
	run(&w, "expose a.org 80 --proxy v9");
	expect(&w, CTL_USAGE, "", "p2pctl: expose: proxy: one of none, v1, v2\n");
	run(&w, "expose a.org");
	assert(w.exit == CTL_USAGE && strstr(w.err, "HOST|tcp :PORT|udp :PORT TARGET is missing"));
	run(&w, "expose tcp :0 22");
	assert(w.exit == CTL_USAGE && strstr(w.err, "p2pctl: expose: a port of the front door such as 'tcp :2222'"));
	run(&w, "admin port add alice 2222");
	assert(w.exit == CTL_USAGE && strstr(w.err, "a port of the front door such as tcp:2222"));
	run(&w, "unexpose 192.0.2.1");
	assert(w.exit == CTL_USAGE && strstr(w.err, "p2pctl: unexpose: a host such as"));

	end(&w);
}

static void test_how_often_a_relay_is_watched_is_a_number(void)
{
	struct world w;
	begin(&w);

	run(&w, "relay status 5");
	expect(&w, CTL_USAGE, "", "p2pctl: relay status: SECONDS go with --watch\n");
	run(&w, "relay status --watch 0");
	expect(&w, CTL_USAGE, "", "p2pctl: --watch: must be a whole number from 1 to 3600\n");
	run(&w, "relay");
	assert(w.exit == CTL_USAGE && strstr(w.err, "relay: one of its commands is needed:"));

	end(&w);
}

static void test_a_node_that_is_not_there(void)
{
	struct world w;
	char expected[300];
	begin(&w);

	run(&w, "status --socket /nonexistent/s");
	expect(&w, CTL_NO_NODE, "",
	       "p2pctl: no node answers at /nonexistent/s: No such file or directory; start it (systemctl start "
	       "p2pnode) or name its socket with --socket\n");
	kill(w.node, SIGKILL);
	waitpid(w.node, NULL, 0);
	run(&w, "status");
	snprintf(expected, sizeof(expected),
		 "p2pctl: no node answers at %s: Connection refused; start it (systemctl start p2pnode) or name its "
		 "socket with --socket\n",
		 w.socket);
	expect(&w, CTL_NO_NODE, "", expected);
	unlink(w.socket);
	w.node = fork();
	if (w.node == 0)
		pause();
	end(&w);
}

/* Something else listens there: it says this, and closes. */
static void expect_from_stranger(struct world *w, const char *says, int exit, const char *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(address.sun_path, w->socket);
	unlink(w->socket);
	assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0);
	pid_t child = fork();
	if (child == 0) {
		char c;
		int client = accept(fd, NULL, NULL);
		bool ok = true;
		/* The whole request: an end with bytes unread would reset the connection. */
		do
			ok = read(client, &c, 1) == 1;
		while (ok && c != '\n');
		ok = ok && write(client, says, strlen(says)) >= 0;
		_exit(ok ? 0 : 1);
	}
	run(w, "status");
	assert(waitpid(child, NULL, 0) == child);
	close(fd);
	if (w->exit != exit || !strstr(w->err, err))
		fprintf(stderr, "expected %d: %s\ngot %d: %s", exit, err, w->exit, w->err);
	assert(w->exit == exit && strstr(w->err, err));
}

static void test_answers_that_make_no_sense(void)
{
	struct world w;
	begin(&w);

	expect_from_stranger(&w, "HTTP/1.1 400 Bad Request\r\n\r\n", CTL_FAILED, "is it p2pnode's socket?");
	expect_from_stranger(&w, "", CTL_NO_NODE, "ended the connection without an answer");
	expect_from_stranger(&w, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n", CTL_FAILED, "to something else");
	expect_from_stranger(&w, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[]}\n", CTL_FAILED,
			     "the node's status makes no sense");
	expect_from_stranger(&w,
			     "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32002,\"message\":\"no\"}}\n",
			     CTL_DENIED, "p2pctl: no");

	end(&w);
}

static void test_commands_that_are_not_there(void)
{
	struct world w;
	begin(&w);

	run(&w, "");
	assert(w.exit == CTL_USAGE && strstr(w.err, "Usage: p2pctl COMMAND"));
	run(&w, "--help");
	assert(w.exit == CTL_OK && strstr(w.out, "First steps:"));
	run(&w, "help ping");
	assert(w.exit == CTL_OK && strstr(w.out, "Usage: p2pctl ping NAME|ADDRESS [OPTIONS]"));
	run(&w, "ping --help");
	assert(w.exit == CTL_OK && strstr(w.out, "--timeout MS"));
	run(&w, "--json --version");
	assert(w.exit == CTL_OK);
	run(&w, "stauts");
	expect(&w, CTL_USAGE, "", "p2pctl: no command 'stauts'; did you mean 'status'?\n");
	run(&w, "dance");
	expect(&w, CTL_USAGE, "", "p2pctl: no command 'dance'; 'p2pctl --help' lists them\n");
	run(&w, "ping");
	assert(w.exit == CTL_USAGE && strstr(w.err, "p2pctl: ping: NAME|ADDRESS is missing\nUsage: p2pctl ping"));
	run(&w, "ping bob --cuont 2");
	assert(w.exit == CTL_USAGE && strstr(w.err, "unknown option '--cuont'; did you mean '--count'?"));
	run(&w, "--sockte x status");
	expect(&w, CTL_USAGE, "", "p2pctl: unknown option '--sockte'; did you mean '--socket'?\n");

	end(&w);
}

/* admin */

static void write_file(const struct world *w, const char *text, mode_t mode)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/admin", w->folder);
	FILE *file = fopen(path, "w");
	assert(file && fputs(text, file) >= 0 && fchmod(fileno(file), mode) == 0 && fclose(file) == 0);
	setenv("P2P_ADMIN_FILE", path, 1);
}

/* A TCP port on loopback that nobody listens on. */
static uint16_t closed_port(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert(bind(fd, (struct sockaddr *)&address, len) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	close(fd);
	return ntohs(address.sin_port);
}

static void test_admin_needs_an_admin_link(void)
{
	struct world w;
	begin(&w);

	run(&w, "admin node list --admin-file /nonexistent");
	assert(w.exit == CTL_FAILED && strstr(w.err, "/nonexistent: cannot open: No such file or directory; an "
						     "admin link is needed"));
	write_file(&w, LINK "\n", 0600);
	run(&w, "admin node list");
	assert(w.exit == CTL_FAILED && strstr(w.err, "this is a join link; an admin link begins with p2p-admin://"));
	write_file(&w, "hello\n", 0600);
	run(&w, "admin node list");
	assert(w.exit == CTL_FAILED);

	unlink(getenv("P2P_ADMIN_FILE"));
	end(&w);
}

static void test_admin_says_when_control_is_away(void)
{
	struct world w;
	char link[200];
	begin(&w);

	snprintf(link, sizeof(link), "p2p-admin://127.0.0.1:%u/#" PIN ".at_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\n",
		 closed_port());
	write_file(&w, link, 0644);
	run(&w, "admin status");
	assert(w.exit == CTL_NO_CONTROL && strstr(w.err, "control cannot be reached: "));
	assert(strstr(w.err, "can be read by others than its owner; chmod 600 it") && !strstr(w.err, "at_"));

	unlink(getenv("P2P_ADMIN_FILE"));
	end(&w);
}

static void test_admin_command_lines(void)
{
	struct world w;
	begin(&w);

	run(&w, "admin");
	assert(w.exit == CTL_USAGE && strstr(w.err, "admin: one of its commands is needed:\n  p2pctl admin status"));
	run(&w, "admin key");
	assert(w.exit == CTL_USAGE && strstr(w.err, "p2pctl admin key revoke") && !strstr(w.err, "admin node"));
	run(&w, "admin kye create");
	expect(&w, CTL_USAGE, "", "p2pctl: no command 'admin kye create'; did you mean 'admin key create'?\n");
	run(&w, "admin key create --expires 5");
	expect(&w, CTL_USAGE, "", "p2pctl: --expires: must be a number and s, m, h, d or w, such as 24h; or never\n");
	run(&w, "admin key revoke x");
	expect(&w, CTL_USAGE, "", "p2pctl: ID: must be a whole number from 1 to 2147483647; 'p2pctl admin key list' "
				  "has it\n");
	run(&w, "admin node rename a B");
	assert(w.exit == CTL_USAGE && strstr(w.err, "NEW: must be one to 63 of a-z"));

	end(&w);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	assert(sodium_init() >= 0);
	test_a_node_joins_and_leaves();
	test_a_bad_link_is_told_without_its_secret();
	test_the_link_is_wiped_from_the_command_line();
	test_a_ping_says_by_which_path_the_answer_came();
	test_netcheck_and_log_level();
	test_a_relay_tells_of_its_clients();
	test_a_relay_is_drained_until_it_is_empty();
	test_a_relay_of_an_earlier_version_is_drained_as_well();
	test_a_host_is_exposed_once_control_has_answered();
	test_diglett_lists_its_agents_and_its_own_tunnels();
	test_what_is_no_exposure_is_told_before_the_node_is_asked();
	test_how_often_a_relay_is_watched_is_a_number();
	test_a_node_that_is_not_there();
	test_answers_that_make_no_sense();
	test_commands_that_are_not_there();
	test_admin_needs_an_admin_link();
	test_admin_says_when_control_is_away();
	test_admin_command_lines();
	return 0;
}
