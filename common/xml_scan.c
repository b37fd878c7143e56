#include "common/xml_scan.h"

#include "common/macros.h"

#include <errno.h>
#include <string.h>

struct xml_scan xml_scan(const char *document, size_t len)
{
	return (struct xml_scan){ .at = document, .end = document + len };
}

static size_t left(const struct xml_scan *scan)
{
	return (size_t)(scan->end - scan->at);
}

static bool begins(const struct xml_scan *scan, const char *with)
{
	return left(scan) >= strlen(with) && memcmp(scan->at, with, strlen(with)) == 0;
}

/* Goes behind the next `what`; false: there is none, and nothing is left. */
static bool skip_behind(struct xml_scan *scan, const char *what)
{
	const char *found = memmem(scan->at, left(scan), what, strlen(what));

	scan->at = found ? found + strlen(what) : scan->end;
	return found != NULL;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Goes behind the '>' of a tag; one in quotes is none. */
static bool skip_tag(struct xml_scan *scan)
{
	char quote = '\0';

	for (; scan->at < scan->end; scan->at++) {
		char c = *scan->at;
		if (quote != '\0') {
			quote = c == quote ? '\0' : quote;
		} else if (c == '"' || c == '\'') {
			quote = c;
		} else if (c == '>') {
			scan->at++;
			return true;
		}
	}
	return false;
}

/* Behind the '<' of a tag. */
static bool take_tag(struct xml_scan *scan, struct xml_token *ret)
{
	*ret = (struct xml_token){ .type = begins(scan, "/") ? XML_CLOSE : XML_OPEN };
	if (ret->type == XML_CLOSE)
		scan->at++;
	ret->at = scan->at;
	while (scan->at < scan->end && !is_space(*scan->at) && *scan->at != '>' && *scan->at != '/')
		scan->at++;
	ret->len = (size_t)(scan->at - ret->at);
	const char *colon = memrchr(ret->at, ':', ret->len);
	if (colon) {
		ret->len -= (size_t)(colon + 1 - ret->at);
		ret->at = colon + 1;
	}
	if (!skip_tag(scan))
		return false;
	ret->is_empty = ret->type == XML_OPEN && scan->at[-2] == '/';
	return true;
}

static bool take_literal(struct xml_scan *scan, struct xml_token *ret)
{
	*ret = (struct xml_token){ .type = XML_TEXT, .at = scan->at, .is_literal = true };
	if (!skip_behind(scan, "]]>"))
		return false;
	ret->len = (size_t)(scan->at - 3 - ret->at);
	return true;
}

static bool take_text(struct xml_scan *scan, struct xml_token *ret)
{
	const char *end = memchr(scan->at, '<', left(scan));

	if (!end) {
		scan->at = scan->end;
		return false;
	}
	*ret = (struct xml_token){ .type = XML_TEXT, .at = scan->at, .len = (size_t)(end - scan->at) };
	scan->at = end;
	return true;
}

bool xml_next(struct xml_scan *scan, struct xml_token *ret)
{
	while (scan->at < scan->end) {
		if (*scan->at != '<')
			return take_text(scan, ret);
		if (begins(scan, "<!--")) {
			scan->at += 4;
			skip_behind(scan, "-->");
		} else if (begins(scan, "<![CDATA[")) {
			scan->at += 9;
			return take_literal(scan, ret);
		} else if (begins(scan, "<?")) {
			skip_behind(scan, "?>");
		} else if (begins(scan, "<!")) {
			skip_tag(scan);
		} else {
			scan->at++;
			return take_tag(scan, ret);
		}
	}
	return false;
}

bool xml_is(const struct xml_token *token, enum xml_token_type type, const char *name)
{
	return token->type == type && token->len == strlen(name) && memcmp(token->at, name, token->len) == 0;
}

/* ---- texts ----------------------------------------------------------------------------------- */

/* How many bytes of the document the next character takes. */
static size_t decode(const char *at, size_t len, char *ret)
{
	static const struct {
		const char *name;
		char c;
	} entities[] = { { "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&quot;", '"' }, { "&apos;", '\'' } };

	for (size_t i = 0; *at == '&' && i < ARRAY_LEN(entities); i++) {
		size_t n = strlen(entities[i].name);
		if (n <= len && memcmp(at, entities[i].name, n) == 0) {
			*ret = entities[i].c;
			return n;
		}
	}
	*ret = *at;
	return 1;
}

/* White space only behind something. 0 or as xml_text(). */
static int append(const struct xml_token *token, char *ret, size_t size, size_t *used)
{
	for (size_t i = 0; i < token->len;) {
		char c = token->at[i];
		i += token->is_literal ? 1 : decode(token->at + i, token->len - i, &c);
		if (*used == 0 && is_space(c))
			continue;
		if (c == '\0')
			return -ENOENT;
		if (*used + 1 < size)
			ret[*used] = c;
		else if (!is_space(c))
			return -EMSGSIZE;
		else
			continue; /* may be the white space at its end */
		(*used)++;
	}
	return 0;
}

int xml_text(struct xml_scan *scan, char *ret, size_t size)
{
	struct xml_token token;
	struct xml_scan ahead = *scan;
	size_t used = 0;
	int r = 0;

	while (r == 0 && xml_next(&ahead, &token) && token.type == XML_TEXT) {
		r = append(&token, ret, size, &used);
		*scan = ahead;
	}
	while (used > 0 && is_space(ret[used - 1]))
		used--;
	ret[r == 0 ? used : 0] = '\0';
	return r == 0 && used == 0 ? -ENOENT : r;
}

int xml_find_text(const char *document, size_t len, const char *name, char *ret, size_t size)
{
	struct xml_scan scan = xml_scan(document, len);
	struct xml_token token;

	ret[0] = '\0';
	while (xml_next(&scan, &token))
		if (xml_is(&token, XML_OPEN, name))
			return token.is_empty ? -ENOENT : xml_text(&scan, ret, size);
	return -ENOENT;
}
