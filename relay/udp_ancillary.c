#include "relay/udp_ancillary.h"

#include <netinet/udp.h>
#include <string.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static void put(struct msghdr *header, int level, int type, const void *value, size_t len)
{
	struct cmsghdr *control = (struct cmsghdr *)(void *)((uint8_t *)header->msg_control + header->msg_controllen);

	control->cmsg_level = level;
	control->cmsg_type = type;
	control->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(control), value, len);
	header->msg_controllen += CMSG_SPACE(len);
}

void udp_ancillary_put_source(struct msghdr *header, const struct relay_socket *sock, const struct udp_way *to)
{
	static const uint8_t none[16];

	if (!sock->tells_address || memcmp(to->local_ip, none, sizeof(none)) == 0)
		return;
	if (sock->is_v6) {
		struct in6_pktinfo info = { .ipi6_ifindex = to->ifindex };
		memcpy(&info.ipi6_addr, to->local_ip, sizeof(info.ipi6_addr));
		put(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	} else {
		struct in_pktinfo info = { 0 };
		memcpy(&info.ipi_spec_dst, to->local_ip + 12, sizeof(info.ipi_spec_dst));
		put(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
}

void udp_ancillary_put_segment(struct msghdr *header, uint16_t size)
{
	put(header, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size));
}
