#include "common/upnp_wire.h"

#include "common/xml_scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char gateway[] = "urn:schemas-upnp-org:device:InternetGatewayDevice:";

static const char *const service_names[UPNP_N_SERVICE_TYPES] = {
	[UPNP_WAN_IP_2] = "urn:schemas-upnp-org:service:WANIPConnection:2",
	[UPNP_WAN_IP_1] = "urn:schemas-upnp-org:service:WANIPConnection:1",
	[UPNP_WAN_PPP_1] = "urn:schemas-upnp-org:service:WANPPPConnection:1",
};

/* ---- finding it ------------------------------------------------------------------------------ */

size_t upnp_encode_search(char *ret, const struct endpoint *to, unsigned version)
{
	int n = snprintf(ret, UPNP_SEARCH_MAX_LEN,
			 "M-SEARCH * HTTP/1.1\r\n"
			 "HOST: %s\r\n"
			 "MAN: \"ssdp:discover\"\r\n"
			 "MX: %d\r\n"
			 "ST: %s%u\r\n"
			 "\r\n",
			 endpoint_text(to).s, UPNP_SEARCH_WAIT_S, gateway, version);

	return (size_t)n;
}

static bool is_on(const struct http_url *url, const struct endpoint *router)
{
	return memcmp(url->host.ip, router->ip, sizeof(router->ip)) == 0;
}

int upnp_decode_found(const char *bytes, size_t len, const struct endpoint *router, struct http_url *ret)
{
	struct http_answer answer;
	struct http_url url;
	size_t n;

	if (http_answer_parse(bytes, len, &answer) != 0 || answer.status != 200)
		return -EPROTO;
	const char *what = http_header_find(bytes, answer.head_len, "ST", &n);
	if (!what || n <= strlen(gateway) || strncasecmp(what, gateway, strlen(gateway)) != 0)
		return -EPROTO;
	const char *location = http_header_find(bytes, answer.head_len, "LOCATION", &n);
	if (!location || http_url_parse(location, n, &url) != 0)
		return -EPROTO;
	if (!is_on(&url, router))
		return -EXDEV;
	*ret = url;
	return 0;
}

/* ---- what it offers -------------------------------------------------------------------------- */

/* What is told of one service, until its end. */
struct told {
	char type[64], control[HTTP_URL_MAX_PATH];
};

static int type_of(const char *name)
{
	for (int i = 0; i < UPNP_N_SERVICE_TYPES; i++)
		if (strcmp(name, service_names[i]) == 0)
			return i;
	return -ENOENT;
}

static int add_service(const struct told *told, const struct http_url *base, struct upnp_services *ret)
{
	int type = type_of(told->type);
	struct http_url control;

	if (type < 0 || http_url_resolve(base, told->control, strlen(told->control), &control) != 0)
		return 0;
	if (!is_on(&control, &base->host))
		return -EXDEV;
	if (ret->n < UPNP_MAX_SERVICES)
		ret->all[ret->n++] = (struct upnp_service){ .type = (enum upnp_service_type)type, .control = control };
	return 0;
}

/* Version 1 may say with what its relative URLs begin; believed only of the router itself. */
static struct http_url base_of(const char *xml, size_t len, const struct http_url *location)
{
	char text[HTTP_URL_MAX_PATH];
	struct http_url base;

	if (xml_find_text(xml, len, "URLBase", text, sizeof(text)) == 0 &&
	    http_url_parse(text, strlen(text), &base) == 0 && is_on(&base, &location->host))
		return base;
	return *location;
}

int upnp_decode_description(const char *xml, size_t len, const struct http_url *location, struct upnp_services *ret)
{
	struct http_url base = base_of(xml, len, location);
	struct xml_scan scan = xml_scan(xml, len);
	struct xml_token token;
	struct told told = { 0 };
	int r = -ENOENT;

	*ret = (struct upnp_services){ 0 };
	while (xml_next(&scan, &token)) {
		if (xml_is(&token, XML_OPEN, "service")) {
			told = (struct told){ 0 };
		} else if (xml_is(&token, XML_OPEN, "serviceType") && !token.is_empty) {
			xml_text(&scan, told.type, sizeof(told.type));
		} else if (xml_is(&token, XML_OPEN, "controlURL") && !token.is_empty) {
			xml_text(&scan, told.control, sizeof(told.control));
		} else if (xml_is(&token, XML_CLOSE, "service")) {
			if (add_service(&told, &base, ret) == -EXDEV)
				r = -EXDEV;
			told = (struct told){ 0 };
		}
	}
	return ret->n > 0 ? 0 : r;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static size_t encode_call(char *ret, const struct upnp_service *service, const char *action, const char *arguments)
{
	char body[UPNP_CALL_MAX_LEN];
	const char *type = service_names[service->type];
	int body_len = snprintf(body, sizeof(body),
				"<?xml version=\"1.0\"?>\r\n"
				"<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\""
				" s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\">"
				"<s:Body><u:%s xmlns:u=\"%s\">%s</u:%s></s:Body></s:Envelope>\r\n",
				action, type, arguments, action);
	int n = snprintf(ret, UPNP_CALL_MAX_LEN,
			 "POST %s HTTP/1.1\r\n"
			 "Host: %s\r\n"
			 "Content-Type: text/xml; charset=\"utf-8\"\r\n"
			 "SOAPAction: \"%s#%s\"\r\n"
			 "Content-Length: %d\r\n"
			 "Connection: close\r\n"
			 "\r\n"
			 "%s",
			 service->control.path, endpoint_text(&service->control.host).s, type, action, body_len, body);

	return (size_t)n;
}

size_t upnp_encode_add(char *ret, const struct upnp_service *service, const struct upnp_mapping *mapping)
{
	char arguments[640];

	snprintf(arguments, sizeof(arguments),
		 "<NewRemoteHost></NewRemoteHost>"
		 "<NewExternalPort>%u</NewExternalPort>"
		 "<NewProtocol>UDP</NewProtocol>"
		 "<NewInternalPort>%u</NewInternalPort>"
		 "<NewInternalClient>%s</NewInternalClient>"
		 "<NewEnabled>1</NewEnabled>"
		 "<NewPortMappingDescription>p2pnode</NewPortMappingDescription>"
		 "<NewLeaseDuration>%u</NewLeaseDuration>",
		 mapping->external_port, mapping->ours.port, endpoint_ip_text(&mapping->ours).s, mapping->lifetime_s);
	return encode_call(ret, service, "AddPortMapping", arguments);
}

size_t upnp_encode_delete(char *ret, const struct upnp_service *service, uint16_t external_port)
{
	char arguments[192];

	snprintf(arguments, sizeof(arguments),
		 "<NewRemoteHost></NewRemoteHost>"
		 "<NewExternalPort>%u</NewExternalPort>"
		 "<NewProtocol>UDP</NewProtocol>",
		 external_port);
	return encode_call(ret, service, "DeletePortMapping", arguments);
}

size_t upnp_encode_external(char *ret, const struct upnp_service *service)
{
	return encode_call(ret, service, "GetExternalIPAddress", "");
}

size_t upnp_encode_get(char *ret, const struct http_url *url)
{
	int n = snprintf(ret, UPNP_CALL_MAX_LEN,
			 "GET %s HTTP/1.1\r\n"
			 "Host: %s\r\n"
			 "Connection: close\r\n"
			 "\r\n",
			 url->path, endpoint_text(&url->host).s);

	return (size_t)n;
}

unsigned upnp_decode_error(const char *xml, size_t len)
{
	char text[8];
	char *end;

	if (xml_find_text(xml, len, "errorCode", text, sizeof(text)) != 0)
		return 0;
	long code = strtol(text, &end, 10);
	return *end == '\0' && code > 0 && code <= 9999 ? (unsigned)code : 0;
}

const char *upnp_error_name(unsigned code)
{
	static const struct {
		unsigned code;
		const char *name;
	} names[] = {
		{ 401, "Invalid Action" },
		{ 402, "Invalid Args" },
		{ 501, "Action Failed" },
		{ 600, "Argument Value Invalid" },
		{ 601, "Argument Value Out of Range" },
		{ 602, "Optional Action Not Implemented" },
		{ 603, "Out of Memory" },
		{ 604, "Human Intervention Required" },
		{ 605, "String Argument Too Long" },
		{ 606, "Action Not Authorized" },
		{ UPNP_E_NO_SUCH_ENTRY, "NoSuchEntryInArray" },
		{ 715, "WildCardNotPermittedInSrcIP" },
		{ 716, "WildCardNotPermittedInExtPort" },
		{ UPNP_E_CONFLICT, "ConflictInMappingEntry" },
		{ 724, "SamePortValuesRequired" },
		{ UPNP_E_PERMANENT_ONLY, "OnlyPermanentLeasesSupported" },
		{ 726, "RemoteHostOnlySupportsWildcard" },
		{ 727, "ExternalPortOnlySupportsWildcard" },
		{ 728, "NoPortMapsAvailable" },
		{ UPNP_E_MECHANISM, "ConflictWithOtherMechanisms" },
		{ 732, "WildCardNotPermittedInIntPort" },
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].code == code)
			return names[i].name;
	return "unknown error";
}

int upnp_decode_external(const char *xml, size_t len, struct endpoint *ret)
{
	char text[sizeof("255.255.255.255")];
	struct endpoint external;

	if (xml_find_text(xml, len, "NewExternalIPAddress", text, sizeof(text)) != 0 ||
	    endpoint_parse_ip(text, 0, &external) != 0 || !endpoint_is_v4(&external))
		return -EPROTO;
	const struct endpoint nowhere = endpoint_from_v4(0, 0);
	if (endpoint_equal(&external, &nowhere))
		return -ENETUNREACH;
	*ret = external;
	return 0;
}
