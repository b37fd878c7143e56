/* Network namespaces: visit the one that a TUN interface is in now, for a few calls, and come back. */
#pragma once

#include "common/error.h"
#include "common/macros.h"

/* A visit; netns_leave() must end it. Only the calling thread moves. */
struct netns_visit {
	int home_fd;
};

/* Enters the namespace of the TUN descriptor. 0 or -errno (nothing changed then). */
P2P_CHECK int netns_enter_that_of(int tun_fd, struct netns_visit *ret, struct error *reterr);
/* Aborts when there is no way back: going on in the wrong namespace would be worse. */
void netns_leave(struct netns_visit *visit);
