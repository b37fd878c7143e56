/*
 * p2pctl admin: what is sent to control, and what is printed of its answers. Control is a WebSocket
 * server with canned answers, on a loop in a process of its own.
 */
#include "common/certificate.h"
#include "common/log.h"
#include "common/rpc.h"
#include "common/websocket.h"
#include "ctl/ctl.h"

#include <assert.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define TOKEN "at_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

/* control: "admin.x {params}" -> result; what is not listed is refused */

static const struct {
	const char *asked, *answer;
} canned[] = {
	{ "admin.status null",
	  "{\"version\":\"0.1.0\",\"network\":\"home\",\"host\":\"control.example.org\",\"port\":8443,"
	  "\"prefix4\":\"10.77.0.0/16\",\"prefix6\":\"fd00::/64\",\"nodes\":3,\"online\":2,\"joins\":\"4\","
	  "\"refused_joins\":\"1\",\"bad_messages\":\"0\",\"broken_handshakes\":\"2\",\"refused_connections\":\"0\"}" },
	{ "admin.key.create {\"reusable\":false}", "{\"id\":1,\"link\":\"p2p://one\"}" },
	{ "admin.key.create {\"expires_in_s\":0,\"node_ttl_s\":3600,\"reusable\":true,\"relay\":true,\"tags\":[\"web\",\"eu\"]}",
	  "{\"id\":2,\"link\":\"p2p://two\"}" },
	{ "admin.key.list null",
	  "{\"keys\":["
	  "{\"id\":1,\"reusable\":false,\"revoked\":false,\"created_s\":1800000000,\"expires_s\":0,\"uses\":1,"
	  "\"tags\":[]},"
	  "{\"id\":2,\"reusable\":true,\"revoked\":false,\"created_s\":1800000000,\"expires_s\":0,\"uses\":7,"
	  "\"relay\":true,\"tags\":[\"web\",\"eu\"]},"
	  "{\"id\":3,\"reusable\":true,\"revoked\":true,\"created_s\":1800000000,\"expires_s\":1,\"uses\":0,"
	  "\"tags\":[]},"
	  "{\"id\":10,\"reusable\":true,\"revoked\":false,\"created_s\":1800000000,\"expires_s\":1,\"uses\":0}]}" },
	{ "admin.key.revoke {\"id\":3}", "{}" },
	{ "admin.node.list null",
	  "{\"nodes\":[{\"id\":1,\"name\":\"gate\",\"address4\":\"10.77.0.2\",\"address6\":\"fd00::2\","
	  "\"node_key\":\"AAAACQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"online\":true,\"relay\":true,"
	  "\"tags\":[\"eu\"]},{\"id\":2,\"name\":\"bob\",\"address4\":\"10.77.0.3\",\"address6\":\"fd00::3\","
	  "\"node_key\":\"BBBBCQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"online\":false,\"last_seen_s\":0}]}" },
	{ "admin.node.remove {\"name\":\"bob\"}", "null" },
	{ "admin.node.rename {\"name\":\"bob\",\"new_name\":\"robert\"}", "{}" },
	{ "admin.relay.list null",
	  "{\"relays\":[{\"id\":1,\"name\":\"gate\",\"addresses\":[\"198.51.100.1\",\"2001:db8::1\"],"
	  "\"tls_port\":443,\"stun_port\":3478,\"region\":\"eu-west\",\"cost_ms\":50,\"online\":true,\"home_of\":2,"
	  "\"added\":true,\"public\":true},"
	  "{\"id\":2,\"name\":\"bob\",\"addresses\":[\"192.0.2.1\"],\"tls_port\":443,\"stun_port\":3478,"
	  "\"online\":true,\"home_of\":0,\"added\":false,\"public\":true},"
	  "{\"id\":3,\"name\":\"next\",\"addresses\":[],\"online\":true,\"home_of\":0,\"added\":true,\"public\":false},"
	  "{\"id\":4,\"name\":\"away\",\"addresses\":[],\"online\":false,\"home_of\":0,\"added\":true,\"public\":true}]}" },
	{ "admin.relay.add {\"name\":\"gate\"}", "{\"public\":true}" },
	{ "admin.relay.add {\"name\":\"next\",\"region\":\"eu-west\",\"cost_ms\":50}", "{\"public\":false}" },
	{ "admin.relay.remove {\"name\":\"gate\"}", "{}" },
};

static char *answer_to(const struct rpc_message *request)
{
	struct json_limits limits = { .max_len = 65536 };
	char *params = request->params ? json_print(request->params) : strdup("null"), asked[512];
	struct json *result = NULL;

	snprintf(asked, sizeof(asked), "%s %s", request->method, params);
	free(params);
	if (strcmp(asked, "admin.login {\"token\":\"" TOKEN "\"}") == 0)
		return rpc_print_result(&request->id, json_object());
	if (strcmp(request->method, "admin.login") == 0)
		return rpc_print_error(&request->id, RPC_TOKEN_UNKNOWN, NULL);
	for (size_t i = 0; i < ARRAY_LEN(canned); i++) {
		if (strcmp(asked, canned[i].asked) != 0)
			continue;
		assert(json_parse(canned[i].answer, strlen(canned[i].answer), &limits, &result, NULL) == 0);
		return rpc_print_result(&request->id, result);
	}
	return rpc_print_error(&request->id, RPC_NOT_FOUND, asked);
}

static void on_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	struct json_limits limits = { .max_len = 65536 };
	struct rpc_message request;
	enum rpc_code code;

	assert(rpc_parse(text, len, &limits, &request, &code, NULL) == 0);
	char *answer = answer_to(&request);
	assert(websocket_send(ws, answer, strlen(answer)) == 0);
	free(answer);
	rpc_message_deinit(&request);
}

static void on_opened(void *owner, struct websocket *ws)
{
}

static void on_closed(void *owner, struct websocket *ws, const char *why)
{
}

struct identity_files {
	char *ca, *key, *certificate;
	struct pin pin;
};

static void make_identity(struct identity_files *files)
{
	struct certificate_authority ca;
	char *ca_key;
	int64_t now_s = (int64_t)time(NULL);

	assert(certificate_authority_generate("home", now_s, &ca_key, &files->ca, NULL) == 0);
	assert(certificate_authority_init(&ca, ca_key, files->ca, NULL) == 0);
	assert(identity_key_generate(&files->key, NULL) == 0);
	assert(certificate_issue_control(&ca, files->key, "127.0.0.1", now_s, 3600, &files->certificate, NULL) == 0);
	assert(identity_key_pin(files->key, &files->pin, NULL) == 0);
	certificate_authority_deinit(&ca);
	certificate_free_secret(ca_key);
}

static void run_control(const struct identity_files *files, int ready)
{
	const struct websocket_server_options options = {
		.listen = endpoint_from_v4(0x7f000001, 0),
		.tls = { .is_server = true, .trust = TLS_TRUST_OPTIONAL, .ca_pem = files->ca,
			 .certificate_pem = files->certificate, .key_pem = files->key },
		.max_message = 65536,
		.max_queue = 65536,
		.handler = { NULL, on_opened, on_message, on_closed },
	};
	struct websocket_server *server;
	struct websocket_host *host;
	struct error error = { 0 };
	uv_loop_t loop;

	assert(uv_loop_init(&loop) == 0 && websocket_host_new(&loop, &host, &error) == 0);
	if (websocket_server_new(host, &options, &server, &error) != 0)
		fprintf(stderr, "%s\n", error.message);
	uint16_t port = websocket_server_port(server);
	assert(write(ready, &port, sizeof(port)) == sizeof(port));
	uv_run(&loop, UV_RUN_DEFAULT);
}

/* the world: control, and what p2pctl said last */

struct world {
	pid_t control;
	char file[40];
	char *out, *err;
	int exit;
};

static void write_link(const struct world *w, uint16_t port, const struct pin *pin, const char *token)
{
	FILE *file = fopen(w->file, "w");

	assert(file);
	fprintf(file, "p2p-admin://127.0.0.1:%u/#%s.%s\n", port, pin_text(pin).s, token);
	fclose(file);
}

static uint16_t begin(struct world *w, struct identity_files *files)
{
	uint16_t port;
	int ready[2];

	*w = (struct world){ .file = "/tmp/p2pctl-admin-XXXXXX" };
	int fd = mkstemp(w->file);
	assert(fd >= 0 && close(fd) == 0 && pipe(ready) == 0);
	setenv("P2P_ADMIN_FILE", w->file, 1);
	make_identity(files);
	w->control = fork();
	if (w->control == 0)
		run_control(files, ready[1]);
	assert(read(ready[0], &port, sizeof(port)) == sizeof(port));
	close(ready[0]);
	close(ready[1]);
	write_link(w, port, &files->pin, TOKEN);
	return port;
}

static void end(struct world *w, struct identity_files *files)
{
	kill(w->control, SIGKILL);
	assert(waitpid(w->control, NULL, 0) == w->control);
	unlink(w->file);
	free(w->out);
	free(w->err);
	free(files->ca);
	free(files->certificate);
	certificate_free_secret(files->key);
}

static void run(struct world *w, const char *line)
{
	char copy[256], *argv[16] = { "p2pctl" }, *rest = copy, *word;
	size_t out_len, err_len;
	int argc = 1;

	free(w->out);
	free(w->err);
	snprintf(copy, sizeof(copy), "%s", line);
	while ((word = strsep(&rest, " ")))
		argv[argc++] = word;
	FILE *out = open_memstream(&w->out, &out_len), *err = open_memstream(&w->err, &err_len);
	w->exit = ctl_main(argc, argv, stdin, out, err);
	fclose(out);
	fclose(err);
}

static void expect(struct world *w, const char *line, int exit, const char *out, const char *err)
{
	run(w, line);
	if (w->exit != exit || strcmp(w->out, out) != 0 || strcmp(w->err, err) != 0)
		fprintf(stderr, "%s\nexpected %d:\n%s%sgot %d:\n%s%s", line, exit, out, err, w->exit, w->out, w->err);
	assert(w->exit == exit && strcmp(w->out, out) == 0 && strcmp(w->err, err) == 0);
}

static void test_answers_of_control_as_people_read_them(void)
{
	struct identity_files files;
	struct world w;
	begin(&w, &files);

	expect(&w, "admin status", CTL_OK,
	       "network     home, 10.77.0.0/16, fd00::/64\n"
	       "control     control.example.org port 8443, p2pcontrol 0.1.0\n"
	       "nodes       3, 2 of them online\n"
	       "joins       4 since control started, 1 refused\n"
	       "garbage     0 messages, 2 handshakes, 0 connections refused\n", "");
	expect(&w, "admin key create", CTL_OK, "p2p://one\n", "");
	expect(&w, "admin key create --reusable --expires never --ephemeral 1h --tag web,eu --relay", CTL_OK,
	       "p2p://two\n", "");
	expect(&w, "admin key list", CTL_OK,
	       "ID  KIND      STATE    USES  EXPIRES               CREATED               RELAY  TAGS\n"
	       " 1  one-off   used        1  never                 2027-01-15 08:00 UTC\n"
	       " 2  reusable  valid       7  never                 2027-01-15 08:00 UTC  yes    web,eu\n"
	       " 3  reusable  revoked     0  1970-01-01 00:00 UTC  2027-01-15 08:00 UTC\n"
	       "10  reusable  expired     0  1970-01-01 00:00 UTC  2027-01-15 08:00 UTC\n", "");
	expect(&w, "admin key revoke 3", CTL_OK, "Revoked. Nodes that joined with it stay.\n", "");
	expect(&w, "admin node list", CTL_OK,
	       "NODE  ADDRESS    IPV6     SEEN      ID  RELAY  TAGS  KEY\n"
	       "gate  10.77.0.2  fd00::2  online     1  yes    eu    AAAACQAA\n"
	       "bob   10.77.0.3  fd00::3  long ago   2               BBBBCQAA\n", "");
	expect(&w, "admin node remove bob", CTL_OK, "Removed.\n", "");
	expect(&w, "admin node rename bob robert", CTL_OK, "Renamed.\n", "");
	expect(&w, "admin relay list", CTL_OK,
	       "RELAY  STATE       ADDRESSES                 TLS   UDP  REGION    COST  HOME OF  ID\n"
	       "gate   online      198.51.100.1 2001:db8::1  443  3478  eu-west  50 ms        2   1\n"
	       "bob    not added   192.0.2.1                 443  3478            0 ms        0   2\n"
	       "next   not public                              0     0            0 ms        0   3\n"
	       "away   offline                                 0     0            0 ms        0   4\n", "");
	expect(&w, "admin relay add gate", CTL_OK, "Added.\n", "");
	expect(&w, "admin relay add next --region eu-west --cost 50", CTL_OK,
	       "Added. It is no public node yet: give its p2pnode.conf a section [public].\n", "");
	expect(&w, "admin relay remove gate", CTL_OK, "Removed. It stays a member.\n", "");

	end(&w, &files);
}

static void test_answers_of_control_for_programs(void)
{
	struct identity_files files;
	struct world w;
	begin(&w, &files);

	expect(&w, "admin key create --json", CTL_OK, "{\"id\":1,\"link\":\"p2p://one\"}\n", "");
	expect(&w, "admin node rename bob robert -j", CTL_OK, "{}\n", "");

	end(&w, &files);
}

static void test_what_control_refuses(void)
{
	struct identity_files files;
	struct world w;
	uint16_t port = begin(&w, &files);

	run(&w, "admin node remove carol");
	assert(w.exit == CTL_FAILED && strstr(w.err, "p2pctl: admin.node.remove {\"name\":\"carol\"}"));
	write_link(&w, port, &files.pin, "at_BBECAwQFBgcICQoLDA0ODxAREhMUFRYX");
	expect(&w, "admin status", CTL_DENIED, "",
	       "p2pctl: the admin token is not known; use the network's current admin file\n");
	files.pin.bytes[0] ^= 1;
	write_link(&w, port, &files.pin, TOKEN);
	run(&w, "admin status");
	assert(w.exit == CTL_NO_CONTROL && strstr(w.err, "control cannot be reached: "));

	end(&w, &files);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	assert(sodium_init() >= 0);
	test_answers_of_control_as_people_read_them();
	test_answers_of_control_for_programs();
	test_what_control_refuses();
	return 0;
}
