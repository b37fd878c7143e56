#include "relay/webgw/agent_targets.h"

#include <stdio.h>
#include <string.h>

bool webgw_agent_targets_want_visitors(const struct webgw_agent_targets *targets)
{
	return targets->http_header != DOOR_NO_HEADER || targets->https_header != DOOR_NO_HEADER;
}

static const char *header_text(enum door_header header)
{
	static const char *const texts[] = { [DOOR_NO_HEADER] = "", [DOOR_HEADER_V1] = " proxy=v1", [DOOR_HEADER_V2] = " proxy=v2" };

	return texts[header];
}

void webgw_agent_targets_text(const struct webgw_agent_targets *targets, char ret[WEBGW_AGENT_TARGETS_LEN + 1])
{
	const struct endpoint_text http = endpoint_text(&targets->http), https = endpoint_text(&targets->https);
	const char *http_header = header_text(targets->http_header), *https_header = header_text(targets->https_header);
	const bool both = targets->http.port != 0 && targets->https.port != 0;

	if (both && strcmp(http.s, https.s) == 0 && targets->http_header == targets->https_header)
		snprintf(ret, WEBGW_AGENT_TARGETS_LEN + 1, "%s%s", http.s, http_header);
	else if (both)
		snprintf(ret, WEBGW_AGENT_TARGETS_LEN + 1, "http://%s%s https://%s%s", http.s, http_header, https.s, https_header);
	else if (targets->http.port != 0)
		snprintf(ret, WEBGW_AGENT_TARGETS_LEN + 1, "http://%s%s", http.s, http_header);
	else
		snprintf(ret, WEBGW_AGENT_TARGETS_LEN + 1, "https://%s%s", https.s, https_header);
}
