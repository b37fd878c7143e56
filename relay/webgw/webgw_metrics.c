#include "relay/webgw/webgw_metrics.h"

#include <inttypes.h>

#define PREFIX "p2pnode_webgw_"

static void put_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

static void put_one(FILE *out, const char *name, const char *type, const char *help, uint64_t n)
{
	put_head(out, name, type, help);
	fprintf(out, PREFIX "%s %" PRIu64 "\n", name, n);
}

static void put_links(FILE *out, const struct data_links_counters *links)
{
	put_one(out, "links", "gauge", "Connections of agents within TLS, warm ones among them.", links->open);
	put_one(out, "warm", "gauge", "Connections of agents that wait for visitors.", links->warm_now);
	put_one(out, "raw_visitors_total", "counter", "Visitors with TLS of their own, who were not wrapped in another.", links->raw);
	put_head(out, "warm_visitors_total", "counter", "Visitors that were handed to a warm connection.");
	fprintf(out, PREFIX "warm_visitors_total{taken=\"yes\"} %" PRIu64 "\n", links->warm_used);
	fprintf(out, PREFIX "warm_visitors_total{taken=\"not_in_time\"} %" PRIu64 "\n", links->warm_lost);
	put_head(out, "awaited_visitors_total", "counter", "Visitors that waited for a warm connection that was being made.");
	fprintf(out, PREFIX "awaited_visitors_total{came=\"yes\"} %" PRIu64 "\n", links->awaited);
	fprintf(out, PREFIX "awaited_visitors_total{came=\"not_in_time\"} %" PRIu64 "\n", links->awaited_late);
}

static void put_agent(FILE *out, const struct webgw_agent_counters *agent)
{
	put_one(out, "agent_subscriptions", "gauge", "Hosts that its agent has subscribed to.", agent->subscribed_now);
	put_one(out, "agent_warm", "gauge", "Connections of its agent that are warm, or will be.", agent->warm_now);
	put_one(out, "agent_visitors", "gauge", "Visitors that its agent carries.", agent->carried_now);
	put_head(out, "agent_visitors_total", "counter", "Visitors that its agent carried, by the connection they came by.");
	fprintf(out, PREFIX "agent_visitors_total{by=\"warm\"} %" PRIu64 "\n", agent->warm_used);
	fprintf(out, PREFIX "agent_visitors_total{by=\"new\"} %" PRIu64 "\n", agent->dialled);
	put_one(out, "agent_raw_visitors_total", "counter", "Visitors with TLS of their own that its agent carried without another.",
		agent->raw);
	put_one(out, "agent_half_closed_total", "counter", "Visitors of its agent that were ended half closed, when nothing moved.",
		agent->half_closed);
	put_one(out, "agent_told_twice_total", "counter", "Visitors that its agent was told of twice, and carried once.",
		agent->told_twice);
	put_one(out, "agent_over_limit_total", "counter", "Visitors that its agent did not carry: there were too many.",
		agent->too_many);
}

void webgw_metrics_put(FILE *out, const struct webgw_metrics *metrics)
{
	if (metrics->has_links)
		put_links(out, &metrics->links);
	if (metrics->is_agent)
		put_agent(out, &metrics->agent);
}
