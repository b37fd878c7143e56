#include "relay/webgw/webgw_admin.h"

#include "common/file.h"
#include "common/log.h"
#include "relay/http_server.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODULE "webgw"

struct webgw_admin {
	struct webgw_admin_options options;
	struct http_server *server;
	void (*stopped)(void *owner);
	void *stopped_owner;
};

static void answer_take(struct http_page *page, struct json *json)
{
	page->status = 200;
	page->text = json_print(json);
	json_free(json);
}

static void refuse(struct http_page *page, int status, const char *message)
{
	page->status = status;
	page->text = webgw_admin_print_error(message);
}

static struct json *list_hosts(const struct webgw *webgw)
{
	struct json *list = json_array();
	struct webgw_admin_host host;

	for (uint32_t i = 0; webgw_host_facts(webgw, i, &host); i++)
		json_append(list, webgw_admin_host_json(&host));
	return list;
}

static void show_host(const struct webgw_admin *admin, const struct host_pattern *which, struct http_page *page)
{
	struct webgw_admin_host host;

	if (webgw_find_host(admin->options.webgw, which, &host))
		answer_take(page, webgw_admin_host_json(&host));
	else
		refuse(page, 404, "there is no such host");
}

/* Kept, or as it was before. */
static void keep_added(struct webgw_admin *admin, const struct webgw_admin_request *request,
		       const struct webgw_admin_host *before, struct http_page *page)
{
	const struct webgw_admin_options *options = &admin->options;
	struct error error;

	if (options->changed(options->owner, &error) == 0) {
		log_info(MODULE, "%s%s: a host", request->host.is_wildcard ? "*." : "", request->host.name.text);
		show_host(admin, &request->host, page);
		return;
	}
	if (before)
		(void)webgw_set_balance(options->webgw, &request->host, before->balance);
	else
		(void)webgw_remove_host(options->webgw, &request->host);
	(void)!options->changed(options->owner, &(struct error){ 0 }); /* the front door forgets it, too */
	refuse(page, 500, error.message);
}

static void add_host(struct webgw_admin *admin, const struct webgw_admin_request *request, struct http_page *page)
{
	const struct webgw_admin_options *options = &admin->options;
	const char *taken = options->taken(options->owner, &request->host);
	struct webgw_admin_host before;
	const bool was_there = webgw_find_host(options->webgw, &request->host, &before);

	if (taken) {
		refuse(page, 409, taken);
		return;
	}
	switch (webgw_add_host(options->webgw, &request->host, request->hash)) {
	case 0:
		if (request->has_balance)
			(void)webgw_set_balance(options->webgw, &request->host, request->balance);
		keep_added(admin, request, was_there ? &before : NULL, page);
		return;
	case -EEXIST:
		refuse(page, 409, "the host is there with another hash: remove it first");
		return;
	default:
		refuse(page, 503, "there are too many hosts: remove one first");
	}
}

static void remove_host(struct webgw_admin *admin, const struct host_pattern *host, struct http_page *page)
{
	const struct webgw_admin_options *options = &admin->options;
	struct error error;

	if (!webgw_remove_host(options->webgw, host)) {
		page->status = 204;
		return;
	}
	log_info(MODULE, "%s%s: no longer a host", host->is_wildcard ? "*." : "", host->name.text);
	if (options->changed(options->owner, &error) == 0)
		answer_take(page, json_object());
	else
		refuse(page, 500, error.message);
}

static void on_request(void *owner, const struct http_request *http, const char *body, size_t len, struct http_page *page)
{
	struct webgw_admin *admin = owner;
	struct webgw_admin_request request;
	struct error error = { 0 };
	const int status = webgw_admin_read(http, body, len, &request, &page->allow, &error);

	page->type = "application/json";
	if (status != 0)
		refuse(page, status, error.message);
	else if (request.what == WEBGW_ADMIN_HOSTS)
		answer_take(page, list_hosts(admin->options.webgw));
	else if (request.what == WEBGW_ADMIN_CLIENTS)
		answer_take(page, webgw_list_clients(admin->options.webgw));
	else if (request.what == WEBGW_ADMIN_HOST)
		show_host(admin, &request.host, page);
	else if (request.what == WEBGW_ADMIN_ADD)
		add_host(admin, &request, page);
	else
		remove_host(admin, &request.host, page);
}

static int make_folder_of(const char *path, struct error *reterr)
{
	const char *slash = strrchr(path, '/');
	char folder[PATH_MAX];

	if (!slash || slash == path)
		return 0;
	snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	return file_make_folder(folder, 0755, reterr);
}

int webgw_admin_start(const struct webgw_admin_options *options, struct webgw_admin **ret, struct error *reterr)
{
	struct webgw_admin *admin = calloc(1, sizeof(*admin));
	const struct http_server_options http = {
		.loop = options->loop,
		.path = options->path,
		.choose = "choose another path: admin in [webgw]",
		.owner = admin,
		.request = on_request,
		.failure = webgw_admin_print_error,
	};

	if (!admin)
		abort();
	admin->options = *options;
	int r = make_folder_of(options->path, reterr);
	if (r == 0)
		r = http_server_start(&http, &admin->server, reterr);
	if (r != 0) {
		free(admin);
		return r;
	}
	log_info(MODULE, "hosts are administered at %s", options->path);
	*ret = admin;
	return 0;
}

static void on_stopped(void *owner)
{
	struct webgw_admin *admin = owner;
	void (*stopped)(void *owner) = admin->stopped;
	void *stopped_owner = admin->stopped_owner;

	free(admin);
	stopped(stopped_owner);
}

void webgw_admin_stop(struct webgw_admin *admin, void (*cb)(void *owner), void *owner)
{
	admin->stopped = cb;
	admin->stopped_owner = owner;
	http_server_stop(admin->server, on_stopped, admin);
}
