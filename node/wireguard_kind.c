#include "node/wireguard_kind.h"

#include <errno.h>
#include <string.h>

static const char *const names[WIREGUARD_N_KINDS] = {
	[WIREGUARD_IN_PROCESS] = "in-process",
	[WIREGUARD_KERNEL] = "kernel",
	[WIREGUARD_UAPI] = "uapi",
};

const char *wireguard_kind_name(enum wireguard_kind kind)
{
	return kind < WIREGUARD_N_KINDS ? names[kind] : "?";
}

int wireguard_kind_parse(const char *name, enum wireguard_kind *ret)
{
	for (int i = 0; i < WIREGUARD_N_KINDS; i++) {
		if (strcmp(name, names[i]) != 0)
			continue;
		*ret = (enum wireguard_kind)i;
		return 0;
	}
	return -EINVAL;
}
