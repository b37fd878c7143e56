#include "relay/webgw/agent_targets.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void webgw_agent_targets_text(const struct webgw_agent_targets *targets, char ret[WEBGW_AGENT_TARGETS_LEN + 1])
{
	const struct endpoint_text http = endpoint_text(&targets->http), https = endpoint_text(&targets->https);
	const bool both = targets->http.port != 0 && targets->https.port != 0;

	if (both && strcmp(http.s, https.s) == 0)
		snprintf(ret, WEBGW_AGENT_TARGETS_LEN + 1, "%s", http.s);
	else if (both)
		snprintf(ret, WEBGW_AGENT_TARGETS_LEN + 1, "http://%s https://%s", http.s, https.s);
	else
		snprintf(ret, WEBGW_AGENT_TARGETS_LEN + 1, "%s%s", targets->http.port != 0 ? "http://" : "https://",
			 targets->http.port != 0 ? http.s : https.s);
}
