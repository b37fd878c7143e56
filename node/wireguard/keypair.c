#include "node/wireguard/keypair.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct wg_keypair *wg_keypair_new(struct wg_peer *peer, const struct wg_session_keys *keys,
				  bool is_initiator, uint32_t local_index, uint32_t remote_index,
				  uint64_t now_ns)
{
	struct wg_keypair *keypair = aligned_alloc(_Alignof(struct wg_keypair), sizeof(*keypair));

	if (!keypair)
		return NULL;
	memset(keypair, 0, sizeof(*keypair));
	keypair->peer = peer;
	memcpy(keypair->seal_key, keys->send, KEY_LEN);
	memcpy(keypair->open_key, keys->receive, KEY_LEN);
	keypair->local_index = local_index;
	keypair->remote_index = remote_index;
	keypair->birth_ns = now_ns;
	keypair->is_initiator = keypair->is_confirmed = is_initiator;
	keypair->may_send = true;
	return keypair;
}

void wg_keypair_free(void *keypair)
{
	if (keypair)
		sodium_memzero(keypair, sizeof(struct wg_keypair));
	free(keypair);
}

static void drop(struct wg_keypair **slot, struct wg_dropped *dropped)
{
	struct wg_keypair *keypair = *slot;

	*slot = NULL;
	if (!keypair)
		return;
	assert(dropped->n < ARRAY_LEN(dropped->keypairs));
	keypair->may_send = false;
	dropped->keypairs[dropped->n++] = keypair;
}

void wg_keypairs_install(struct wg_keypairs *keypairs, struct wg_keypair *keypair_take,
			 struct wg_dropped *ret_dropped)
{
	*ret_dropped = (struct wg_dropped){ 0 };
	drop(&keypairs->previous, ret_dropped);
	if (!keypair_take->is_initiator) {
		drop(&keypairs->next, ret_dropped);
		keypairs->next = keypair_take;
		return;
	}
	if (keypairs->next)
		drop(&keypairs->current, ret_dropped);
	keypairs->previous = keypairs->next ? keypairs->next : keypairs->current;
	keypairs->current = keypair_take;
	keypairs->next = NULL;
}

void wg_keypairs_confirm_next(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped)
{
	assert(keypairs->next);
	*ret_dropped = (struct wg_dropped){ 0 };
	drop(&keypairs->previous, ret_dropped);
	keypairs->previous = keypairs->current;
	keypairs->current = keypairs->next;
	keypairs->next = NULL;
}

void wg_keypairs_wipe(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped)
{
	*ret_dropped = (struct wg_dropped){ 0 };
	drop(&keypairs->current, ret_dropped);
	drop(&keypairs->previous, ret_dropped);
	drop(&keypairs->next, ret_dropped);
}

void wg_keypairs_stop_sending(struct wg_keypairs *keypairs)
{
	if (keypairs->current)
		keypairs->current->may_send = false;
	if (keypairs->next)
		keypairs->next->may_send = false;
}

struct wg_keypair *wg_keypairs_usable(const struct wg_keypairs *keypairs, uint64_t now_ns)
{
	struct wg_keypair *keypair = keypairs->current;

	if (!keypair || !keypair->may_send)
		return NULL;
	if (keypair->next_counter >= WG_REJECT_AFTER_MESSAGES ||
	    !wg_is_recent(keypair->birth_ns, WG_REJECT_AFTER_TIME_NS, now_ns)) {
		keypair->may_send = false;
		return NULL;
	}
	return keypair;
}

uint32_t wg_keypair_take_counters(struct wg_keypair *keypair, uint32_t n, uint64_t *ret_first)
{
	/* Beyond the limit this adds a train per lane at most, far from an overflow. */
	const uint64_t first = atomic_fetch_add_explicit(&keypair->next_counter, n, memory_order_relaxed);

	*ret_first = first;
	if (first + n <= WG_REJECT_AFTER_MESSAGES)
		return n;
	keypair->may_send = false;
	return first >= WG_REJECT_AFTER_MESSAGES ? 0 : (uint32_t)(WG_REJECT_AFTER_MESSAGES - first);
}

bool wg_keypair_wants_rekey(const struct wg_keypair *keypair, uint64_t now_ns)
{
	if (keypair->next_counter > WG_REKEY_AFTER_MESSAGES)
		return true;
	return keypair->is_initiator &&
	       !wg_is_recent(keypair->birth_ns, WG_REKEY_AFTER_TIME_NS, now_ns);
}
