/* Whose WireGuard is behind the node's interface, by the names of configuration and status. Pure. */
#pragma once

#include "common/macros.h"

enum wireguard_kind { WIREGUARD_IN_PROCESS, WIREGUARD_KERNEL, WIREGUARD_UAPI, WIREGUARD_N_KINDS };

const char *wireguard_kind_name(enum wireguard_kind kind); /* "in-process", "kernel", "uapi" */
/* 0 or -EINVAL. */
P2P_CHECK int wireguard_kind_parse(const char *name, enum wireguard_kind *ret);
