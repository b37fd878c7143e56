/*
 * The tables of docs/FRONT-DOOR.md, row by row: what a visitor sends, and what happens. Every row here is in the
 * document, in the same words, and every row there is here. Each is read at once, byte by byte and cut everywhere
 * (sniffed.h); hellos are split over records as well.
 */
#include "common/macros.h"
#include "hello.h"
#include "initial.h"
#include "request_2.h"
#include "sniffed.h"

#include "relay/frontdoor/quic_initial_wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP (128 * 1024)

static uint8_t message[CAP]; /* a ClientHello, without records or frames */

struct row {
	const char *what; /* comes, in words */
	const char *text; /* HTTP: what comes */
	size_t text_len;  /* 0: as long as the string */
	struct request_2 request;	    /* HTTP/2, if it has fields or a block */
	struct hello_options hello;	    /* else TLS */
	size_t (*make)(uint8_t *ret);	    /* else whatever this makes, CAP at most */
	bool is_quic;			    /* the hello, or what was made, is of datagrams */
	const char *happens;
};

/* ---- HTTP/1 ---------------------------------------------------------------------------------- */

static size_t repeat(uint8_t *ret, const char *before, const char *repeated, size_t n, const char *after)
{
	size_t at = strlen(before), len = strlen(repeated);

	assert(at + n * len + strlen(after) <= CAP);
	memcpy(ret, before, at);
	for (; n > 0; n--, at += len)
		memcpy(ret + at, repeated, len);
	memcpy(ret + at, after, strlen(after));
	return at + strlen(after);
}

#define HEAD "GET / HTTP/1.1\r\nHost: app.example.org\r\n"

static size_t longest_head(uint8_t *ret)
{
	return repeat(ret, HEAD "A: ", "a", SNIFFER_MAX_HEAD - strlen(HEAD) - 7, "\r\n\r\n");
}

static size_t head_too_long(uint8_t *ret)
{
	return repeat(ret, HEAD "A: ", "a", SNIFFER_MAX_HEAD - strlen(HEAD) - 6, "\r\n\r\n");
}

static size_t endless_line(uint8_t *ret)
{
	return repeat(ret, "GET /", "a", SNIFFER_MAX_HEAD, "");
}

static const struct row http_1[] = {
	{ "`Host: app.example.org`", .text = "GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "to `app.example.org`" },
	{ "`hOST:APP.Example.ORG.:8080`, in any case, with a dot at the end or a port",
	  .text = "POST /x?y HTTP/1.1\r\nA: b\r\nhOST:APP.Example.ORG.:8080 \t\r\nC:\r\n\r\nbody",
	  .happens = "to `app.example.org`" },
	{ "`Host` in HTTP/1.0", .text = "GET / HTTP/1.0\r\nHost: app.example.org\r\n\r\n", .happens = "to `app.example.org`" },
	{ "`OPTIONS *`", .text = "OPTIONS * HTTP/1.1\r\nHost: app.example.org\r\n\r\n", .happens = "to `app.example.org`" },
	{ "absolute form, `GET http://app.example.org/`, and the same `Host`",
	  .text = "GET HTTP://App.example.org:80/x HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "to `app.example.org`" },
	{ "absolute form without `Host`, HTTP/1.0", .text = "GET http://app.example.org HTTP/1.0\r\n\r\n",
	  .happens = "to `app.example.org`" },
	{ "`/.well-known/acme-challenge/` and a token",
	  .text = "GET /.well-known/acme-challenge/Ab-_9 HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "to `app.example.org`, ACME http-01" },
	{ "the same in absolute form",
	  .text = "GET http://app.example.org/.well-known/acme-challenge/Ab-_9?a HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "to `app.example.org`, ACME http-01" },
	{ "a path that only begins like one",
	  .text = "GET /.well-known/acme-challenge/../x HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "to `app.example.org`" },
	{ "a request with both `Transfer-Encoding` and `Content-Length`: where it ends is the server's business",
	  .text = "POST / HTTP/1.1\r\nHost: app.example.org\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
		  "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
	  .happens = "to `app.example.org`" },
	{ "a head of 32 KiB", .make = longest_head, .happens = "to `app.example.org`" },
	{ "a head of one byte more", .make = head_too_long, .happens = "`too-long`, 400" },
	{ "a line without end", .make = endless_line, .happens = "`too-long`, 400" },
	{ "no `Host`, HTTP/1.1", .text = "GET / HTTP/1.1\r\nA: b\r\n\r\n", .happens = "`no-host`, 400" },
	{ "no `Host`, HTTP/1.0", .text = "GET / HTTP/1.0\r\n\r\n", .happens = "`no-host`, reset" },
	{ "an empty `Host`", .text = "GET / HTTP/1.1\r\nHost: \r\n\r\n", .happens = "`no-host`, 400" },
	{ "absolute form without `Host`, HTTP/1.1", .text = "GET http://app.example.org/ HTTP/1.1\r\n\r\n",
	  .happens = "`no-host`, 400" },
	{ "two `Host` fields, even of the same name",
	  .text = "GET / HTTP/1.1\r\nHost: app.example.org\r\nHOST: app.example.org\r\n\r\n", .happens = "`two-hosts`, 400" },
	{ "absolute form and another `Host`",
	  .text = "GET http://app.example.org/ HTTP/1.1\r\nHost: other.example\r\n\r\n", .happens = "`two-hosts`, 400" },
	{ "a list in `Host`", .text = "GET / HTTP/1.1\r\nHost: app.example.org, other.example\r\n\r\n",
	  .happens = "`host-invalid`, 400" },
	{ "user info in `Host`", .text = "GET / HTTP/1.1\r\nHost: user@app.example.org\r\n\r\n", .happens = "`host-invalid`, 400" },
	{ "user info in the absolute form",
	  .text = "GET http://app.example.org@other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
	  .happens = "`host-invalid`, 400" },
	{ "absolute form without a name", .text = "GET http:///x HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`host-invalid`, 400" },
	{ "a name that is not ASCII", .text = "GET / HTTP/1.1\r\nHost: b\xc3\xbc" "cher.example\r\n\r\n",
	  .happens = "`host-invalid`, 400" },
	{ "a port that is none", .text = "GET / HTTP/1.1\r\nHost: app.example.org:http\r\n\r\n", .happens = "`host-invalid`, 400" },
	{ "an IP address in `Host`", .text = "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", .happens = "`host-address`, reset" },
	{ "an IPv6 address in `Host`", .text = "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
	  .happens = "`host-address`, reset" },
	{ "`CONNECT`", .text = "CONNECT app.example.org:443 HTTP/1.1\r\nHost: app.example.org:443\r\n\r\n",
	  .happens = "`http-connect`, 400" },
	{ "a folded field", .text = "GET / HTTP/1.1\r\nA: b\r\n Host: other.example\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`http-field`, 400" },
	{ "a folded `Host`", .text = "GET / HTTP/1.1\r\nHost:\r\n\tapp.example.org\r\n\r\n", .happens = "`no-host`, 400" },
	{ "a space before the colon", .text = "GET / HTTP/1.1\r\nHost : app.example.org\r\n\r\n", .happens = "`http-field`, 400" },
	{ "a field without a name", .text = "GET / HTTP/1.1\r\n: b\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`http-field`, 400" },
	{ "a field without a colon", .text = "GET / HTTP/1.1\r\nHost app.example.org\r\n\r\n", .happens = "`http-field`, 400" },
	{ "LF without CR", .text = "GET / HTTP/1.1\r\nA: b\nHost: app.example.org\r\n\r\n", .happens = "`http-field`, 400" },
	{ "CR without LF", .text = "GET / HTTP/1.1\r\nHost: app.example.org\rA: b\r\n\r\n", .happens = "`http-field`, 400" },
	{ "NUL in a field", .text = "GET / HTTP/1.1\r\nHost: app.example.org\0.other.example\r\n\r\n",
	  .text_len = 56, .happens = "`http-field`, 400" },
	{ "NUL in the request line", .text = "GET /\0 HTTP/1.1\r\nHost: app.example.org\r\n\r\n", .text_len = 42,
	  .happens = "`http-line`, 400" },
	{ "lines that end in LF", .text = "GET / HTTP/1.1\nHost: app.example.org\n\n", .happens = "`http-line`, 400" },
	{ "two spaces in the request line", .text = "GET  / HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`http-line`, 400" },
	{ "a fourth word in the request line", .text = "GET / x HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`http-line`, 400" },
	{ "a target that is neither path nor URL", .text = "GET app.example.org/ HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`http-line`, 400" },
	{ "a URL of another scheme", .text = "GET ftp://app.example.org/ HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`http-line`, 400" },
	{ "a target with bytes beyond ASCII", .text = "GET /\xc3\xbc HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
	  .happens = "`http-line`, 400" },
	{ "HTTP/0.9", .text = "GET /\r\n", .happens = "`http-line`, 400" },
	{ "HTTP/2.0 in a request line", .text = "GET / HTTP/2.0\r\nHost: app.example.org\r\n\r\n", .happens = "`http-line`, 400" },
	{ "an SSH client", .text = "SSH-2.0-OpenSSH_9.2\r\n", .happens = "`http-line`, 400" },
	{ "an empty line first", .text = "\r\nGET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n", .happens = "`no-protocol`, reset" },
	{ "bytes of no protocol", .text = "\x05\x01\x00", .text_len = 3, .happens = "`no-protocol`, reset" },
	{ "a head that has not ended", .text = "GET / HTTP/1.1\r\nHost: app.example.org\r\n", .happens = "more" },
	{ "nothing", .text = "", .happens = "more" },
};

/* ---- TLS ------------------------------------------------------------------------------------- */

static size_t one_record(uint8_t *ret, const struct hello_options *options)
{
	return hello_in_records(message, hello_build(options, message, sizeof(message)), 1 << 14, ret, CAP);
}

static const struct hello_options plain = { .names = { "app.example.org" } };

static size_t ssl_2(uint8_t *ret)
{
	memcpy(ret, "\x80\x2e\x01\x03\x01\x00\x15", 7);
	return 7;
}

static size_t empty_record_first(uint8_t *ret)
{
	memcpy(ret, "\x16\x03\x01\x00\x00", 5);
	return 5 + one_record(ret + 5, &plain);
}

static size_t other_record_between(uint8_t *ret)
{
	size_t n = hello_in_records(message, hello_build(&plain, message, sizeof(message)), 50, ret, CAP);
	ret[55] = 23;
	return n;
}

static size_t version_4(uint8_t *ret)
{
	size_t n = one_record(ret, &plain);

	ret[1] = 4;
	return n;
}

static size_t record_too_long(uint8_t *ret)
{
	memcpy(ret, "\x16\x03\x01\x40\x01", 5);
	return 5;
}

static size_t followed(uint8_t *ret)
{
	size_t n = one_record(ret, &plain);

	memcpy(ret + n, "\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x01\xff", 12);
	return n + 12;
}

static size_t of_length(uint8_t *ret, size_t len)
{
	struct hello_options options = plain;

	options.padding = len - hello_build(&plain, message, sizeof(message)) + 4;
	return one_record(ret, &options);
}

static size_t longest_hello(uint8_t *ret)
{
	return of_length(ret, SNIFFER_MAX_HELLO);
}

static size_t hello_too_long(uint8_t *ret)
{
	memcpy(ret, "\x16\x03\x01\x00\x05\x01\x01\x00\x01\x03", 10);
	return 10;
}

static size_t tiny_records(uint8_t *ret)
{
	struct hello_options options = { .names = { "app.example.org" }, .key_share = 20000 };

	return hello_in_records(message, hello_build(&options, message, sizeof(message)), 1, ret, CAP);
}

static const struct row tls[] = {
	{ "server name `app.example.org`", .hello = { .names = { "app.example.org" } }, .happens = "to `app.example.org`" },
	{ "server name `APP.example.org.`", .hello = { .names = { "APP.example.org." } }, .happens = "to `app.example.org`" },
	{ "a post-quantum key share of 1,216 bytes before the name",
	  .hello = { .names = { "app.example.org" }, .key_share = 1216 }, .happens = "to `app.example.org`" },
	{ "ALPN `acme-tls/1` and nothing else", .hello = { .names = { "app.example.org" }, .alpn = { "acme-tls/1" } },
	  .happens = "to `app.example.org`, ACME tls-alpn-01" },
	{ "ALPN `acme-tls/1` among others",
	  .hello = { .names = { "app.example.org" }, .alpn = { "h2", "acme-tls/1" } }, .happens = "to `app.example.org`" },
	{ "encrypted ClientHello: by the outer name", .hello = { .names = { "app.example.org" }, .ech = 1 },
	  .happens = "to `app.example.org`, ECH" },
	{ "an inner ClientHello in the open", .hello = { .names = { "app.example.org" }, .ech = 2 },
	  .happens = "to `app.example.org`" },
	{ "records that follow the hello", .make = followed, .happens = "to `app.example.org`" },
	{ "a hello of 64 KiB", .make = longest_hello, .happens = "to `app.example.org`" },
	{ "a hello of one byte more", .make = hello_too_long, .happens = "`too-long`, reset" },
	{ "more than 65 KiB in tiny records", .make = tiny_records, .happens = "`too-long`, reset" },
	{ "no server name", .hello = { .alpn = { "h2" } }, .happens = "`no-host`, reset" },
	{ "no extensions at all", .hello = { .is_old = true }, .happens = "`no-host`, reset" },
	{ "two server names", .hello = { .names = { "app.example.org", "other.example" } }, .happens = "`two-hosts`, reset" },
	{ "the extension twice", .hello = { .names = { "app.example.org" }, .repeats_extension = true },
	  .happens = "`two-hosts`, reset" },
	{ "an IP address as server name", .hello = { .names = { "192.0.2.1" } }, .happens = "`host-address`, reset" },
	{ "a server name with NUL", .hello = { .names = { "app.example.org\0.other" }, .name_len = 22 },
	  .happens = "`host-invalid`, reset" },
	{ "a server name that is not ASCII", .hello = { .names = { "b\xc3\xbc" "cher.example" } },
	  .happens = "`host-invalid`, reset" },
	{ "a server name with a port", .hello = { .names = { "app.example.org:443" } }, .happens = "`host-invalid`, reset" },
	{ "an empty server name", .hello = { .names = { "" } }, .happens = "`tls-hello`, reset" },
	{ "bytes behind the extensions", .hello = { .names = { "app.example.org" }, .trailing = 1 },
	  .happens = "`tls-hello`, reset" },
	{ "another message than a ClientHello", .hello = { .names = { "app.example.org" }, .is_other = true },
	  .happens = "`tls-hello`, reset" },
	{ "an empty record", .make = empty_record_first, .happens = "`tls-record`, reset" },
	{ "a record of another kind in the middle", .make = other_record_between, .happens = "`tls-record`, reset" },
	{ "a record of version 4.1", .make = version_4, .happens = "`tls-record`, reset" },
	{ "a record of more than 16 KiB", .make = record_too_long, .happens = "`tls-record`, reset" },
	{ "a hello of SSL 2", .make = ssl_2, .happens = "`ssl-2`, reset" },
};

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

#define REQUEST(authority) \
	{ ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" }, { ":authority", authority }

/* SETTINGS again, WINDOW_UPDATE, PING, PRIORITY of stream 3, and one of a type that nobody knows. */
#define FRAMES \
	"\0\0\0\4\0\0\0\0\0" \
	"\0\0\4\10\0\0\0\0\0\0\1\0\0" \
	"\0\0\10\6\0\0\0\0\0pingping" \
	"\0\0\5\2\0\0\0\0\3\0\0\0\0\20" \
	"\0\0\3\xfe\xff\0\0\0\11abc"
#define DATA		"\0\0\1\0\0\0\0\0\1x"
#define GOAWAY		"\0\0\10\7\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define SETTINGS_OF_5	"\0\0\5\4\0\0\0\0\0\0\0\0\0\0"
#define HUFFMAN		"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"

static size_t settings_without_end(uint8_t *ret)
{
	size_t n = 24;

	memcpy(ret, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", n);
	for (; n < SNIFFER_MAX; n += 9)
		memcpy(ret + n, "\0\0\0\4\0\0\0\0\0", 9);
	return n;
}

static size_t frame_too_long(uint8_t *ret)
{
	memcpy(ret, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\x40\1\4\0\0\0\0\0", 33);
	return 33;
}

static size_t only_settings(uint8_t *ret)
{
	memcpy(ret, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
	return 33;
}

static size_t padding_too_long(uint8_t *ret)
{
	memcpy(ret, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\2\1\14\0\0\0\1\2\x82", 44);
	return 44;
}

static size_t frames_between(uint8_t *ret)
{
	struct request_2 request = { .fields = { REQUEST("app.example.org") }, .fragment_len = 20 };
	size_t n = request_2_build(&request, ret, CAP), headers = 24 + 15 + 9 + 20;

	memmove(ret + headers + 9, ret + headers, n - headers);
	memcpy(ret + headers, "\0\0\0\4\0\0\0\0\0", 9);
	return n + 9;
}

static const struct row http_2[] = {
	{ "`:authority: app.example.org`", .request.fields = { REQUEST("app.example.org") }, .happens = "to `app.example.org`" },
	{ "`:authority: APP.example.org.:8080`", .request.fields = { REQUEST("APP.example.org.:8080") },
	  .happens = "to `app.example.org`" },
	{ "in Huffman's code and with static indices", .request = { .block = HUFFMAN, .block_len = sizeof(HUFFMAN) - 1 },
	  .happens = "to `www.example.com`" },
	{ "with the dynamic table", .request = { .fields = { REQUEST("app.example.org"), { "a", "b" } }, .is_indexed = true,
						    .block = "\xbe", .block_len = 1 }, .happens = "to `app.example.org`" },
	{ "no `:authority` but `host`",
	  .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" }, { "host", "app.example.org" } },
	  .happens = "to `app.example.org`" },
	{ "both, and the same", .request.fields = { REQUEST("app.example.org"), { "host", "app.example.org:80" } },
	  .happens = "to `app.example.org`" },
	{ "the path of an ACME challenge",
	  .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/.well-known/acme-challenge/abc" },
			      { ":authority", "app.example.org" } },
	  .happens = "to `app.example.org`, ACME http-01" },
	{ "SETTINGS, WINDOW_UPDATE, PING, PRIORITY and unknown frames first",
	  .request = { .fields = { REQUEST("app.example.org") }, .before = FRAMES, .before_len = sizeof(FRAMES) - 1 },
	  .happens = "to `app.example.org`" },
	{ "the header block in CONTINUATION frames of a byte each",
	  .request = { .fields = { REQUEST("app.example.org") }, .fragment_len = 1 }, .happens = "to `app.example.org`" },
	{ "HEADERS with padding and priority",
	  .request = { .fields = { REQUEST("app.example.org") }, .is_padded = true, .has_priority = true, .fragment_len = 7 },
	  .happens = "to `app.example.org`" },
	{ "a header block of 30,000 bytes",
	  .request = { .fields = { REQUEST("app.example.org") }, .filler = 30000, .fragment_len = 10000 },
	  .happens = "to `app.example.org`" },
	{ "a header block of more than 32 KiB",
	  .request = { .fields = { REQUEST("app.example.org") }, .filler = SNIFFER_MAX_HEAD, .fragment_len = 10000 },
	  .happens = "`too-long`, reset" },
	{ "SETTINGS without end", .make = settings_without_end, .happens = "`too-long`, reset" },
	{ "SETTINGS, and then the client waits", .make = only_settings, .happens = "more" },
	{ "neither `:authority` nor `host`",
	  .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" } }, .happens = "`no-host`, reset" },
	{ "an empty `:authority`", .request.fields = { REQUEST("") }, .happens = "`no-host`, reset" },
	{ "`:authority` twice", .request.fields = { REQUEST("app.example.org"), { ":authority", "app.example.org" } },
	  .happens = "`two-hosts`, reset" },
	{ "`:authority` twice, the second from the dynamic table",
	  .request = { .fields = { REQUEST("app.example.org") }, .is_indexed = true, .block = "\xbe", .block_len = 1 },
	  .happens = "`two-hosts`, reset" },
	{ "`:authority` and another `host`", .request.fields = { REQUEST("app.example.org"), { "host", "other.example" } },
	  .happens = "`two-hosts`, reset" },
	{ "`host` twice", .request.fields = { REQUEST("a.example"), { "host", "a.example" }, { "host", "a.example" } },
	  .happens = "`two-hosts`, reset" },
	{ "user info in `:authority`", .request.fields = { REQUEST("user@app.example.org") }, .happens = "`host-invalid`, reset" },
	{ "an IP address in `:authority`", .request.fields = { REQUEST("192.0.2.1:80") }, .happens = "`host-address`, reset" },
	{ "`CONNECT`", .request.fields = { { ":method", "CONNECT" }, { ":authority", "app.example.org:443" } },
	  .happens = "`http-connect`, reset" },
	{ "no `:path`", .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":authority", "app.example.org" } },
	  .happens = "`h2-headers`, reset" },
	{ "`OPTIONS` of `*`", .request.fields = { { ":method", "OPTIONS" }, { ":scheme", "http" }, { ":path", "*" },
				     { ":authority", "app.example.org" } }, .happens = "to `app.example.org`" },
	{ "`GET` of `*`", .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "*" },
				     { ":authority", "app.example.org" } }, .happens = "`h2-headers`, reset" },
	{ "a URL as `:path`", .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "http://other.example/" },
				     { ":authority", "app.example.org" } }, .happens = "`h2-headers`, reset" },
	{ "a space in `:path`", .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/a b" },
				     { ":authority", "app.example.org" } }, .happens = "`h2-headers`, reset" },
	{ "an empty `:path`", .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "" },
				     { ":authority", "app.example.org" } }, .happens = "`h2-headers`, reset" },
	{ "a pseudo field after a regular one",
	  .request.fields = { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" }, { "a", "b" },
			      { ":authority", "app.example.org" } }, .happens = "`h2-headers`, reset" },
	{ "`:status`", .request.fields = { REQUEST("app.example.org"), { ":status", "200" } }, .happens = "`h2-headers`, reset" },
	{ "upper case in a name", .request.fields = { REQUEST("app.example.org"), { "Host", "other.example" } },
	  .happens = "`h2-headers`, reset" },
	{ "CR and LF in a value", .request.fields = { REQUEST("app.example.org"), { "a", "b\r\nhost: other.example" } },
	  .happens = "`h2-headers`, reset" },
	{ "an index that no table has",
	  .request = { .fields = { REQUEST("app.example.org") }, .block = "\xbe", .block_len = 1 },
	  .happens = "`h2-headers`, reset" },
	{ "no SETTINGS first", .request = { .fields = { REQUEST("app.example.org") }, .has_no_settings = true },
	  .happens = "`h2-frame`, reset" },
	{ "SETTINGS of five bytes",
	  .request = { .fields = { REQUEST("a.example") }, .before = SETTINGS_OF_5, .before_len = sizeof(SETTINGS_OF_5) - 1 },
	  .happens = "`h2-frame`, reset" },
	{ "DATA before HEADERS", .request = { .fields = { REQUEST("a.example") }, .before = DATA, .before_len = sizeof(DATA) - 1 },
	  .happens = "`h2-frame`, reset" },
	{ "GOAWAY before HEADERS",
	  .request = { .fields = { REQUEST("a.example") }, .before = GOAWAY, .before_len = sizeof(GOAWAY) - 1 },
	  .happens = "`h2-frame`, reset" },
	{ "HEADERS of an even stream", .request = { .fields = { REQUEST("a.example") }, .stream = 2 },
	  .happens = "`h2-frame`, reset" },
	{ "another frame between HEADERS and CONTINUATION", .make = frames_between, .happens = "`h2-frame`, reset" },
	{ "padding longer than its frame", .make = padding_too_long, .happens = "`h2-frame`, reset" },
	{ "a frame of more than 16 KiB", .make = frame_too_long, .happens = "`h2-frame`, reset" },
	{ "the preface with another end", .text = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r!", .happens = "`http-line`, 400" },
};

/* ---- QUIC ------------------------------------------------------------------------------------ */

static uint8_t frames[CAP];

/* Behind its length. */
static size_t datagram(const struct initial_options *options, size_t n_frames, uint8_t *ret)
{
	size_t n = initial_build(options, frames, n_frames, ret + 2, CAP / 4);

	ret[0] = (uint8_t)(n >> 8);
	ret[1] = (uint8_t)n;
	return n + 2;
}

static size_t piece(const struct initial_options *options, size_t at, size_t len, uint8_t *ret)
{
	return datagram(options, initial_crypto(at, message + at, len, frames, sizeof(frames)), ret);
}

static size_t hello_in_datagram(const struct initial_options *options, uint8_t *ret)
{
	return piece(options, 0, hello_build(&plain, message, sizeof(message)), ret);
}

static size_t version_2(uint8_t *ret)
{
	return hello_in_datagram(&(struct initial_options){ .version = QUIC_VERSION_2 }, ret);
}

static size_t two_datagrams(uint8_t *ret)
{
	struct hello_options options = { .names = { "app.example.org" }, .key_share = 1216 };
	size_t len = hello_build(&options, message, sizeof(message));
	size_t n = piece(&(struct initial_options){ .number = 1 }, 1000, len - 1000, ret);

	return n + piece(&(struct initial_options){ .number = 0 }, 0, 1000, ret + n);
}

static size_t many_frames(uint8_t *ret)
{
	size_t len = hello_build(&plain, message, sizeof(message)), n = 0;

	for (size_t at = len; at > 0; at--) {
		frames[n++] = at % 3 ? 1 : 0; /* PING or PADDING */
		n += initial_crypto(at - 1, message + at - 1, 1, frames + n, sizeof(frames) - n);
	}
	return datagram(&(struct initial_options){ 0 }, n, ret);
}

static size_t first_half(uint8_t *ret)
{
	hello_build(&plain, message, sizeof(message));
	return piece(&(struct initial_options){ 0 }, 0, 50, ret);
}

static size_t long_hello(uint8_t *ret)
{
	return datagram(&(struct initial_options){ 0 }, initial_crypto(QUIC_MAX_HELLO, message, 1, frames, sizeof(frames)), ret);
}

static size_t two_stories(uint8_t *ret)
{
	size_t n = first_half(ret);

	message[40] ^= 1;
	return n + piece(&(struct initial_options){ .number = 1 }, 0, 50, ret + n);
}

static size_t other_version(uint8_t *ret)
{
	size_t n = hello_in_datagram(&(struct initial_options){ 0 }, ret);

	ret[3] = 0xff;
	return n;
}

static size_t short_datagram(uint8_t *ret)
{
	return hello_in_datagram(&(struct initial_options){ .pad_to = 1199 }, ret);
}

static size_t damaged(uint8_t *ret)
{
	size_t n = hello_in_datagram(&(struct initial_options){ 0 }, ret);

	ret[n - 100] ^= 1;
	return n;
}

static size_t short_header(uint8_t *ret)
{
	size_t n = hello_in_datagram(&(struct initial_options){ 0 }, ret);

	ret[2] = 0x40;
	return n;
}

static size_t handshake_first(uint8_t *ret)
{
	size_t n = hello_in_datagram(&(struct initial_options){ 0 }, ret);

	ret[2] |= 0x20;
	return n;
}

static size_t short_id(uint8_t *ret)
{
	return hello_in_datagram(&(struct initial_options){ .destination = "1234567", .destination_len = 7 }, ret);
}

static size_t reserved_bits(uint8_t *ret)
{
	return hello_in_datagram(&(struct initial_options){ .reserved = 4 }, ret);
}

static size_t stream_frame(uint8_t *ret)
{
	memcpy(frames, "\x08\x00", 2);
	return datagram(&(struct initial_options){ 0 }, 2, ret);
}

static size_t close_frame(uint8_t *ret)
{
	memcpy(frames, "\x1c\x00\x00\x00", 4);
	return datagram(&(struct initial_options){ 0 }, 4, ret);
}

static const struct row quic[] = {
	{ "a hello in one Initial packet, version 1", .is_quic = true, .hello = { .names = { "app.example.org" }, .alpn = { "h3" } },
	  .happens = "to `app.example.org`" },
	{ "version 2", .is_quic = true, .make = version_2, .happens = "to `app.example.org`" },
	{ "a post-quantum hello in two datagrams, the second first", .is_quic = true, .make = two_datagrams,
	  .happens = "to `app.example.org`" },
	{ "a CRYPTO frame for every byte, the last first, with PING and PADDING between", .is_quic = true, .make = many_frames,
	  .happens = "to `app.example.org`" },
	{ "encrypted ClientHello", .is_quic = true, .hello = { .names = { "app.example.org" }, .ech = 1 },
	  .happens = "to `app.example.org`, ECH" },
	{ "half a hello", .is_quic = true, .make = first_half, .happens = "more" },
	{ "a version that is not known", .is_quic = true, .make = other_version, .happens = "Version Negotiation" },
	{ "no server name", .is_quic = true, .hello = { .alpn = { "h3" } }, .happens = "`no-host`, no answer" },
	{ "two server names", .is_quic = true, .hello = { .names = { "app.example.org", "other.example" } },
	  .happens = "`two-hosts`, no answer" },
	{ "an IP address as server name", .is_quic = true, .hello = { .names = { "192.0.2.1" } },
	  .happens = "`host-address`, no answer" },
	{ "another message than a ClientHello", .is_quic = true, .hello = { .names = { "app.example.org" }, .is_other = true },
	  .happens = "`tls-hello`, no answer" },
	{ "a hello of more than 16 KiB", .is_quic = true, .make = long_hello, .happens = "`too-long`, no answer" },
	{ "two pieces that say different things of the same bytes", .is_quic = true, .make = two_stories,
	  .happens = "`quic-conflict`, no answer" },
	{ "an Initial packet in a datagram of less than 1,200 bytes", .is_quic = true, .make = short_datagram,
	  .happens = "`quic-short`, no answer" },
	{ "first a datagram that does not open", .is_quic = true, .make = damaged, .happens = "`quic-packet`, no answer" },
	{ "first a short header", .is_quic = true, .make = short_header, .happens = "`quic-packet`, no answer" },
	{ "first another packet than an Initial", .is_quic = true, .make = handshake_first, .happens = "`quic-packet`, no answer" },
	{ "a destination ID of less than eight bytes", .is_quic = true, .make = short_id, .happens = "`quic-packet`, no answer" },
	{ "reserved bits that are set", .is_quic = true, .make = reserved_bits, .happens = "`quic-packet`, no answer" },
	{ "a STREAM frame in an Initial", .is_quic = true, .make = stream_frame, .happens = "`quic-packet`, no answer" },
	{ "CONNECTION_CLOSE", .is_quic = true, .make = close_frame, .happens = "`quic-packet`, no answer" },
};

/* ---- rows ------------------------------------------------------------------------------------ */

static size_t bytes_of(const struct row *row, uint8_t *ret)
{
	if (row->make)
		return row->make(ret);
	if (row->is_quic)
		return piece(&(struct initial_options){ 0 }, 0, hello_build(&row->hello, message, sizeof(message)), ret);
	if (row->request.fields[0].name || row->request.block)
		return request_2_build(&row->request, ret, CAP);
	if (!row->text)
		return one_record(ret, &row->hello);
	size_t n = row->text_len > 0 ? row->text_len : strlen(row->text);
	memcpy(ret, row->text, n);
	return n;
}

static void expect(const struct row *row, const uint8_t *bytes, size_t n)
{
	char happens[SNIFFED_MAX_TEXT];

	if (row->is_quic)
		sniffed_quic_text(bytes, n, happens);
	else
		sniffed_text(bytes, n, happens);
	if (strcmp(happens, row->happens) != 0) {
		printf("%s: %s, not %s\n", row->what, happens, row->happens);
		abort();
	}
}

static void test_each_row_is_what_happens(const struct row *rows, size_t n_rows)
{
	static uint8_t bytes[CAP];

	for (size_t i = 0; i < n_rows; i++)
		expect(&rows[i], bytes, bytes_of(&rows[i], bytes));
}

static void test_records_of_any_size_say_the_same(void)
{
	static const size_t sizes[] = { 1, 2, 3, 5, 16, 100, 333, 1000 };
	static uint8_t bytes[CAP];

	for (size_t i = 0; i < ARRAY_LEN(tls); i++) {
		if (tls[i].make)
			continue;
		size_t len = hello_build(&tls[i].hello, message, sizeof(message));
		for (size_t j = 0; j < ARRAY_LEN(sizes); j++)
			expect(&tls[i], bytes, hello_in_records(message, len, sizes[j], bytes, sizeof(bytes)));
	}
}

/* ---- the document ---------------------------------------------------------------------------- */

static char *document_of(const char *path)
{
	static char text[256 * 1024];
	FILE *file = fopen(path, "r");

	assert(file);
	size_t n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	assert(n > 0 && n < sizeof(text) - 1);
	text[n] = '\0';
	return text;
}

static void test_the_document_has_these_rows_and_no_others(char *document, const char *heading, const struct row *rows,
							      size_t n_rows)
{
	char *at = strstr(document, heading), line[512];
	size_t n = 0;

	assert(at);
	at = strstr(at, "\n|---");
	assert(at);
	for (at = strchr(at + 1, '\n') + 1; *at == '|'; at = strchr(at, '\n') + 1, n++) {
		assert(n < n_rows);
		snprintf(line, sizeof(line), "| %s | %s |\n", rows[n].what, rows[n].happens);
		if (strncmp(at, line, strlen(line)) != 0) {
			printf("expected in the document: %s", line);
			abort();
		}
	}
	assert(n == n_rows);
}

static void print(const char *heading, const struct row *rows, size_t n_rows)
{
	printf("%s\n\n| what comes | what happens |\n|---|---|\n", heading + 1);
	for (size_t i = 0; i < n_rows; i++)
		printf("| %s | %s |\n", rows[i].what, rows[i].happens);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *heading;
		const struct row *rows;
		size_t n;
	} tables[] = {
		{ "\n## HTTP/1", http_1, ARRAY_LEN(http_1) },
		{ "\n## TLS", tls, ARRAY_LEN(tls) },
		{ "\n## HTTP/2", http_2, ARRAY_LEN(http_2) },
		{ "\n## QUIC", quic, ARRAY_LEN(quic) },
	};

	if (argc == 1) /* for who writes the document */
		for (size_t i = 0; i < ARRAY_LEN(tables); i++)
			print(tables[i].heading, tables[i].rows, tables[i].n);
	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		test_each_row_is_what_happens(tables[i].rows, tables[i].n);
		if (argc > 1)
			test_the_document_has_these_rows_and_no_others(document_of(argv[1]), tables[i].heading, tables[i].rows,
								      tables[i].n);
	}
	test_records_of_any_size_say_the_same();
	puts("ok");
	return 0;
}
