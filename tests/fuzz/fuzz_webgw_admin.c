/* Target: all that a request to webgw's HTTP interface goes through. What is understood names a host, or all of them. */
#include "relay/webgw/admin_wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int status, const struct webgw_admin_request *request, const char *allow, const struct error *error)
{
	struct host_pattern again;
	char text[HOST_NAME_MAX_LEN + 3];

	assert(status == 0 || status == 400 || status == 404 || status == 405);
	assert((status == 405) == (allow != NULL) && (status == 0 || error->message[0] != '\0'));
	if (status != 0 || request->what == WEBGW_ADMIN_HOSTS || request->what == WEBGW_ADMIN_CLIENTS)
		return;
	snprintf(text, sizeof(text), "%s%s", request->host.is_wildcard ? "*." : "", request->host.name.text);
	assert(host_pattern_from(text, strlen(text), &again) == 0 && memcmp(&again, &request->host, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data, *body = NULL, *allow = NULL;
	struct webgw_admin_request request;
	struct error error = { 0 };
	struct http_request http;
	size_t len = 0;

	if (http_request_parse(bytes, size, &http) != 0)
		return 0;
	const int r = http_request_body(bytes, size, 1024, &body, &len);
	assert(r >= 0);
	if (r != 0)
		return 0;
	assert(len <= 1024 && body >= bytes && body + len <= bytes + size);
	const int status = webgw_admin_read(&http, body, len, &request, &allow, &error);
	check(status, &request, allow, &error);
	char *text = webgw_admin_print_error(error.message);
	free(text);
	return 0;
}
