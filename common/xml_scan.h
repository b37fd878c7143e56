/*
 * Reads XML that others wrote, as far as one needs it who looks for a few short texts: tags and what stands between
 * them, in their order. It does not ask whether they nest, whether attributes make sense or what a document type
 * says; comments, instructions and declarations are passed over.
 *
 *   <s:Body a="b">text &amp; <![CDATA[more]]></s:Body>
 *   ╰──── OPEN ───╯╰ TEXT ──╯╰─── TEXT ────╯╰─ CLOSE ╯      names come without their prefix: "Body"
 *
 * Total and bounded: no recursion, no allocation, each byte is looked at a fixed number of times; what is cut ends
 * where it is cut. Pure. (libminiupnpc is not used for this: of a cut document, 2.2.4 reads more than there is.)
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum xml_token_type { XML_OPEN, XML_CLOSE, XML_TEXT };

/* Borrowed from the document. An empty element (<a/>) is XML_OPEN with is_empty, and no XML_CLOSE. */
struct xml_token {
	enum xml_token_type type;
	const char *at; /* name or text, not decoded */
	size_t len;
	bool is_empty;
	bool is_literal; /* XML_TEXT of a CDATA section: nothing to decode */
};

struct xml_scan {
	const char *at, *end;
};

struct xml_scan xml_scan(const char *document, size_t len);
/* false: nothing more, or what follows is cut. */
bool xml_next(struct xml_scan *scan, struct xml_token *ret);
bool xml_is(const struct xml_token *token, enum xml_token_type type, const char *name);

/*
 * The text up to the next tag, decoded (the five entities of XML itself; others stay as they are), without white
 * space around it, zero-terminated. 0; -ENOENT: it is empty or has a zero in it; -EMSGSIZE: longer than size - 1.
 * ret is the empty text then.
 */
int xml_text(struct xml_scan *scan, char *ret, size_t size);
/* The text of the first element of this name, wherever it stands. Errors as above. */
int xml_find_text(const char *document, size_t len, const char *name, char *ret, size_t size);
