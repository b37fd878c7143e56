#include "actors/relay_manager/uplink_watch.h"

#define QUEUE 16384 /* so little before it is no queue */

void uplink_watch_ask(struct uplink_watch *watch, uint64_t now_ms, uint64_t sent, uint64_t acked)
{
	*watch = (struct uplink_watch){ .acked = acked, .since_ms = now_ms, .is_queued = sent - acked > QUEUE };
}

void uplink_watch_sent(struct uplink_watch *watch, uint64_t end)
{
	if (watch->end == 0)
		watch->end = end;
}

void uplink_watch_look(struct uplink_watch *watch, uint64_t now_ms, uint64_t acked)
{
	if (!watch->is_queued || acked <= watch->acked)
		return;
	watch->acked = acked;
	watch->since_ms = now_ms;
	watch->is_queued = watch->end == 0 || acked < watch->end;
}
