/*
 * All that one node publishes: what stands in its configuration, and what p2pctl has added.
 *
 *   p2pnode.conf ── at start ──► ┐                      ┌──► control: hosts
 *                                ├── exposure_list ─────┼──► acceptor: whose target, by host
 *   p2pctl ──► add, remove ────► ┘        ▲   │         └──► `p2pctl exposures`
 *                                         └───┴─ state folder: p2pctl's alone, a line each
 *
 * A host has one target for each scheme. What the configuration says stands until the configuration is changed.
 *
 * Bounds: EXPOSURE_MAX. Plain values. Pure.
 */
#pragma once

#include "node/exposure.h"

#define EXPOSURE_PLACE_LEN 255

struct exposure_item {
	struct exposure exposure;
	char place[EXPOSURE_PLACE_LEN + 1]; /* where it stands: "p2pnode.conf:12"; "": p2pctl has added it */
};

struct exposure_list {
	uint32_t n;
	struct exposure_item items[EXPOSURE_MAX];
	/* Lines of p2pctl's that are not in items now: the configuration has the host, or another version wrote them. Kept. */
	char left_out[EXPOSURE_MAX * EXPOSURE_TEXT];
};

/*
 * place: of the configuration, or "". p2pctl's own for the same host and schemes is replaced. -EEXIST: the host has
 * another target that stands in the way; -ENOSPC: too many. reterr names the way out.
 */
P2P_CHECK int exposure_list_add(struct exposure_list *list, const struct exposure *exposure, const char *place,
				struct error *reterr);
/*
 * Takes away host in its schemes: of one for both, the other may stay. -ENOENT, or -EPERM: it is the configuration's;
 * then nothing is taken away.
 */
P2P_CHECK int exposure_list_remove(struct exposure_list *list, const struct exposure *host, struct error *reterr);
/* p2pctl's, all or none. */
void exposure_list_forget_added(struct exposure_list *list);

/* Whose visitor is this? Exact before wildcard. NULL: nobody's. */
const struct exposure_item *exposure_list_find(const struct exposure_list *list, enum door_scheme scheme,
					       const struct host_name *host);

/* p2pctl's, a line each; the caller frees it. */
char *exposure_list_print_added(const struct exposure_list *list);
/*
 * Adds them again. Lines that are none, or stand in the way of what is there, are left out, but printed again until
 * p2pctl says something of their host: the number of these. -ENOSPC: there are more than can be kept.
 */
int exposure_list_read_added(struct exposure_list *list, const char *text);
/* The line i of those that are left out, cut if need be, and why it is. False: there are not so many. */
bool exposure_list_left_out(const struct exposure_list *list, uint32_t i, char ret_line[EXPOSURE_TEXT],
			    struct error *ret_why);
