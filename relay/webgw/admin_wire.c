#include "relay/webgw/admin_wire.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOSTS	  "/api/v1/proxy"
#define CLIENTS	  "/api/v1/clients"
#define MAX_COUNT UINT64_C(999999999999999) /* that every JSON library has exactly */

/* ---- what is asked ---- */

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "%2A.example.org": what some clients make of a star. */
static int read_host(const char *text, struct host_pattern *ret)
{
	char name[HOST_NAME_MAX_LEN + 3];
	size_t n = 0;

	for (; *text != '\0' && n < sizeof(name); text++) {
		if (*text != '%') {
			name[n++] = *text;
			continue;
		}
		const int high = digit_of(text[1]), low = high < 0 ? -1 : digit_of(text[2]);
		if (low < 0)
			return -EINVAL;
		name[n++] = (char)(high << 4 | low);
		text += 2;
	}
	return *text == '\0' && host_pattern_from(name, n, ret) == 0 ? 0 : -EINVAL;
}

static bool is_get(const struct http_request *http)
{
	return http->method == HTTP_GET || http->method == HTTP_HEAD;
}

static int refuse_method(const char *allow, const char **ret_allow, struct error *reterr)
{
	*ret_allow = allow;
	return error_set(reterr, 405, "here are these methods: %s", allow);
}

static int take_host(const struct json *root, struct webgw_admin_request *request, struct error *reterr)
{
	const char *host, *hash;

	if (!json_is_object(root) || json_get_string(root, "host", &host, reterr) != 0 ||
	    json_get_string(root, "hexSecretHash", &hash, reterr) != 0)
		return error_set(reterr, 400, "the body is to be {\"host\": \"www.example.com\", \"hexSecretHash\": \"...\"}");
	const int r = host_pattern_from(host, strlen(host), &request->host);
	if (r != 0)
		return error_set(reterr, 400, "host: no name such as www.example.com: %s", host_name_error_text(r));
	if (webgw_hash_read(hash, strlen(hash), request->hash) != 0)
		return error_set(reterr, 400, "hexSecretHash: the SHA-256 of the secret, 64 hex digits");
	const struct json *balance = json_member(root, "balance");
	const char *text = json_text(balance);
	request->has_balance = balance != NULL;
	if (balance && (!text || webgw_balance_read(text, strlen(text), &request->balance) != 0))
		return error_set(reterr, 400, "balance: \"least-connections\" or \"round-robin\"");
	return 0;
}

static int read_add(const char *body, size_t len, struct webgw_admin_request *request, struct error *reterr)
{
	const struct json_limits limits = { .max_len = 1024, .max_depth = 4, .max_members = 16 };
	struct error why = { 0 };
	struct json *root = NULL;

	if (json_parse(body, len, &limits, &root, &why) != 0)
		return error_set(reterr, 400, "the body is no JSON: %s", why.message);
	request->what = WEBGW_ADMIN_ADD;
	const int r = take_host(root, request, reterr);
	json_free(root);
	return r;
}

static int read_one(const struct http_request *http, const char *name, struct webgw_admin_request *request,
		    const char **ret_allow, struct error *reterr)
{
	/* A path that was cut might name another host. */
	if (strlen(http->path) == sizeof(http->path) - 1 || read_host(name, &request->host) != 0)
		return error_set(reterr, 404, "that cannot be a host's name");
	if (!is_get(http) && http->method != HTTP_DELETE)
		return refuse_method("GET, HEAD, DELETE", ret_allow, reterr);
	request->what = is_get(http) ? WEBGW_ADMIN_HOST : WEBGW_ADMIN_REMOVE;
	return 0;
}

int webgw_admin_read(const struct http_request *http, const char *body, size_t len, struct webgw_admin_request *ret,
		     const char **ret_allow, struct error *reterr)
{
	*ret = (struct webgw_admin_request){ 0 };
	*ret_allow = NULL;
	if (strncmp(http->path, HOSTS "/", strlen(HOSTS "/")) == 0)
		return read_one(http, http->path + strlen(HOSTS "/"), ret, ret_allow, reterr);
	if (strcmp(http->path, CLIENTS) == 0) {
		ret->what = WEBGW_ADMIN_CLIENTS;
		return is_get(http) ? 0 : refuse_method("GET, HEAD", ret_allow, reterr);
	}
	if (strcmp(http->path, HOSTS) != 0)
		return error_set(reterr, 404, "there are " HOSTS ", " HOSTS "/HOST and " CLIENTS);
	if (http->method == HTTP_POST)
		return read_add(body, len, ret, reterr);
	ret->what = WEBGW_ADMIN_HOSTS;
	return is_get(http) ? 0 : refuse_method("GET, HEAD, POST", ret_allow, reterr);
}

/* ---- what is answered: the original's members first ---- */

static void put_count(struct json *object, const char *key, uint64_t n)
{
	json_put_integer(object, key, (int64_t)(n < MAX_COUNT ? n : MAX_COUNT));
}

static void put_host(struct json *object, const struct host_pattern *host)
{
	char text[HOST_NAME_MAX_LEN + 3];

	snprintf(text, sizeof(text), "%s%s", host->is_wildcard ? "*." : "", host->name.text);
	json_put_string(object, "host", text);
}

struct json *webgw_admin_host_json(const struct webgw_admin_host *host)
{
	char hex[2 * WEBGW_HASH_LEN + 1];
	struct json *object = json_object();

	put_host(object, &host->host);
	sodium_bin2hex(hex, sizeof(hex), host->hash, sizeof(host->hash));
	json_put_string(object, "hexSecretHash", host->is_members ? "" : hex);
	put_count(object, "read", host->read);
	put_count(object, "written", host->written);
	put_count(object, "visitors", host->visitors);
	put_count(object, "visitorsNow", host->visitors_now);
	put_count(object, "clients", host->n_clients);
	json_put_string(object, "balance", webgw_balance_text(host->balance));
	return object;
}

struct json *webgw_admin_client_json(const struct subscription_facts *facts, const struct endpoint *remote,
				     uint64_t connected_s)
{
	struct json *object = json_object();

	put_host(object, facts->host);
	json_put_string(object, "address", endpoint_text(remote).s);
	json_put_integer(object, "subscription", facts->id);
	put_count(object, "connectedSeconds", connected_s);
	put_count(object, "waiting", facts->n_waiting);
	put_count(object, "open", facts->n_open);
	put_count(object, "dialled", facts->n_dialled);
	put_count(object, "unanswered", facts->n_unanswered);
	json_put_boolean(object, "resting", facts->is_resting);
	return object;
}

char *webgw_admin_print_error(const char *message)
{
	struct json *object = json_object();

	json_put_string(object, "error", message);
	char *text = json_print(object);
	json_free(object);
	return text;
}
