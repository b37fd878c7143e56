/* What is said to a router over UPnP and what it says: found, described, called; XML read without belief. */
#include "common/macros.h"
#include "common/upnp_wire.h"
#include "common/xml_scan.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct endpoint router(void)
{
	return endpoint_from_v4(0xc0a80101, 0);
}

/* ---- XML ------------------------------------------------------------------------------------- */

/* The tokens of a document, one a word: <open> </close> <empty/> and texts. */
static void expect_tokens(const char *xml, const char *expected)
{
	static const char *const forms[] = { "<%.*s>", "</%.*s>", "%.*s" };
	struct xml_scan scan = xml_scan(xml, strlen(xml));
	struct xml_token token;
	char found[256] = "";
	size_t n = 0;

	while (xml_next(&scan, &token)) {
		const char *form = token.is_empty ? "<%.*s/>" : forms[token.type];
		n += (size_t)snprintf(found + n, sizeof(found) - n, form, (int)token.len, token.at);
	}
	assert(strcmp(found, expected) == 0);
}

static void test_tags_and_texts_come_in_their_order(void)
{
	expect_tokens("<a>b</a>", "<a>b</a>");
	expect_tokens("<?xml version='1.0'?><!DOCTYPE a><s:a x='>' y=\"/>\"><b/></s:a>", "<a><b/></a>");
	expect_tokens("<a><!-- <b> -->c<![CDATA[<d>]]></a >", "<a>c<d></a>");
	expect_tokens("<a href=x/>", "<a/>");
}

static void test_what_is_cut_ends_where_it_is_cut(void)
{
	static const char *const cut[] = { "<",	     "<a",	   "<a:",    "<a b",	 "<a b=",	   "<a b='>", "</",
					   "<!",     "<!--",	   "<!-- >", "<?",	 "<![CDATA[",	   "text",    "<a b='></a>",
					   "<!-- -", "<![CDATA[]", "</a",    "<a/",	 "<![CDATA[x]]" };

	for (size_t i = 0; i < ARRAY_LEN(cut); i++)
		expect_tokens(cut[i], "");
}

static void expect_text(const char *xml, size_t size, int error, const char *expected)
{
	char text[64];

	assert(size <= sizeof(text));
	assert(xml_find_text(xml, strlen(xml), "a", text, size) == error);
	assert(strcmp(text, expected) == 0);
}

static void test_a_text_is_decoded_and_trimmed(void)
{
	expect_text("<x><s:a>\n b &amp;&lt;&gt;&quot;&apos; c \t</s:a></x>", 64, 0, "b &<>\"' c");
	expect_text("<a>1<!-- 2 -->3<![CDATA[&amp;]]></a>", 64, 0, "13&amp;");
	expect_text("<a>&unknown;&#65;&am</a>", 64, 0, "&unknown;&#65;&am");
	expect_text("<a>1</a><a>2</a>", 64, 0, "1");
	expect_text("<a>1<b>2</b></a>", 64, 0, "1");
}

static void test_a_text_that_is_none_or_does_not_fit_is_empty(void)
{
	expect_text("<a/>", 64, -ENOENT, "");
	expect_text("<a> \n </a>", 64, -ENOENT, "");
	expect_text("<b>1</b>", 64, -ENOENT, "");
	expect_text("<a>1", 64, -ENOENT, "");
	expect_text("<a>123</a>", 4, 0, "123");
	expect_text("<a>  123      </a>", 4, 0, "123");
	expect_text("<a>1234</a>", 4, -EMSGSIZE, "");
	expect_text("<a>123   4</a>", 4, -EMSGSIZE, "");
}

/* ---- the search ------------------------------------------------------------------------------ */

static void test_a_search_names_the_group_and_the_version(void)
{
	const struct endpoint group = endpoint_from_v4(UPNP_SEARCH_GROUP, UPNP_SEARCH_PORT);
	char text[UPNP_SEARCH_MAX_LEN];

	assert(upnp_encode_search(text, &group, 2) == strlen(text));
	assert(strcmp(text, "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n"
			    "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\n\r\n") == 0);
}

#define ST "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"

static void test_only_a_gateway_whose_description_is_on_the_router_is_found(void)
{
	static const struct {
		const char *answer;
		int result;
	} answers[] = {
		{ "HTTP/1.1 200 OK\r\nLocation: http://192.168.1.1:5000/desc.xml\r\n" ST "\r\n", 0 },
		{ "HTTP/1.1 200 OK\r\nLOCATION: http://198.51.100.1:5000/desc.xml\r\n" ST "\r\n", -EXDEV },
		{ "HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1.example.org/\r\n" ST "\r\n", -EPROTO },
		{ "HTTP/1.1 200 OK\r\nLOCATION: https://192.168.1.1/\r\n" ST "\r\n", -EPROTO },
		{ "HTTP/1.1 200 OK\r\n" ST "\r\n", -EPROTO },
		{ "HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/\r\nST: upnp:rootdevice\r\n\r\n", -EPROTO },
		{ "HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/\r\n\r\n", -EPROTO },
		{ "HTTP/1.1 404 Not Found\r\nLOCATION: http://192.168.1.1:5000/\r\n" ST "\r\n", -EPROTO },
		{ "NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1:5000/\r\n" ST "\r\n", -EPROTO },
		{ "HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/desc.xml\r\n" ST, -EPROTO },
		{ "", -EPROTO },
	};
	const struct endpoint from = router();
	struct http_url url = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(answers); i++)
		assert(upnp_decode_found(answers[i].answer, strlen(answers[i].answer), &from, &url) == answers[i].result);
	assert(strcmp(endpoint_text(&url.host).s, "192.168.1.1:5000") == 0 && strcmp(url.path, "/desc.xml") == 0);
}

/* ---- the description ------------------------------------------------------------------------- */

#define SERVICE(type, url) \
	"<service><serviceType>urn:schemas-upnp-org:service:" type "</serviceType><controlURL>" url "</controlURL></service>"

static int describe(const char *xml, struct upnp_services *ret)
{
	struct http_url location = { .host = router(), .path = "/a/desc.xml" };

	location.host.port = 5000;
	return upnp_decode_description(xml, strlen(xml), &location, ret);
}

static void expect_service(const struct upnp_service *service, enum upnp_service_type type, const char *host,
			   const char *path)
{
	assert(service->type == type);
	assert(strcmp(endpoint_text(&service->control.host).s, host) == 0);
	assert(strcmp(service->control.path, path) == 0);
}

static void test_the_services_that_forward_ports_are_found(void)
{
	struct upnp_services services;

	assert(describe("<root><device>" SERVICE("Layer3Forwarding:1", "/l3f") SERVICE("WANIPConnection:1", "ip?a=1&amp;b=2")
			"<device><x:service><controlURL> http://192.168.1.1:80/ppp </controlURL>"
			"<serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType></x:service>"
			SERVICE("WANIPConnection:2", "/ip2") SERVICE("WANIPConnection:3", "/ip3"),
			&services) == 0);
	assert(services.n == 3);
	expect_service(&services.all[0], UPNP_WAN_IP_1, "192.168.1.1:5000", "/a/ip?a=1&b=2");
	expect_service(&services.all[1], UPNP_WAN_PPP_1, "192.168.1.1:80", "/ppp");
	expect_service(&services.all[2], UPNP_WAN_IP_2, "192.168.1.1:5000", "/ip2");
}

static void test_a_base_counts_only_on_the_router(void)
{
	struct upnp_services services;

	assert(describe("<URLBase>http://192.168.1.1:49000/b/</URLBase>" SERVICE("WANIPConnection:1", "ip"), &services) == 0);
	expect_service(&services.all[0], UPNP_WAN_IP_1, "192.168.1.1:49000", "/b/ip");
	assert(describe("<URLBase>http://198.51.100.1/b/</URLBase>" SERVICE("WANIPConnection:1", "ip"), &services) == 0);
	expect_service(&services.all[0], UPNP_WAN_IP_1, "192.168.1.1:5000", "/a/ip");
}

static void test_a_service_on_another_host_is_left_out(void)
{
	struct upnp_services services;

	assert(describe(SERVICE("WANIPConnection:1", "http://198.51.100.1/ip"), &services) == -EXDEV);
	assert(describe(SERVICE("WANIPConnection:1", "http://198.51.100.1/ip") SERVICE("WANIPConnection:1", "/ip"),
			&services) == 0);
	assert(services.n == 1);
	expect_service(&services.all[0], UPNP_WAN_IP_1, "192.168.1.1:5000", "/ip");
}

static void test_a_description_without_such_a_service_has_none(void)
{
	static const char *const none[] = {
		"",
		"no XML",
		SERVICE("Layer3Forwarding:1", "/l3f"),
		SERVICE("WANIPConnection:1", "//198.51.100.1/ip"),
		SERVICE("WANIPConnection:1", "javascript:ip"),
		SERVICE("WANIPConnection:1", "/ip\r\nX: y"),
		SERVICE("WANIPConnection:1", ""),
		"<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType></service>",
		("<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType></service>"
		 "<service><controlURL>/ip</controlURL></service>"),
		"<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ip",
	};
	struct upnp_services services;

	for (size_t i = 0; i < ARRAY_LEN(none); i++)
		assert(describe(none[i], &services) == -ENOENT && services.n == 0);
}

static void test_more_services_than_there_is_room_for_are_left_out(void)
{
	char xml[UPNP_MAX_SERVICES * 4 * 256] = "";
	struct upnp_services services;

	for (int i = 0; i < UPNP_MAX_SERVICES * 2; i++)
		strcat(xml, SERVICE("WANIPConnection:1", "/ip"));
	assert(describe(xml, &services) == 0 && services.n == UPNP_MAX_SERVICES);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static struct upnp_service service_of(const char *path)
{
	struct upnp_service service = { .type = UPNP_WAN_IP_1, .control = { .host = endpoint_from_v4(0xc0a80101, 5000) } };

	strcpy(service.control.path, path);
	return service;
}

/* The text has one of these, and its content length is right. */
static void expect_call(const char *text, const char *const *parts, size_t n)
{
	const char *body = strstr(text, "\r\n\r\n") + 4, *at = strstr(text, "Content-Length: ");
	size_t len;

	assert(at && sscanf(at, "Content-Length: %zu", &len) == 1 && len == strlen(body));
	for (size_t i = 0; i < n; i++)
		assert(strstr(text, parts[i]));
}

static void test_a_call_names_the_service_and_has_a_whole_body(void)
{
	static const char *const add[] = {
		"POST /ip HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n",
		"SOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"\r\n",
		"<NewExternalPort>40001</NewExternalPort><NewProtocol>UDP</NewProtocol>",
		"<NewInternalPort>40000</NewInternalPort><NewInternalClient>192.168.1.7</NewInternalClient>",
		"<NewLeaseDuration>7200</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>",
	};
	static const char *const delete[] = {
		"#DeletePortMapping\"\r\n",
		"<NewRemoteHost></NewRemoteHost><NewExternalPort>40001</NewExternalPort><NewProtocol>UDP</NewProtocol>",
	};
	static const char *const external[] = { "#GetExternalIPAddress\"\r\n", "></u:GetExternalIPAddress>" };
	const struct upnp_service service = service_of("/ip");
	const struct upnp_mapping mapping = { endpoint_from_v4(0xc0a80107, 40000), 40001, 7200 };
	char text[UPNP_CALL_MAX_LEN];

	assert(upnp_encode_add(text, &service, &mapping) == strlen(text));
	expect_call(text, add, ARRAY_LEN(add));
	assert(upnp_encode_delete(text, &service, 40001) == strlen(text));
	expect_call(text, delete, ARRAY_LEN(delete));
	assert(upnp_encode_external(text, &service) == strlen(text));
	expect_call(text, external, ARRAY_LEN(external));
}

static void test_the_longest_call_fits(void)
{
	struct upnp_service service = service_of("/");
	const struct upnp_mapping mapping = { endpoint_from_v4(UINT32_MAX, UINT16_MAX), UINT16_MAX, UINT32_MAX };
	char text[UPNP_CALL_MAX_LEN];

	memset(service.control.path, '/', sizeof(service.control.path) - 1);
	service.control.host = endpoint_from_v4(UINT32_MAX, UINT16_MAX);
	service.type = UPNP_WAN_PPP_1;
	assert(upnp_encode_add(text, &service, &mapping) < sizeof(text));
	expect_call(text, NULL, 0);
	assert(upnp_encode_get(text, &service.control) == strlen(text));
}

static unsigned error_in(const char *xml)
{
	return upnp_decode_error(xml, strlen(xml));
}

static void test_an_error_is_a_small_number_with_a_name(void)
{
	assert(error_in("<s:Fault><detail><UPnPError><errorCode>718</errorCode></UPnPError></detail></s:Fault>") == 718);
	assert(error_in("<errorCode> 9999 </errorCode>") == 9999);
	assert(error_in("<errorCode>0</errorCode>") == 0);
	assert(error_in("<errorCode>-718</errorCode>") == 0);
	assert(error_in("<errorCode>10000</errorCode>") == 0);
	assert(error_in("<errorCode>71x</errorCode>") == 0);
	assert(error_in("<errorCode>99999999999999999999999</errorCode>") == 0);
	assert(error_in("<errorCode/>") == 0);
	assert(error_in("") == 0);
	assert(strcmp(upnp_error_name(718), "ConflictInMappingEntry") == 0);
	assert(strcmp(upnp_error_name(9999), "unknown error") == 0);
}

static int external(const char *address, struct endpoint *ret)
{
	char xml[256];

	snprintf(xml, sizeof(xml), "<u:R><NewExternalIPAddress>%s</NewExternalIPAddress></u:R>", address);
	return upnp_decode_external(xml, strlen(xml), ret);
}

static void test_an_external_address_is_one_of_ipv4(void)
{
	struct endpoint ret;

	assert(external(" 203.0.113.5\n", &ret) == 0 && strcmp(endpoint_ip_text(&ret).s, "203.0.113.5") == 0);
	assert(external("0.0.0.0", &ret) == -ENETUNREACH);
	assert(external("", &ret) == -EPROTO);
	assert(external("2001:db8::1", &ret) == -EPROTO);
	assert(external("203.0.113.5:80", &ret) == -EPROTO);
	assert(external("203.0.113.5555555555555", &ret) == -EPROTO);
	assert(external("router.local", &ret) == -EPROTO);
}

int main(void)
{
	test_tags_and_texts_come_in_their_order();
	test_what_is_cut_ends_where_it_is_cut();
	test_a_text_is_decoded_and_trimmed();
	test_a_text_that_is_none_or_does_not_fit_is_empty();
	test_a_search_names_the_group_and_the_version();
	test_only_a_gateway_whose_description_is_on_the_router_is_found();
	test_the_services_that_forward_ports_are_found();
	test_a_base_counts_only_on_the_router();
	test_a_service_on_another_host_is_left_out();
	test_a_description_without_such_a_service_has_none();
	test_more_services_than_there_is_room_for_are_left_out();
	test_a_call_names_the_service_and_has_a_whole_body();
	test_the_longest_call_fits();
	test_an_error_is_a_small_number_with_a_name();
	test_an_external_address_is_one_of_ipv4();
	puts("ok");
	return 0;
}
