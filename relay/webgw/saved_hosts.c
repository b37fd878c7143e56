#include "relay/webgw/saved_hosts.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "webgw hosts 1\n"

static int read_line(const char *line, size_t len, struct webgw_rule *ret, struct error *reterr)
{
	char text[SAVED_HOSTS_LINE];

	if (len >= sizeof(text) || memchr(line, '\0', len))
		return error_set(reterr, -EINVAL, "no host");
	memcpy(text, line, len);
	text[len] = '\0';
	return webgw_rule_parse(text, ret, reterr);
}

int saved_hosts_read(const char *text, size_t len, struct webgw_rule *ret, uint32_t room, struct error *reterr)
{
	const char *at = text + strlen(HEAD), *end = text + len;
	uint32_t n = 0;

	if (len < strlen(HEAD) || memcmp(text, HEAD, strlen(HEAD)) != 0)
		return error_set(reterr, -EINVAL, "line 1 is not '%.*s'", (int)strlen(HEAD) - 1, HEAD);
	while (at < end) {
		const char *line_end = memchr(at, '\n', (size_t)(end - at));
		if (!line_end)
			return error_set(reterr, -EINVAL, "line %u has no end: the file is not whole", n + 2);
		if (n == room)
			return error_set(reterr, -EINVAL, "more than %u hosts", room);
		if (read_line(at, (size_t)(line_end - at), &ret[n], reterr) != 0) {
			error_prefix(reterr, "line %u", n + 2);
			return -EINVAL;
		}
		n++;
		at = line_end + 1;
	}
	return (int)n;
}

static size_t print_rule(const struct webgw_rule *rule, char *to, size_t room)
{
	char hex[2 * WEBGW_HASH_LEN + 1];
	const bool is_usual = rule->balance == WEBGW_LEAST_CONNECTIONS;

	sodium_bin2hex(hex, sizeof(hex), rule->hash, sizeof(rule->hash));
	return (size_t)snprintf(to, room, "%s%s %s%s%s\n", rule->host.is_wildcard ? "*." : "", rule->host.name.text, hex,
				is_usual ? "" : " balance=", is_usual ? "" : webgw_balance_text(rule->balance));
}

char *saved_hosts_print(const struct webgw_rule *rules, uint32_t n)
{
	const size_t room = sizeof(HEAD) + (size_t)n * SAVED_HOSTS_LINE;
	char *text = malloc(room);
	size_t at = strlen(HEAD);

	if (!text)
		abort();
	memcpy(text, HEAD, sizeof(HEAD));
	for (uint32_t i = 0; i < n; i++)
		at += print_rule(&rules[i], text + at, room - at);
	return text;
}
