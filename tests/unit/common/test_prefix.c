/* Prefixes as text: exactly the canonical ones. */
#include "common/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void expect4(const char *text, bool accepted)
{
	struct in_addr prefix;
	uint8_t len;

	assert((prefix4_parse(text, &prefix, &len) == 0) == accepted);
	assert(!accepted || strcmp(prefix4_text(prefix, len).s, text) == 0);
}

static void expect6(const char *text, bool accepted)
{
	struct in6_addr prefix;
	uint8_t len;

	assert((prefix6_parse(text, &prefix, &len) == 0) == accepted);
	assert(!accepted || strcmp(prefix6_text(&prefix, len).s, text) == 0);
}

int main(void)
{
	expect4("10.77.0.0/16", true);
	expect4("0.0.0.0/0", true);
	expect4("192.0.2.1/32", true);
	expect4("10.77.0.1/16", false); /* bits behind the length */
	expect4("10.77.0.0/33", false);
	expect4("10.77.0.0/016", false);
	expect4("10.77.0.0/", false);
	expect4("10.77.0.0", false);
	expect4("10.77.0/16", false);
	expect4("", false);
	expect6("fd12:3456:789a::/64", true);
	expect6("::/0", true);
	expect6("fd00::1/128", true);
	expect6("fd00::1/64", false);
	expect6("fd00::/129", false);
	expect6("fd00::/-1", false);
	expect6("10.0.0.0/8", false);
	puts("ok");
}
