/*
 * HTTP/1 by Host (RFC 9112). A line is judged when it is whole, but a character that no line may have at once. What
 * a server could read differently from us (folded lines, bare CR or LF, a space before the colon) is refused even
 * where it does not concern the host: behind it there could be one.
 */
#include "common/macros.h"
#include "relay/frontdoor/sniffer_parts.h"

#include <string.h>
#include <strings.h>

enum stage { STAGE_LINE, STAGE_FIELDS };

struct text {
	const char *at;
	size_t len;
};

/* What is in front of the first c, or all; *rest is what is behind it. */
static struct text cut(struct text text, char c, struct text *rest)
{
	const char *found = text.len > 0 ? memchr(text.at, c, text.len) : NULL;
	size_t len = found ? (size_t)(found - text.at) : text.len;
	size_t skipped = found ? len + 1 : len;

	*rest = (struct text){ text.at + skipped, text.len - skipped };
	return (struct text){ text.at, len };
}

static bool is_word(struct text text, const char *word)
{
	return text.len == strlen(word) && strncasecmp(text.at, word, text.len) == 0;
}

static bool is_token(struct text text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.at[i];
		if (c <= ' ' || c > '~' || strchr("\"(),/:;<=>?@[\\]{}", c))
			return false;
	}
	return text.len > 0;
}

static bool is_graphic(struct text text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.at[i] <= ' ' || text.at[i] > '~')
			return false;
	return text.len > 0;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* Neither CR nor LF; NUL and the other control characters stand nowhere in a head (RFC 9110, section 5.5). */
static bool may_stand_in_line(uint8_t c)
{
	return (c >= ' ' && c != 0x7f) || c == '\t';
}

enum line { LINE_WHOLE, LINE_MORE, LINE_BAD };

/* The next line without its CRLF. */
static enum line next_line(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n, struct text *ret)
{
	for (; sniffer->scanned < n; sniffer->scanned++) {
		uint32_t at = sniffer->scanned;
		bool after_cr = at > sniffer->at && bytes[at - 1] == '\r';

		if (after_cr != (bytes[at] == '\n'))
			return LINE_BAD;
		if (after_cr) {
			*ret = (struct text){ (const char *)bytes + sniffer->at, at - 1 - sniffer->at };
			sniffer->at = sniffer->scanned = at + 1;
			return LINE_WHOLE;
		}
		if (bytes[at] != '\r' && !may_stand_in_line(bytes[at]))
			return LINE_BAD;
	}
	return LINE_MORE;
}

/* ---- the request line ------------------------------------------------------------------------ */

/* Behind "http://": authority, then path or query. */
static enum sniffer_reason read_absolute(struct sniffer *sniffer, struct text text)
{
	size_t len = 0;

	while (len < text.len && !strchr("/?#", text.at[len]))
		len++;
	int r = host_name_from_authority(text.at, len, &sniffer->authority);
	if (r == HOST_NAME_EMPTY)
		return SNIFFER_HOST_INVALID;
	if (r != 0)
		return sniffer_reason_of_name(r);
	sniffer->found.is_acme_http = sniffer_is_acme_path(text.at + len, text.len - len);
	return SNIFFER_NOT_REFUSED;
}

static enum sniffer_reason read_target(struct sniffer *sniffer, struct text method, struct text target)
{
	static const char *const schemes[] = { "http://", "https://" };

	if (is_word(method, "CONNECT"))
		return SNIFFER_HTTP_CONNECT;
	if (target.at[0] == '/') {
		sniffer->found.is_acme_http = sniffer_is_acme_path(target.at, target.len);
		return SNIFFER_NOT_REFUSED;
	}
	if (is_word(target, "*"))
		return is_word(method, "OPTIONS") ? SNIFFER_NOT_REFUSED : SNIFFER_HTTP_LINE;
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t len = strlen(schemes[i]);
		if (target.len >= len && strncasecmp(target.at, schemes[i], len) == 0)
			return read_absolute(sniffer, (struct text){ target.at + len, target.len - len });
	}
	return SNIFFER_HTTP_LINE;
}

/* "GET /path HTTP/1.1": three words, one space between them. */
static enum sniffer_reason read_request_line(struct sniffer *sniffer, struct text line)
{
	struct text rest, version;
	struct text method = cut(line, ' ', &rest);
	struct text target = cut(rest, ' ', &version);

	if (!is_token(method) || !is_graphic(target) || version.len != 8 || memcmp(version.at, "HTTP/1.", 7) != 0 ||
	    version.at[7] < '0' || version.at[7] > '9')
		return SNIFFER_HTTP_LINE;
	sniffer->is_old = version.at[7] == '0';
	sniffer->stage = STAGE_FIELDS;
	return read_target(sniffer, method, target);
}

/* ---- fields ---------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct text without_blanks_around(struct text text)
{
	while (text.len > 0 && is_blank(text.at[0])) {
		text.at++;
		text.len--;
	}
	while (text.len > 0 && is_blank(text.at[text.len - 1]))
		text.len--;
	return text;
}

static enum sniffer_reason read_field(struct sniffer *sniffer, struct text line)
{
	struct text value;
	struct text name = cut(line, ':', &value);

	/* A folded line begins with a space, and a space before the colon ends a name: neither is a token's. */
	if (name.len == line.len || !is_token(name))
		return SNIFFER_HTTP_FIELD;
	if (!is_word(name, "host"))
		return SNIFFER_NOT_REFUSED;
	if (sniffer->has_host)
		return SNIFFER_TWO_HOSTS;
	sniffer->has_host = true;
	value = without_blanks_around(value);
	int r = host_name_from_authority(value.at, value.len, &sniffer->found.host);
	return r != 0 ? sniffer_reason_of_name(r) : SNIFFER_NOT_REFUSED;
}

/* The head is whole: what the request line says wins, and Host must say the same (RFC 9112, section 3.2.2). */
static enum sniffer_outcome decide(struct sniffer *sniffer)
{
	bool is_absolute = sniffer->authority.len > 0;

	if (!sniffer->has_host && !(is_absolute && sniffer->is_old))
		return sniffer_refuse(sniffer, SNIFFER_NO_HOST);
	if (is_absolute && sniffer->has_host && !host_name_equal(&sniffer->authority, &sniffer->found.host))
		return sniffer_refuse(sniffer, SNIFFER_TWO_HOSTS);
	if (is_absolute)
		sniffer->found.host = sniffer->authority;
	return sniffer_finish(sniffer);
}

static enum sniffer_outcome read_line(struct sniffer *sniffer, struct text line)
{
	if (sniffer->stage == STAGE_FIELDS && line.len == 0)
		return decide(sniffer);
	enum sniffer_reason reason =
		sniffer->stage == STAGE_LINE ? read_request_line(sniffer, line) : read_field(sniffer, line);
	return reason == SNIFFER_NOT_REFUSED ? SNIFFER_MORE : sniffer_refuse(sniffer, reason);
}

enum sniffer_outcome sniffer_read_http_1(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n)
{
	uint32_t n_head = n < SNIFFER_MAX_HEAD ? n : SNIFFER_MAX_HEAD;
	struct text text;

	while (sniffer->outcome == SNIFFER_MORE) {
		enum line line = next_line(sniffer, bytes, n_head, &text);

		if (line == LINE_WHOLE)
			read_line(sniffer, text);
		else if (line == LINE_BAD)
			sniffer_refuse(sniffer, sniffer->stage == STAGE_LINE ? SNIFFER_HTTP_LINE : SNIFFER_HTTP_FIELD);
		else
			break;
	}
	if (sniffer->outcome == SNIFFER_MORE && n_head == SNIFFER_MAX_HEAD)
		sniffer_refuse(sniffer, SNIFFER_TOO_LONG);
	return sniffer->outcome;
}
