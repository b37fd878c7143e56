/* Hosts that were added while the node ran: whole from one run to the next, or not at all. */
#include "relay/webgw/saved_hosts.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH "84e0c0eaafa95a34c293f278ac52e45ce537bab5e752a00e6959a13ae103b65a"

static struct webgw_rule rules[4];
static struct error error;

static int read_text(const char *text)
{
	return saved_hosts_read(text, strlen(text), rules, 4, &error);
}

static void test_what_was_printed_is_read_again(void)
{
	const char *text = "webgw hosts 1\na.example " HASH "\n*.b.example " HASH " balance=round-robin\n";

	assert(read_text(text) == 2 && rules[1].host.is_wildcard && rules[1].balance == WEBGW_ROUND_ROBIN);
	assert(rules[0].balance == WEBGW_LEAST_CONNECTIONS && strcmp(rules[0].host.name.text, "a.example") == 0);
	char *again = saved_hosts_print(rules, 2);
	assert(strcmp(again, text) == 0);
	free(again);
	again = saved_hosts_print(NULL, 0);
	assert(read_text(again) == 0);
	free(again);
}

static void test_what_is_not_whole_is_refused_as_a_whole(void)
{
	static const char *const texts[] = {
		"",
		"webgw hosts 1",
		"webgw hosts 2\n",
		"webgw hosts 1\na.example " HASH,
		"webgw hosts 1\na.example " HASH "\n\n",
		"webgw hosts 1\na.example " HASH "\nb.example 84e0\n",
		"webgw hosts 1\n10.0.0.1 " HASH "\n",
		"webgw hosts 1\na.example " HASH " balance=none\n",
		"webgw hosts 1\na.example " HASH " more\n",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		assert(read_text(texts[i]) < 0);
	assert(read_text("webgw hosts 1\na.example " HASH "\nb\n") < 0 && strstr(error.message, "line 3"));
	static const char zero[] = "webgw hosts 1\na.example " HASH "\0\n";
	assert(saved_hosts_read(zero, sizeof(zero) - 1, rules, 4, &error) < 0);
}

static void test_so_many_are_read_at_most(void)
{
	const char *text = "webgw hosts 1\na.example " HASH "\nb.example " HASH "\n";

	assert(saved_hosts_read(text, strlen(text), rules, 2, &error) == 2);
	assert(saved_hosts_read(text, strlen(text), rules, 1, &error) < 0);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_what_was_printed_is_read_again();
	test_what_is_not_whole_is_refused_as_a_whole();
	test_so_many_are_read_at_most();
	return 0;
}
