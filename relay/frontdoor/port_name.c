#include "relay/frontdoor/port_name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WHITE " \t"

static const char *const prefixes[PORT_N_KINDS] = { [PORT_TCP] = "tcp:", [PORT_UDP] = "udp:" };

/* A number that stands as it is printed, 1 … max; how many bytes it takes, 0: none. */
static size_t take_number(const char *text, size_t len, uint64_t max, uint64_t *ret)
{
	uint64_t number = 0;
	size_t n = 0;

	for (; n < len && text[n] >= '0' && text[n] <= '9'; n++) {
		number = number * 10 + (uint64_t)(text[n] - '0');
		if (number == 0 || number > max)
			return 0;
	}
	*ret = number;
	return n;
}

int port_name_from(const char *text, size_t len, struct port_name *ret)
{
	struct port_name port = { 0 };
	uint64_t number = 0;
	size_t at = 0;

	for (int kind = 0; kind < PORT_N_KINDS && at == 0; kind++) {
		if (len < strlen(prefixes[kind]) || memcmp(text, prefixes[kind], strlen(prefixes[kind])) != 0)
			continue;
		at = strlen(prefixes[kind]);
		port.kind = (enum port_kind)kind;
	}
	const size_t digits = at > 0 ? take_number(text + at, len - at, UINT16_MAX, &number) : 0;
	if (digits == 0)
		return -EINVAL;
	port.number = (uint16_t)number;
	at += digits;
	if (at < len) {
		if (text[at] != '/' || take_number(text + at + 1, len - at - 1, UINT32_MAX, &number) != len - at - 1 ||
		    len - at == 1)
			return -EINVAL;
		port.door_id = (uint32_t)number;
	}
	*ret = port;
	return 0;
}

void port_name_print(const struct port_name *port, char ret[PORT_NAME_TEXT])
{
	const int n = snprintf(ret, PORT_NAME_TEXT, "%s%u", prefixes[port->kind], port->number);

	if (port->door_id != 0)
		snprintf(ret + n, PORT_NAME_TEXT - (size_t)n, "/%u", port->door_id);
}

void port_name_to_host(const struct port_name *port, struct host_name *ret)
{
	char text[PORT_NAME_TEXT];

	port_name_print(port, text);
	*ret = (struct host_name){ .len = (uint8_t)strlen(text) };
	memcpy(ret->text, text, ret->len);
}

int port_or_host_from(const char *text, size_t len, struct host_name *ret)
{
	struct port_name port;

	if (port_name_from(text, len, &port) != 0 || port.door_id != 0)
		return host_name_from(text, len, ret);
	port_name_to_host(&port, ret);
	return 0;
}

bool port_name_equal(const struct port_name *a, const struct port_name *b)
{
	return a->kind == b->kind && a->number == b->number && a->door_id == b->door_id;
}

size_t port_name_word(const char *text, struct port_name *ret, bool *is_wrong)
{
	char name[PORT_NAME_TEXT];

	*is_wrong = false;
	for (int kind = 0; kind < PORT_N_KINDS; kind++) {
		const size_t word = strlen(prefixes[kind]) - 1; /* without the colon */
		if (strncmp(text, prefixes[kind], word) != 0 || !strchr(WHITE ":", text[word]))
			continue;
		const char *at = text + word + strspn(text + word, WHITE);
		const size_t len = strcspn(at, WHITE);
		*is_wrong = true;
		if (word + len >= sizeof(name))
			return 0;
		memcpy(name, text, word);
		memcpy(name + word, at, len);
		if (port_name_from(name, word + len, ret) != 0 || ret->door_id != 0)
			return 0;
		*is_wrong = false;
		return (size_t)(at - text) + len;
	}
	return 0;
}

const char *port_kind_name(enum port_kind kind)
{
	return kind == PORT_UDP ? "UDP" : "TCP";
}

/* "2222" or "30000-30100", with white space around; 0 or -EINVAL. */
static int take_range(const char *text, size_t len, struct port_ranges *ranges)
{
	uint64_t first, last;

	while (len > 0 && strchr(WHITE, text[len - 1]))
		len--;
	const size_t n = take_number(text, len, UINT16_MAX, &first);
	if (n == 0)
		return -EINVAL;
	last = first;
	if (n < len && (text[n] != '-' || len - n == 1 ||
			take_number(text + n + 1, len - n - 1, UINT16_MAX, &last) != len - n - 1))
		return -EINVAL;
	if (last < first)
		return -EINVAL;
	ranges->items[ranges->n].first = (uint16_t)first;
	ranges->items[ranges->n++].last = (uint16_t)last;
	return 0;
}

int port_ranges_parse(const char *text, struct port_ranges *ret, struct error *reterr)
{
	struct port_ranges ranges = { 0 };

	if (text[strspn(text, WHITE)] != '\0')
		for (const char *at = text, *end; at; at = end ? end + 1 : NULL) {
			at += strspn(at, WHITE);
			end = strchr(at, ',');
			if (ranges.n == PORT_RANGES_MAX)
				return error_set(reterr, -EINVAL, "%d ports and ranges at most", PORT_RANGES_MAX);
			if (take_range(at, end ? (size_t)(end - at) : strlen(at), &ranges) != 0)
				return error_set(reterr, -EINVAL, "ports and ranges of ports, such as 2222, 30000-30100");
		}
	*ret = ranges;
	return 0;
}

bool port_ranges_have(const struct port_ranges *ranges, uint16_t port)
{
	bool has = false;

	for (uint32_t i = 0; i < ranges->n && !has; i++)
		has = port >= ranges->items[i].first && port <= ranges->items[i].last;
	return has;
}
