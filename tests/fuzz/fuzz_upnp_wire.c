/*
 * Target: what a router says over UPnP: upnp_decode_found, upnp_decode_description, upnp_decode_error,
 * upnp_decode_external, xml_next. Nothing leads to another host than the router, and what it offers can be called.
 */
#include "common/upnp_wire.h"
#include "common/xml_scan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
	if (!condition)
		abort();
}

static void check_url(const struct http_url *url, const struct endpoint *router)
{
	expect(memcmp(url->host.ip, router->ip, sizeof(router->ip)) == 0 && url->host.port != 0);
	expect(url->path[0] == '/' && strlen(url->path) < sizeof(url->path));
}

static void check_description(const char *xml, size_t len, const struct endpoint *router)
{
	const struct http_url location = { .host = *router, .path = "/desc/root.xml" };
	struct upnp_services services;
	char call[UPNP_CALL_MAX_LEN];

	if (upnp_decode_description(xml, len, &location, &services) != 0)
		return;
	expect(services.n > 0 && services.n <= UPNP_MAX_SERVICES);
	for (unsigned i = 0; i < services.n; i++) {
		const struct upnp_mapping mapping = { *router, UINT16_MAX, UINT32_MAX };
		check_url(&services.all[i].control, router);
		expect(upnp_encode_add(call, &services.all[i], &mapping) < sizeof(call));
	}
}

static void check_tokens(const char *xml, size_t len)
{
	struct xml_scan scan = xml_scan(xml, len);
	struct xml_token token;
	size_t n = 0;

	while (xml_next(&scan, &token)) {
		expect(token.at >= xml && token.at + token.len <= xml + len);
		expect(++n <= len);
	}
	expect(scan.at <= scan.end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct endpoint router = endpoint_from_v4(0xc0a80101, 5000);
	const char *bytes = (const char *)data;
	struct endpoint external;
	struct http_url url;

	if (upnp_decode_found(bytes, size, &router, &url) == 0)
		check_url(&url, &router);
	check_description(bytes, size, &router);
	check_tokens(bytes, size);
	expect(upnp_decode_error(bytes, size) <= 9999);
	if (upnp_decode_external(bytes, size, &external) == 0)
		expect(endpoint_is_v4(&external) && external.port == 0);
	return 0;
}
