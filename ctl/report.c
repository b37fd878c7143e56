#include "ctl/report.h"

#include "common/table.h"
#include "ctl/format.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define FACT "%-12s"

struct ip_text {
	char s[INET6_ADDRSTRLEN];
};

static struct ip_text ip_text(int family, const void *ip, size_t size)
{
	static const uint8_t none[16];
	struct ip_text text = { "-" };

	if (memcmp(ip, none, size) != 0)
		inet_ntop(family, ip, text.s, sizeof(text.s));
	return text;
}

#define IP4(ip) ip_text(AF_INET, &(ip), sizeof(ip)).s
#define IP6(ip) ip_text(AF_INET6, &(ip), sizeof(ip)).s

/* facts, one a line */

/* For "running for …", "away for …". */
static struct format_text lasting(int64_t ms)
{
	if (ms >= 0 && ms < 1000)
		return (struct format_text){ "less than 1 s" };
	return format_duration(ms);
}

static void report_self(FILE *out, const struct node_status *status)
{
	fprintf(out, FACT "%s  %s  %s\n", "node", status->self.name[0] ? status->self.name : "-",
		IP4(status->self.ip4), IP6(status->self.ip6));
	fprintf(out, FACT "%s, %s for %s (interface %s%s%s, mtu %u, p2pnode %s)\n", "network",
		status->network[0] ? status->network : "-", node_state_name(status->state),
		lasting((int64_t)status->uptime_ms).s,
		status->interface[0] ? status->interface : "-",
		status->wireguard[0] ? ", WireGuard " : "", status->wireguard, status->mtu, status->version);
}

static bool is_relay(const struct node_status *status, uint32_t id)
{
	for (uint32_t i = 0; i < status->n_relays; i++)
		if (status->relays[i].id == id)
			return true;
	return false;
}

static void report_public(FILE *out, const struct node_status *status)
{
	if (!status->self.is_public || status->self.id == 0)
		return;
	if (is_relay(status, status->self.id))
		fprintf(out, FACT "a relay of the network: 'p2pctl relay status'\n", "public");
	else
		fprintf(out, FACT "NOT a relay yet: an admin adds it with 'p2pctl admin relay add %s'\n", "public",
			status->self.name);
}

static void report_control(FILE *out, const struct node_status *status)
{
	const char *address = status->control.address;

	if (status->control.connected) {
		fprintf(out, FACT "%s, connected for %s\n", "control", address,
			lasting(status->control.since_ms).s);
		return;
	}
	fprintf(out, FACT "%s, away for %s: %s\n", "control", address,
		lasting(status->control.since_ms).s,
		status->control.last_error[0] ? status->control.last_error : "not reached yet");
	if (status->control.map_age_ms >= 0)
		fprintf(out, FACT "known peers keep working; the map is %s old\n", "",
			lasting(status->control.map_age_ms).s);
}

static bool is_connected(const struct node_status *status, uint32_t relay_id)
{
	for (uint32_t i = 0; i < status->n_relays; i++)
		if (status->relays[i].id == relay_id)
			return status->relays[i].connected;
	return false;
}

static void report_home_relay(FILE *out, const struct node_status *status)
{
	const char *name = status->home_relay.name;
	struct format_text latency = format_latency(status->home_relay.latency_us);

	if (status->home_relay.id == 0)
		fprintf(out, FACT "none chosen%s\n", "relay",
			status->n_relays == 0 ? "; the network has no public node yet" : "");
	else if (!is_connected(status, status->home_relay.id))
		fprintf(out, FACT "%s, NOT connected (latency %s)\n", "relay", name, latency.s);
	else
		fprintf(out, FACT "%s, %s over %s\n", "relay", name, latency.s,
			status->home_relay.transport[0] ? status->home_relay.transport : "-");
}

static const char *speaks(enum node_known known)
{
	static const char *const words[] = { [NODE_KNOWN_NOT] = "not asked", [NODE_KNOWN_NO] = "no", [NODE_KNOWN_YES] = "yes" };

	return words[known];
}

static void report_port_mapping(FILE *out, const struct node_status *status)
{
	const char *state = status->port_mapping.state;

	if (state[0] == '\0')
		return; /* the router is not to be asked */
	if (endpoint_is_none(&status->port_mapping.router))
		fprintf(out, FACT "none: no router, or no NAT of its\n", "port map");
	else if (!endpoint_is_none(&status->port_mapping.external))
		fprintf(out, FACT "%s, by %s\n", "port map", endpoint_text(&status->port_mapping.external).s,
			status->port_mapping.way);
	else
		fprintf(out, FACT "none (%s)\n", "port map", state);
	if (!endpoint_is_none(&status->port_mapping.router))
		fprintf(out, FACT "PCP %s, NAT-PMP %s, UPnP %s\n", "router", speaks(status->port_mapping.pcp),
			speaks(status->port_mapping.natpmp), speaks(status->port_mapping.upnp));
}

static void report_endpoints(FILE *out, const struct node_status *status)
{
	for (uint32_t i = 0; i < status->n_endpoints; i++)
		fprintf(out, FACT "%s (%s)\n", i == 0 ? "endpoints" : "",
			endpoint_text(&status->endpoints[i].endpoint).s,
			node_endpoint_kind_name(status->endpoints[i].kind));
	if (status->n_endpoints == 0)
		fprintf(out, FACT "none known yet\n", "endpoints");
}

/* peers */

static int by_name(const void *a, const void *b)
{
	const struct node_status_peer *x = *(const struct node_status_peer *const *)a;
	const struct node_status_peer *y = *(const struct node_status_peer *const *)b;
	int r = strcmp(x->name, y->name);

	return r != 0 ? r : (x->id > y->id) - (x->id < y->id);
}

static void put_peer(struct table *table, const struct node_status_peer *peer)
{
	bool idle = peer->path == NODE_PATH_NONE;

	table_cell(table, "%s", peer->name);
	table_cell(table, "%s", IP4(peer->ip4));
	table_cell(table, "%s%s",
		   idle ? (peer->online ? "-" : "offline")
			: format_path(peer->path, &peer->endpoint, peer->relay).s,
		   peer->by_turn ? " by TURN" : "");
	table_cell(table, "%s", format_latency(peer->latency_us).s);
	table_cell(table, "%s", format_duration(peer->handshake_ms).s);
	table_cell(table, "%s", format_duration(peer->packet_ms).s);
	table_cell(table, "%s", format_bytes(peer->rx_bytes).s);
	table_cell(table, "%s", format_bytes(peer->tx_bytes).s);
	table_cell(table, "%s", peer->state);
	table_cell(table, "%s", IP6(peer->ip6));
}

static void report_peers(FILE *out, const struct node_status *status)
{
	if (status->n_peers == 0) {
		fputs("\nNo peers yet: let another machine join, with a link from 'p2pctl admin key create'.\n",
		      out);
		return;
	}
	const struct node_status_peer **peers = calloc(status->n_peers, sizeof(*peers));
	if (!peers)
		abort();
	for (uint32_t i = 0; i < status->n_peers; i++)
		peers[i] = &status->peers[i];
	qsort(peers, status->n_peers, sizeof(*peers), by_name);

	struct table *table = table_new(
		"PEER|ADDRESS|PATH|>LATENCY|>HANDSHAKE|>PACKET|>RECEIVED|>SENT|STATE|IPV6");
	for (uint32_t i = 0; i < status->n_peers; i++)
		put_peer(table, peers[i]);
	fputc('\n', out);
	table_print(table, out);
	free(peers);
}

/* Of a node that may be no member. */
static void report_webgw_agent(FILE *out, const struct node_status_webgw_agent *agent)
{
	if (!agent->is_there)
		return;
	fprintf(out, FACT "%s, %s%s%s\n", "webgw agent", agent->server, agent->is_connected ? "connected" : "NOT connected",
		agent->why[0] ? ": " : "", agent->why);
	for (uint32_t i = 0; i < agent->n_hosts; i++) {
		const struct node_status_webgw_host *host = &agent->hosts[i];
		fprintf(out, FACT "%s to %s: %s", "", host->host, host->target, host->state);
		if (strcmp(host->state, "subscribed") == 0)
			fprintf(out, ", %u warm, %u visitor%s now\n", host->warm, host->visitors_now,
				host->visitors_now == 1 ? "" : "s");
		else
			fprintf(out, "%s%s\n", host->why[0] ? ": " : "", host->why);
	}
}

static void report_membership(FILE *out, const struct node_status *status)
{
	switch (status->state) {
	case NODE_NOT_JOINED:
		fprintf(out,
			"This node has not joined a network (running for %s, p2pnode %s).\n"
			"Join one with a link from whoever runs it: p2pctl join LINK\n",
			lasting((int64_t)status->uptime_ms).s, status->version);
		return;
	case NODE_REMOVED:
		fputs("This node was removed from its network, or its membership has expired.\n"
		      "Join again with a new link: p2pctl leave && p2pctl join LINK\n",
		      out);
		return;
	case NODE_JOINING:
		fprintf(out, "This node is joining a network at %s%s%s\n", status->control.address,
			status->control.last_error[0] ? "; last error: " : "",
			status->control.last_error);
		return;
	case NODE_STARTING:
	case NODE_RUNNING:
	case NODE_N_STATES:
		break;
	}
	report_self(out, status);
	report_control(out, status);
	report_home_relay(out, status);
	report_public(out, status);
	fprintf(out, FACT "%s\n", "nat", format_nat(status->nat));
	report_endpoints(out, status);
	report_peers(out, status);
}

void report_status(FILE *out, const struct node_status *status)
{
	report_membership(out, status);
	report_webgw_agent(out, &status->webgw_agent);
}

/* netcheck */

static bool has_relay(const struct node_status *status)
{
	bool connected = false;

	for (uint32_t i = 0; i < status->n_relays; i++)
		connected |= status->relays[i].connected;
	return connected;
}

bool report_netcheck_is_good(const struct node_netcheck *netcheck)
{
	return netcheck->control_reachable && has_relay(&netcheck->status);
}

static int by_latency(const void *a, const void *b)
{
	const struct node_status_relay *x = a, *y = b;
	uint64_t l = (uint64_t)x->latency_us, r = (uint64_t)y->latency_us; /* unknown is last */

	return l != r ? (l > r) - (l < r) : strcmp(x->name, y->name);
}

static void report_relays(FILE *out, const struct node_status *status)
{
	struct node_status_relay *relays = calloc(status->n_relays + 1, sizeof(*relays));

	if (!relays)
		abort();
	if (status->n_relays > 0)
		memcpy(relays, status->relays, status->n_relays * sizeof(*relays));
	qsort(relays, status->n_relays, sizeof(*relays), by_latency);
	for (uint32_t i = 0; i < status->n_relays; i++) {
		fprintf(out, FACT "%s: %s%s%s", i == 0 ? "relays" : "", relays[i].name,
			relays[i].latency_us >= 0 ? format_latency(relays[i].latency_us).s
						  : "no answer",
			relays[i].home ? ", home" : "", relays[i].connected ? ", connected" : "");
		if (relays[i].udp_latency_us >= 0)
			fprintf(out, ", UDP %s", format_latency(relays[i].udp_latency_us).s);
		if (relays[i].tls_latency_us >= 0)
			fprintf(out, ", TLS %s", format_latency(relays[i].tls_latency_us).s);
		fputc('\n', out);
	}
	if (status->n_relays == 0)
		fprintf(out, FACT "the network has none\n", "relays");
	free(relays);
}

/* what the NAT does */

static const char *mapping_text(enum nat_dependence mapping)
{
	switch (mapping) {
	case NAT_DEPENDS_NO_NAT:
		return "none: this machine's own address is seen outside";
	case NAT_DEPENDS_NOT:
		return "endpoint-independent: one outside port for all destinations";
	case NAT_DEPENDS_ADDRESS:
		return "address-dependent: another outside port for each address";
	case NAT_DEPENDS_PORT:
		return "address-and-port-dependent: another outside port for each destination";
	case NAT_DEPENDS_UNKNOWN:
	case NAT_N_DEPENDENCES:
		break;
	}
	return "";
}

static const char *filtering_text(enum nat_dependence filtering)
{
	switch (filtering) {
	case NAT_DEPENDS_NOT:
		return "endpoint-independent: everybody is let in";
	case NAT_DEPENDS_ADDRESS:
		return "address-dependent: who was sent something is let in, from any port";
	case NAT_DEPENDS_PORT:
		return "address-and-port-dependent: who was sent something is let in, from that port only";
	case NAT_DEPENDS_NO_NAT:
	case NAT_DEPENDS_UNKNOWN:
	case NAT_N_DEPENDENCES:
		break;
	}
	return "";
}

static void report_known(FILE *out, const char *name, const char *text, enum nat_unknown unknown)
{
	if (unknown == NAT_UNKNOWN_NOT)
		fprintf(out, FACT "%s\n", name, text);
	else
		fprintf(out, FACT "not known: %s\n", name, nat_unknown_name(unknown));
}

static void report_ports(FILE *out, const struct nat_findings *findings)
{
	const char *preserved = findings->preserves_port ? "preserved where free, else " : "";

	if (findings->ports_unknown != NAT_UNKNOWN_NOT)
		report_known(out, "ports", "", findings->ports_unknown);
	else if (findings->ports == NAT_PORTS_IN_STEPS)
		fprintf(out, FACT "%sthe last one plus %d\n", "ports", preserved, (int)findings->step);
	else
		fprintf(out, FACT "%s\n", "ports",
			findings->ports == NAT_PORTS_SAME ? "preserved: outside as inside" :
			findings->preserves_port	  ? "preserved where free, else random" :
							    "random");
}

static void report_nat_behaviour(FILE *out, const struct nat_findings *findings)
{
	report_known(out, "mapping", mapping_text(findings->mapping), findings->mapping_unknown);
	report_known(out, "filtering", filtering_text(findings->filtering), findings->filtering_unknown);
	report_known(out, "hairpin",
		     findings->hairpin ? "yes: machines behind this NAT reach each other by its outside address" : "no",
		     findings->hairpin_unknown);
	report_ports(out, findings);
}

static void report_path_mtu(FILE *out, const struct node_status *status)
{
	uint32_t least = 0, most = 0;

	for (uint32_t i = 0; i < status->n_peers; i++) {
		const uint32_t mtu = status->peers[i].mtu;
		if (mtu != 0 && (least == 0 || mtu < least))
			least = mtu;
		most = mtu > most ? mtu : most;
	}
	if (least == 0)
		fprintf(out, FACT "not known: no path was measured\n", "path mtu");
	else if (least == most)
		fprintf(out, FACT "%u inside\n", "path mtu", least);
	else
		fprintf(out, FACT "%u to %u inside\n", "path mtu", least, most);
}

/* A direct path exists where either side lets everybody in, or is EIM-ADF, or where both map independently. */
static const char *meaning_of(const struct node_netcheck *netcheck)
{
	const struct nat_findings *findings = &netcheck->status.nat_behaviour.findings;
	const bool is_independent = findings->mapping == NAT_DEPENDS_NOT || findings->mapping == NAT_DEPENDS_NO_NAT;

	if (!netcheck->udp_works)
		return netcheck->status.n_relays > 0 ?
			       "No peer can be reached directly by UDP from here; all traffic goes by relay." :
			       "Nobody can say how this network treats UDP before there is a public node.";
	if (findings->filtering == NAT_DEPENDS_NOT || !endpoint_is_none(&netcheck->status.port_mapping.external))
		return "Every peer whose UDP gets out can be reached directly.";
	if (findings->mapping == NAT_DEPENDS_UNKNOWN || findings->filtering == NAT_DEPENDS_UNKNOWN)
		return "Most peers can be reached directly; which cannot is not known.";
	if (is_independent && findings->filtering == NAT_DEPENDS_ADDRESS)
		return "Every peer whose UDP gets out can be reached directly.";
	if (is_independent)
		return "Every peer can be reached directly, one behind a hard and strict NAT after a search of some "
		       "seconds, which may fail.";
	return "Peers behind an easy NAT can be reached directly, if it is strict after a search of some seconds, which "
	       "may fail; others need the relay.";
}

static void advise(FILE *out, int *n, const char *text)
{
	fprintf(out, "%s  - %s\n", (*n)++ == 0 ? "\nWhat to do:\n" : "", text);
}

static void report_advice(FILE *out, const struct node_netcheck *netcheck)
{
	const struct node_status *status = &netcheck->status;
	int n = 0;

	if (!netcheck->control_reachable)
		advise(out, &n,
		       "Control does not answer. Is p2pcontrol running there, and does this machine's network\n"
		       "    let TCP out to its port? Known peers keep working meanwhile.");
	if (status->n_relays == 0)
		advise(out, &n,
		       "Give the network a public node: on a machine with a public address put a [public]\n"
		       "    section into p2pnode.conf and join it.");
	else if (!has_relay(status))
		advise(out, &n,
		       "No relay is connected. Is p2pnode running on the public node, and does this machine's\n"
		       "    network let TCP out to its TLS port (443)?");
	if (!netcheck->udp_works && status->n_relays > 0)
		advise(out, &n,
		       "UDP gets no answer: peers are reached by relay only, which is slower. Let UDP out on\n"
		       "    this network's firewall, at least to the relay's STUN port (3478).");
	if (netcheck->udp_works && status->nat == NODE_NAT_HARD)
		advise(out, &n,
		       "Direct paths need luck behind this NAT. Forward a UDP port to this machine and set it\n"
		       "    as listen_port in p2pnode.conf, or accept the relay.");
	if (n == 0)
		fputs("\nAll is well.\n", out);
}

void report_netcheck(FILE *out, const struct node_netcheck *netcheck)
{
	const struct node_status *status = &netcheck->status;

	if (!node_status_is_member(status)) {
		report_status(out, status);
		return;
	}
	if (netcheck->control_reachable)
		fprintf(out, FACT "%s, reachable\n", "control", status->control.address);
	else
		fprintf(out, FACT "%s, NOT reachable: %s\n", "control", status->control.address,
			status->control.last_error[0] ? status->control.last_error : "no answer");
	fprintf(out, FACT "%s\n", "udp",
		netcheck->udp_works    ? "works"
		: status->n_relays > 0 ? "NO answer from any STUN server"
				       : "not known: there is no STUN server to ask");
	fprintf(out, FACT "%s\n", "nat", format_nat(status->nat));
	report_nat_behaviour(out, &status->nat_behaviour.findings);
	report_port_mapping(out, status);
	report_path_mtu(out, status);
	report_home_relay(out, status);
	report_relays(out, status);
	report_endpoints(out, status);
	fprintf(out, "\n%s\n", meaning_of(netcheck));
	report_advice(out, netcheck);
}
