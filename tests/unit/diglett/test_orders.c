/* What p2pctl asks of a diglett server: who is there, an agent's end, tokens that come and go while it runs. */
#include "diglett_world.h"

#include "common/file.h"
#include "common/rpc.h"
#include "relay/diglett/diglett_orders.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
	bool has_come;
	int code;
	struct json *result;
	char message[512];
} answer;

static char own_tokens[96], own_token[96];

static void on_answered(void *owner, int code, struct json *result_take, const char *message)
{
	assert(!answer.has_come && owner == &answer);
	answer.has_come = true;
	answer.code = code;
	answer.result = result_take;
	snprintf(answer.message, sizeof(answer.message), "%s", message ? message : "");
}

/* Its text; borrowed until the next. */
static const char *ask(const struct diglett_order *order)
{
	static char *text;

	answer.has_come = false;
	diglett_orders_run(world.server, NULL, order, on_answered, &answer);
	if (!answer.has_come)
		AWAIT(answer.has_come);
	free(text);
	text = answer.result ? json_print(answer.result) : strdup("");
	json_free(answer.result);
	answer.result = NULL;
	return text;
}

static const char *ask_kind(enum diglett_order_kind kind)
{
	const struct diglett_order order = { .kind = kind };

	return ask(&order);
}

/* The member of an answer that is a text. */
static void text_of(const char *json, const char *member, char *ret, size_t size)
{
	char key[32];

	snprintf(key, sizeof(key), "\"%s\":\"", member);
	const char *at = strstr(json, key);
	assert(at);
	at += strlen(key);
	snprintf(ret, size, "%.*s", (int)strcspn(at, "\""), at);
}

static struct diglett_order create_order(const char *pattern, const char *label)
{
	struct diglett_order order = { .kind = DIGLETT_ORDER_TOKEN_CREATE };

	order.token.n_patterns = 1;
	assert(host_pattern_from(pattern, strlen(pattern), &order.token.patterns[0]) == 0);
	snprintf(order.token.label, sizeof(order.token.label), "%s", label);
	return order;
}

static void begin(void)
{
	new_world(NULL);
	snprintf(own_tokens, sizeof(own_tokens), "%.80s/own", world.folder);
	snprintf(own_token, sizeof(own_token), "%.80s/own_token", world.folder);
	world.options.own_tokens_file = own_tokens;
	start_server();
}

static void end(void)
{
	(void)unlink(own_tokens);
	(void)unlink(own_token);
	end_world();
}

static void test_a_token_made_while_it_runs_lets_in_and_its_end_ends_its_agents(void)
{
	struct diglett_order revoke = { .kind = DIGLETT_ORDER_TOKEN_REVOKE };
	char token[64], *text;
	size_t len;

	begin();
	struct diglett_order order = create_order("mine", "for me");
	const char *made = ask(&order);
	assert(answer.code == 0);
	text_of(made, "token", token, sizeof(token));
	text_of(made, "id", revoke.id, sizeof(revoke.id));
	assert(strlen(token) == TOKEN_SECRET_LEN);
	assert(file_read_secret(own_tokens, 4096, &text, &len, NULL) == 0); /* others could not read it */
	assert(!strstr(text, token) && strstr(text, revoke.id) && strstr(text, "mine.demo # for me"));
	free(text);
	const char *list = ask_kind(DIGLETT_ORDER_TOKEN_LIST);
	assert(strstr(list, "\"label\":\"for me\",\"place\":\"p2pctl\",\"names\":[\"mine.demo\"]") && !strstr(list, token));
	write_file(own_token, token, 0600);
	struct diglett_agent *other = start_agent("other", world.token, 1);
	struct diglett_agent *agent = start_agent("mine", own_token, 1);
	AWAIT(counters().agents_now == 2);
	ask(&revoke);
	assert(answer.code == 0 && counters().agents_now == 1 && counters().revoked == 1);
	AWAIT(counters().refused[DIGLETT_REFUSED_TOKEN] == 1);
	ask(&revoke);
	assert(answer.code == RPC_NOT_FOUND);
	stop_agent(agent);
	stop_agent(other);
	end();
}

static void test_tokens_stay_over_a_restart(void)
{
	begin();
	struct diglett_order order = create_order("*.apps.demo", "");
	ask(&order);
	diglett_server_stop(world.server, NULL, NULL);
	start_server();
	assert(strstr(ask_kind(DIGLETT_ORDER_TOKEN_LIST), "[\"*.apps.demo\"]"));
	end();
}

static void test_a_token_that_cannot_be_kept_is_not_valid(void)
{
	begin();
	world.options.own_tokens_file = "/proc/none";
	diglett_server_stop(world.server, NULL, NULL);
	start_server();
	struct diglett_order order = create_order("mine", "");
	ask(&order);
	assert(answer.code == RPC_INTERNAL_ERROR && strstr(answer.message, "/proc/none"));
	assert(diglett_server_tokens(world.server)->own.n == 0);
	end();
}

static void test_a_token_of_the_file_is_revoked_there(void)
{
	struct diglett_order revoke = { .kind = DIGLETT_ORDER_TOKEN_REVOKE };

	begin();
	const struct token_list *listed = &diglett_server_tokens(world.server)->listed;
	memcpy(revoke.id, token_id(listed->entries[0].hash).s, sizeof(revoke.id));
	ask(&revoke);
	assert(answer.code == RPC_ALREADY && strstr(answer.message, world.tokens));
	end();
}

/* The line that a list has for it, copied by hand into the file. */
static void test_a_token_that_stands_in_the_file_too_is_revoked_there_first(void)
{
	struct diglett_order revoke = { .kind = DIGLETT_ORDER_TOKEN_REVOKE };
	char *text;
	size_t len;

	begin();
	const struct diglett_order order = create_order("mine", "");
	text_of(ask(&order), "id", revoke.id, sizeof(revoke.id));
	diglett_server_stop(world.server, NULL, NULL);
	assert(file_read_secret(own_tokens, 4096, &text, &len, NULL) == 0);
	write_file(world.tokens, text, 0600);
	free(text);
	start_server();
	ask(&revoke);
	assert(answer.code == RPC_ALREADY && strstr(answer.message, world.tokens));
	assert(diglett_server_tokens(world.server)->own.n == 1);
	write_file(world.tokens, "# none\n", 0600);
	AWAIT(diglett_server_tokens(world.server)->listed.n == 0);
	ask(&revoke);
	assert(answer.code == 0 && diglett_server_tokens(world.server)->own.n == 0);
	end();
}

static void expect_too_long(const char *pattern)
{
	const struct diglett_order order = create_order(pattern, "");

	ask(&order);
	assert(answer.code == RPC_INVALID_PARAMS && strstr(answer.message, "more than 253 characters"));
}

/* Completed by the server's domain it is longer than what was asked for. */
static void test_only_names_that_the_next_start_can_read_are_kept(void)
{
	static const char domain[] = /* 190 characters */
		"a23456789-123456789-123456789-123456789-123456789-123456789."
		"b23456789-123456789-123456789-123456789-123456789-123456789."
		"c23456789-123456789-123456789-123456789-123456789-123456789.demo.demox";
	static const char label[] = "e23456789e23456789e23456789e23456789e23456789e23456789e23456789";
	char text[80];

	new_world(NULL);
	snprintf(own_tokens, sizeof(own_tokens), "%.80s/own", world.folder);
	world.options.own_tokens_file = own_tokens;
	world.options.domain = domain;
	start_server();
	snprintf(text, sizeof(text), "*.%.60s", label);
	const struct diglett_order longest = create_order(text, ""); /* "*." and 251 */
	ask(&longest);
	assert(answer.code == 0);
	snprintf(text, sizeof(text), "*.%.61s", label);
	expect_too_long(text);
	snprintf(text, sizeof(text), "%.63s", label);
	expect_too_long(text);
	diglett_server_stop(world.server, NULL, NULL);
	start_server();
	assert(diglett_server_tokens(world.server)->own.n == 1);
	end();
}

static void test_the_list_says_who_is_there_and_an_agent_can_be_ended(void)
{
	struct diglett_order end_it = { .kind = DIGLETT_ORDER_END };

	begin();
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(counters().agents_now == 1);
	const char *status = ask_kind(DIGLETT_ORDER_STATUS);
	assert(strstr(status, "\"name\":\"app.demo\"") && strstr(status, "\"script\":\"none\"") &&
	       strstr(status, "\"address\":\"127.0.0.1:") && strstr(status, "\"public_key\":\"0") &&
	       strstr(status, "\"streams\":0"));
	assert(diglett_name_parse("app", 3, &end_it.name) == 0);
	ask(&end_it);
	assert(answer.code == 0 && counters().agents_now == 0 && counters().ended == 1);
	ask(&end_it);
	assert(answer.code == RPC_NOT_FOUND);
	assert(strstr(ask_kind(DIGLETT_ORDER_STATUS), "\"agents\":[]"));
	stop_agent(agent);
	end();
}

int main(void)
{
	test_a_token_made_while_it_runs_lets_in_and_its_end_ends_its_agents();
	test_tokens_stay_over_a_restart();
	test_a_token_that_cannot_be_kept_is_not_valid();
	test_a_token_of_the_file_is_revoked_there();
	test_a_token_that_stands_in_the_file_too_is_revoked_there_first();
	test_only_names_that_the_next_start_can_read_are_kept();
	test_the_list_says_who_is_there_and_an_agent_can_be_ended();
	return 0;
}
