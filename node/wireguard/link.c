#include "node/wireguard/link.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* One request: header, family-specific body, attributes. Grows at the end, never past the buffer. */
struct request {
	struct nlmsghdr header;
	uint8_t room[256];
};

static void *request_begin(struct request *request, uint16_t type, uint16_t flags, size_t body_len)
{
	memset(request, 0, sizeof(*request));
	request->header.nlmsg_type = type;
	request->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	request->header.nlmsg_seq = 1;
	request->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(body_len);
	return NLMSG_DATA(&request->header);
}

static void request_put(struct request *request, uint16_t type, const void *value, size_t len)
{
	struct rtattr *attribute =
		(struct rtattr *)(void *)((uint8_t *)request + NLMSG_ALIGN(request->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(attribute), value, len);
	request->header.nlmsg_len =
		NLMSG_ALIGN(request->header.nlmsg_len) + (uint32_t)RTA_ALIGN(RTA_LENGTH(len));
}

static void read_attribute(const struct rtattr *attribute, struct link_info *link)
{
	size_t len = attribute->rta_len - RTA_LENGTH(0);

	if (attribute->rta_type == IFLA_IFNAME)
		snprintf(link->name, sizeof(link->name), "%.*s", (int)len,
			 (const char *)RTA_DATA(attribute));
	if (attribute->rta_type == IFLA_MTU && len >= sizeof(link->mtu))
		memcpy(&link->mtu, RTA_DATA(attribute), sizeof(link->mtu));
}

bool link_info_from_message(const void *message, struct link_info *ret)
{
	const struct nlmsghdr *header = message;
	const struct ifinfomsg *info = NLMSG_DATA(header);

	if (header->nlmsg_type != RTM_NEWLINK && header->nlmsg_type != RTM_DELLINK)
		return false;
	if (header->nlmsg_len < NLMSG_LENGTH(sizeof(*info)))
		return false;

	*ret = (struct link_info){ .ifindex = info->ifi_index, .is_up = info->ifi_flags & IFF_UP };
	const uint8_t *at = (const uint8_t *)info + NLMSG_ALIGN(sizeof(*info));
	const uint8_t *end = (const uint8_t *)header + header->nlmsg_len;
	while (end - at >= (ptrdiff_t)sizeof(struct rtattr)) {
		const struct rtattr *attribute = (const void *)at;
		if (attribute->rta_len < sizeof(*attribute) || attribute->rta_len > end - at)
			break;
		read_attribute(attribute, ret);
		at += RTA_ALIGN(attribute->rta_len);
	}
	return true;
}

/* The kernel's answer to a request: an error number, or the one link asked for. */
static int read_answer(int fd, struct link_info *ret)
{
	/* A link's description with its statistics is under 8 KiB. */
	_Alignas(struct nlmsghdr) char answer[32768];

	ssize_t n = recv(fd, answer, sizeof(answer), 0);
	if (n < 0)
		return -errno;
	const struct nlmsghdr *header = (const void *)answer;
	if (!NLMSG_OK(header, (size_t)n))
		return -EPROTO;
	if (header->nlmsg_type == NLMSG_ERROR)
		return ((const struct nlmsgerr *)NLMSG_DATA(header))->error;
	return ret && link_info_from_message(header, ret) ? 0 : -EPROTO;
}

static int ask(const struct request *request, struct link_info *ret)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;

	int r = 0;
	if (sendto(fd, request, request->header.nlmsg_len, 0, (const void *)&kernel, sizeof(kernel)) < 0)
		r = -errno;
	if (r == 0)
		r = read_answer(fd, ret);
	close(fd);
	return r;
}

static int change(const struct request *request, int ifindex, const char *what, struct error *reterr)
{
	int r = ask(request, NULL);

	if (r != 0)
		error_set(reterr, r, "interface %d: cannot %s: %s", ifindex, what, strerror(-r));
	return r;
}

/* links */

int link_find(const char *name, struct link_info *ret, struct error *reterr)
{
	struct request request;
	size_t len = strlen(name);

	if (len == 0 || len >= IFNAMSIZ)
		return error_set(reterr, -EINVAL, "interface name '%s' must have 1 to %d characters", name,
				 IFNAMSIZ - 1);
	request_begin(&request, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
	request_put(&request, IFLA_IFNAME, name, len + 1);
	int r = ask(&request, ret);
	return r == 0 ? 0 : error_set(reterr, r, "interface %s: %s", name, strerror(-r));
}

int link_get(int ifindex, struct link_info *ret, struct error *reterr)
{
	struct request request;
	struct ifinfomsg *info = request_begin(&request, RTM_GETLINK, 0, sizeof(*info));

	info->ifi_index = ifindex;
	int r = ask(&request, ret);
	return r == 0 ? 0 : error_set(reterr, r, "interface %d: %s", ifindex, strerror(-r));
}

int link_set_up(int ifindex, bool up, struct error *reterr)
{
	struct request request;
	struct ifinfomsg *info = request_begin(&request, RTM_NEWLINK, NLM_F_ACK, sizeof(*info));

	info->ifi_index = ifindex;
	info->ifi_flags = up ? IFF_UP : 0;
	info->ifi_change = IFF_UP;
	return change(&request, ifindex, up ? "set it up" : "set it down", reterr);
}

int link_set_mtu(int ifindex, uint32_t mtu, struct error *reterr)
{
	struct request request;
	struct ifinfomsg *info = request_begin(&request, RTM_NEWLINK, NLM_F_ACK, sizeof(*info));

	info->ifi_index = ifindex;
	request_put(&request, IFLA_MTU, &mtu, sizeof(mtu));
	return change(&request, ifindex, "set the MTU", reterr);
}

int link_set_max_segments(int ifindex, uint32_t n, struct error *reterr)
{
	struct request request;
	struct ifinfomsg *info = request_begin(&request, RTM_NEWLINK, NLM_F_ACK, sizeof(*info));

	info->ifi_index = ifindex;
	request_put(&request, IFLA_GSO_MAX_SEGS, &n, sizeof(n));
	return change(&request, ifindex, "limit its superpackets", reterr);
}

int link_delete(int ifindex, struct error *reterr)
{
	struct request request;
	struct ifinfomsg *info = request_begin(&request, RTM_DELLINK, NLM_F_ACK, sizeof(*info));

	info->ifi_index = ifindex;
	return change(&request, ifindex, "delete it", reterr);
}

/* addresses and routes */

static size_t ip_len(int family)
{
	return family == AF_INET ? 4 : 16;
}

static void address_request(struct request *request, uint16_t type, uint16_t flags, int ifindex,
			    const struct link_prefix *address)
{
	struct ifaddrmsg *info = request_begin(request, type, (uint16_t)(NLM_F_ACK | flags), sizeof(*info));

	info->ifa_family = (uint8_t)address->family;
	info->ifa_prefixlen = address->len;
	info->ifa_index = (uint32_t)ifindex;
	/* No duplicate detection: nobody else is on this link, and it would delay the first packet. */
	info->ifa_flags = address->family == AF_INET6 ? IFA_F_NODAD : 0;
	request_put(request, IFA_LOCAL, address->ip, ip_len(address->family));
	request_put(request, IFA_ADDRESS, address->ip, ip_len(address->family));
}

int link_add_address(int ifindex, const struct link_prefix *address, struct error *reterr)
{
	struct request request;

	address_request(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, ifindex, address);
	return change(&request, ifindex, "add an address", reterr);
}

int link_add_address_alone(int ifindex, const struct link_prefix *address, struct error *reterr)
{
	const uint32_t flags = IFA_F_NOPREFIXROUTE | (address->family == AF_INET6 ? IFA_F_NODAD : 0u);
	struct request request;

	address_request(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, ifindex, address);
	request_put(&request, IFA_FLAGS, &flags, sizeof(flags)); /* has room for all, and goes before ifa_flags */
	return change(&request, ifindex, "add an address", reterr);
}

int link_remove_address(int ifindex, const struct link_prefix *address, struct error *reterr)
{
	struct request request;

	address_request(&request, RTM_DELADDR, 0, ifindex, address);
	return change(&request, ifindex, "remove an address", reterr);
}

static void route_request(struct request *request, uint16_t type, uint16_t flags, int ifindex,
			  const struct link_prefix *to)
{
	struct rtmsg *info = request_begin(request, type, (uint16_t)(NLM_F_ACK | flags), sizeof(*info));

	info->rtm_family = (uint8_t)to->family;
	info->rtm_dst_len = to->len;
	info->rtm_table = RT_TABLE_MAIN;
	info->rtm_protocol = RTPROT_STATIC;
	info->rtm_scope = to->family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	info->rtm_type = RTN_UNICAST;
	request_put(request, RTA_DST, to->ip, ip_len(to->family));
	request_put(request, RTA_OIF, &(uint32_t){ (uint32_t)ifindex }, sizeof(uint32_t));
}

int link_add_route(int ifindex, const struct link_prefix *to, struct error *reterr)
{
	struct request request;

	route_request(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, ifindex, to);
	return change(&request, ifindex, "add a route", reterr);
}

int link_remove_route(int ifindex, const struct link_prefix *to, struct error *reterr)
{
	struct request request;

	route_request(&request, RTM_DELROUTE, 0, ifindex, to);
	return change(&request, ifindex, "remove a route", reterr);
}

/* Where packets to an address that nobody has (RFC 5737) would go. */
#define FAR_AWAY 0xc0000201u /* 192.0.2.1 */

struct route_question {
	int family;
	const void *to, *from; /* from: NULL: any */
	uint32_t mark;	       /* 0: none */
	bool wants_entry;      /* of the routing table, as it stands there */
};

struct route_answer {
	struct in_addr router, ours; /* IPv4 */
	uint32_t ifindex;	     /* 0: there is no route */
	uint8_t type;		     /* RTN_ */
};

static int ask_route(const struct request *request, void *answer, size_t size, size_t *ret_len)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r = 0;

	if (fd < 0)
		return -errno;
	ssize_t n = sendto(fd, request, request->header.nlmsg_len, 0, (const void *)&kernel, sizeof(kernel));
	if (n >= 0)
		n = recv(fd, answer, size, 0);
	if (n < 0)
		r = -errno;
	else
		*ret_len = (size_t)n;
	close(fd);
	return r;
}

static void read_route_attribute(const struct rtattr *attribute, struct route_answer *answer)
{
	const size_t len = RTA_PAYLOAD(attribute);

	if (attribute->rta_type == RTA_GATEWAY && len == sizeof(answer->router))
		memcpy(&answer->router, RTA_DATA(attribute), len);
	if (attribute->rta_type == RTA_PREFSRC && len == sizeof(answer->ours))
		memcpy(&answer->ours, RTA_DATA(attribute), len);
	if (attribute->rta_type == RTA_OIF && len == sizeof(answer->ifindex))
		memcpy(&answer->ifindex, RTA_DATA(attribute), len);
}

/* 0 when the kernel says that there is no route, or that it leads nowhere; -errno when it says something else. */
static int read_route_error(const struct nlmsghdr *header)
{
	if (header->nlmsg_type != NLMSG_ERROR || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
		return -EPROTO;
	const int error = ((const struct nlmsgerr *)NLMSG_DATA(header))->error;
	switch (error) {
	case -ENETUNREACH:
	case -EHOSTUNREACH:
	case -EINVAL: /* blackhole, or from an address that is not ours */
	case -EACCES: /* prohibit */
		return 0;
	default:
		return error < 0 ? error : -EPROTO;
	}
}

/* 0 when the kernel has answered, or -errno. */
static int find_route(const struct route_question *question, struct route_answer *ret)
{
	const size_t len = ip_len(question->family);
	_Alignas(struct nlmsghdr) char answer[4096];
	struct request request;
	struct rtmsg *info = request_begin(&request, RTM_GETROUTE, 0, sizeof(*info));
	size_t n = 0;

	info->rtm_family = (unsigned char)question->family;
	info->rtm_dst_len = (unsigned char)(len * 8);
	info->rtm_flags = question->wants_entry ? RTM_F_FIB_MATCH : 0;
	request_put(&request, RTA_DST, question->to, len);
	if (question->from) {
		info->rtm_src_len = info->rtm_dst_len;
		request_put(&request, RTA_SRC, question->from, len);
	}
	if (question->mark != 0)
		request_put(&request, RTA_MARK, &question->mark, sizeof(question->mark));
	int r = ask_route(&request, answer, sizeof(answer), &n);
	if (r != 0)
		return r;

	const struct nlmsghdr *header = (const void *)answer;
	*ret = (struct route_answer){ 0 };
	if (!NLMSG_OK(header, n))
		return -EPROTO;
	if (header->nlmsg_type != RTM_NEWROUTE || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg)))
		return read_route_error(header);
	ret->type = ((const struct rtmsg *)NLMSG_DATA(header))->rtm_type;
	int left = (int)RTM_PAYLOAD(header); /* RTA_OK() is for what may become negative */
	for (const struct rtattr *a = RTM_RTA((const struct rtmsg *)NLMSG_DATA(header)); RTA_OK(a, left);
	     left -= (int)RTA_ALIGN(a->rta_len), a = (const void *)((const char *)a + RTA_ALIGN(a->rta_len)))
		read_route_attribute(a, ret);
	return 0;
}

int link_find_router(struct in_addr *ret_router, struct in_addr *ret_ours, int *ret_ifindex)
{
	const struct in_addr far_away = { htonl(FAR_AWAY) };
	const struct route_question question = { .family = AF_INET, .to = &far_away };
	struct route_answer answer;
	int r = find_route(&question, &answer);

	if (r != 0)
		return r;
	if (answer.router.s_addr == 0 || answer.ours.s_addr == 0)
		return -ENETUNREACH;
	*ret_router = answer.router;
	*ret_ours = answer.ours;
	*ret_ifindex = (int)answer.ifindex;
	return 0;
}

int link_find_way(int family, const void *from, const void *to, uint32_t mark, struct link_way *ret)
{
	const struct route_question question = { .family = family, .to = to, .from = from, .mark = mark };
	struct route_answer answer;
	int r = find_route(&question, &answer);

	if (r == 0)
		*ret = (struct link_way){ .ifindex = answer.ifindex, .is_here = answer.type == RTN_LOCAL };
	return r;
}

int link_find_address(int family, const void *ip, uint32_t *ret_ifindex)
{
	const struct route_question question = { .family = family, .to = ip, .wants_entry = true };
	struct route_answer answer;
	int r = find_route(&question, &answer);

	if (r != 0)
		return r;
	*ret_ifindex = answer.ifindex;
	return answer.type == RTN_LOCAL ? 0 : -ENODEV;
}

/* routes with an MTU */

static int change_route_mtu(uint16_t type, uint16_t flags, int ifindex, const struct link_prefix *to, const void *source,
			    uint32_t mtu)
{
	struct {
		struct rtattr header;
		uint32_t value;
	} metric = { { RTA_LENGTH(sizeof(metric.value)), RTAX_MTU }, mtu };
	struct request request;

	route_request(&request, type, flags, ifindex, to);
	((struct rtmsg *)NLMSG_DATA(&request.header))->rtm_protocol = LINK_PROTOCOL_MTU;
	if (source)
		request_put(&request, RTA_PREFSRC, source, ip_len(to->family));
	if (mtu != 0)
		request_put(&request, RTA_METRICS, &metric, sizeof(metric));
	return ask(&request, NULL);
}

/* By its protocol and the interface: never somebody else's. */
static int remove_route_mtu(int ifindex, const struct link_prefix *to)
{
	const int r = change_route_mtu(RTM_DELROUTE, 0, ifindex, to, NULL, 0);

	return r == -ESRCH || r == -EOPNOTSUPP /* no IPv6 */ ? 0 : r;
}

int link_add_network_mtu(int ifindex, const struct link_prefix *to, const void *source, uint32_t mtu,
			 struct error *reterr)
{
	const int r = change_route_mtu(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, ifindex, to, source, mtu);

	if (r == 0 || r == -EEXIST) /* just that one */
		return 0;
	return error_set(reterr, r, "interface %d: cannot add a route: %s", ifindex, strerror(-r));
}

int link_set_host_mtu(int ifindex, const struct link_prefix *to, const void *source, uint32_t mtu, struct error *reterr)
{
	struct link_way way;
	int r = remove_route_mtu(ifindex, to);

	if (r == 0 && mtu != 0)
		r = link_find_way(to->family, NULL, to->ip, 0, &way);
	if (r == 0 && mtu != 0 && way.ifindex != 0 && way.ifindex != (uint32_t)ifindex)
		return error_set(reterr, -EEXIST, "interface %d: a peer's address is led to another interface", ifindex);
	if (r == 0 && mtu != 0 && way.ifindex == 0) /* the network's is gone, with the interface down or our address */
		r = -ENETUNREACH;
	if (r == 0 && mtu != 0)
		r = change_route_mtu(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, ifindex, to, source, mtu);
	return r == 0 ? 0 : error_set(reterr, r, "interface %d: cannot set the MTU of a route: %s", ifindex, strerror(-r));
}

int link_remove_kernel_route(int ifindex, const struct link_prefix *to, const void *source, struct error *reterr)
{
	struct request request;

	route_request(&request, RTM_DELROUTE, 0, ifindex, to);
	((struct rtmsg *)NLMSG_DATA(&request.header))->rtm_protocol = RTPROT_KERNEL;
	request_put(&request, RTA_PREFSRC, source, ip_len(to->family));
	const int r = ask(&request, NULL);
	if (r == 0 || r == -ESRCH || r == -EOPNOTSUPP)
		return 0;
	return error_set(reterr, r, "interface %d: cannot remove a route: %s", ifindex, strerror(-r));
}

struct route_list {
	int ifindex;
	size_t n, max;
	struct link_prefix *all;
};

/* Takes what an RTM_NEWROUTE message says into the list, if it is one of ours. */
static void list_route(struct route_list *list, const struct nlmsghdr *header)
{
	const struct rtmsg *info = NLMSG_DATA(header);
	struct link_prefix to = { 0 };
	uint32_t ifindex = 0;

	if (header->nlmsg_type != RTM_NEWROUTE || header->nlmsg_len < NLMSG_LENGTH(sizeof(*info)))
		return;
	if (info->rtm_protocol != LINK_PROTOCOL_MTU || info->rtm_table != RT_TABLE_MAIN ||
	    (info->rtm_family != AF_INET && info->rtm_family != AF_INET6))
		return;
	to.family = info->rtm_family;
	to.len = info->rtm_dst_len;
	int left = (int)RTM_PAYLOAD(header);
	for (const struct rtattr *a = RTM_RTA(info); RTA_OK(a, left);
	     left -= (int)RTA_ALIGN(a->rta_len), a = (const void *)((const char *)a + RTA_ALIGN(a->rta_len))) {
		if (a->rta_type == RTA_DST && RTA_PAYLOAD(a) == ip_len(to.family))
			memcpy(to.ip, RTA_DATA(a), RTA_PAYLOAD(a));
		if (a->rta_type == RTA_OIF && RTA_PAYLOAD(a) == sizeof(ifindex))
			memcpy(&ifindex, RTA_DATA(a), sizeof(ifindex));
	}
	if (ifindex != (uint32_t)list->ifindex)
		return;
	if (list->n == list->max) {
		list->max = list->max ? list->max * 2 : 16;
		list->all = realloc(list->all, list->max * sizeof(*list->all));
		if (!list->all)
			abort();
	}
	list->all[list->n++] = to;
}

/* One part of the answer: 1 when more follows, 0 at its end, -errno. */
static int take_routes(struct route_list *list, const void *bytes, size_t n)
{
	int left = (int)n;

	for (const struct nlmsghdr *m = bytes; left > 0 && NLMSG_OK(m, (unsigned)left);
	     left -= (int)NLMSG_ALIGN(m->nlmsg_len), m = (const void *)((const char *)m + NLMSG_ALIGN(m->nlmsg_len))) {
		if (m->nlmsg_type == NLMSG_DONE)
			return 0;
		if (m->nlmsg_type == NLMSG_ERROR)
			return ((const struct nlmsgerr *)NLMSG_DATA(m))->error;
		list_route(list, m);
	}
	return 1;
}

static int list_routes(int family, struct route_list *list)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	_Alignas(struct nlmsghdr) char answer[32768];
	struct request request;
	struct rtmsg *info = request_begin(&request, RTM_GETROUTE, NLM_F_DUMP, sizeof(*info));
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r = 1;

	if (fd < 0)
		return -errno;
	info->rtm_family = (uint8_t)family;
	/* A kernel since 4.20 then picks them out itself, of what may be a million. */
	if (setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &(int){ 1 }, sizeof(int)) == 0) {
		info->rtm_protocol = LINK_PROTOCOL_MTU;
		info->rtm_table = RT_TABLE_MAIN;
		request_put(&request, RTA_OIF, &list->ifindex, sizeof(list->ifindex));
	}
	if (sendto(fd, &request, request.header.nlmsg_len, 0, (const void *)&kernel, sizeof(kernel)) < 0)
		r = -errno;
	while (r == 1) {
		const ssize_t n = recv(fd, answer, sizeof(answer), 0);
		r = n > 0 ? take_routes(list, answer, (size_t)n) : n < 0 ? -errno : -EPROTO;
	}
	close(fd);
	return r;
}

int link_remove_all_mtu(int ifindex, struct error *reterr)
{
	struct route_list list = { .ifindex = ifindex };
	int r = list_routes(AF_INET, &list);

	if (r == 0)
		r = list_routes(AF_INET6, &list);
	if (r == -EOPNOTSUPP) /* no IPv6 */
		r = 0;
	for (size_t i = 0; r == 0 && i < list.n; i++)
		r = remove_route_mtu(ifindex, &list.all[i]);
	free(list.all);
	if (r != 0)
		return error_set(reterr, r, "interface %d: cannot remove routes: %s", ifindex, strerror(-r));
	return (int)list.n;
}
