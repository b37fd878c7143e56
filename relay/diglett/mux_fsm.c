#include "relay/diglett/mux_fsm.h"

#include <assert.h>

/* rings */

static void link_init(struct mux_link *link)
{
	link->next = link->previous = link;
}

static bool link_is_alone(const struct mux_link *link)
{
	return link->next == link;
}

static void link_remove(struct mux_link *link)
{
	link->next->previous = link->previous;
	link->previous->next = link->next;
	link_init(link);
}

static void link_append(struct mux_link *ring, struct mux_link *link)
{
	if (!link_is_alone(link))
		return;
	link->previous = ring->previous;
	link->next = ring;
	ring->previous->next = link;
	ring->previous = link;
}

/* streams */

static struct mux_stream **bucket_of(struct mux_fsm *mux, uint32_t id)
{
	return &mux->buckets[id / 2 % MUX_BUCKETS];
}

static struct mux_stream *find(struct mux_fsm *mux, uint32_t id)
{
	struct mux_stream *stream = *bucket_of(mux, id);

	while (stream && stream->id != id)
		stream = stream->next_in_bucket;
	return stream;
}

static bool is_ours(const struct mux_fsm *mux, uint32_t id)
{
	return (id % 2 == 1) == mux->settings.is_initiator;
}

static bool was_opened(const struct mux_fsm *mux, uint32_t id)
{
	return id <= (is_ours(mux, id) ? mux->last_ours : mux->last_theirs);
}

static void begin_stream(struct mux_fsm *mux, struct mux_stream *stream, bool ours, uint16_t port,
			 const struct endpoint *visitor, uint64_t now_us)
{
	void *const owner = stream->owner;

	*stream = (struct mux_stream){ .owner = owner,
				       .port = port,
				       .visitor = *visitor,
				       .may_send = MUX_STREAM_WINDOW,
				       .may_receive = MUX_STREAM_WINDOW,
				       .granted_us = now_us,
				       .taken_us = now_us,
				       .moved_us = now_us,
				       .is_ours = ours };
	link_init(&stream->all);
	link_init(&stream->urgent);
	link_init(&stream->turn);
	link_append(&mux->all, &stream->all);
	if (ours)
		mux->n_ours++;
	else
		mux->n_theirs++;
	mux->counters.opened++;
}

static void name_stream(struct mux_fsm *mux, struct mux_stream *stream, uint32_t id)
{
	struct mux_stream **bucket = bucket_of(mux, id);

	stream->id = id;
	stream->next_in_bucket = *bucket;
	*bucket = stream;
}

static void uncount(struct mux_fsm *mux, bool ours)
{
	if (ours)
		mux->n_ours--;
	else
		mux->n_theirs--;
}

static bool is_over_on_wire(const struct mux_stream *stream)
{
	return stream->has_ended && stream->other_has_ended;
}

/* The other side takes its place for free, though the owner may still hold what came. One of ours is ours to count. */
static void note_over(struct mux_fsm *mux, const struct mux_stream *stream)
{
	if (!is_over_on_wire(stream) || stream->is_ours)
		return;
	mux->n_theirs--;
	mux->n_lingering++;
}

void mux_fsm_init(struct mux_fsm *mux, const struct mux_settings *settings, uint64_t now_us)
{
	assert(settings->max_ours <= MUX_MAX_STREAMS && settings->max_theirs <= MUX_MAX_STREAMS);
	assert(settings->session_window >= MUX_SESSION_WINDOW && settings->session_window <= MUX_MAX_WINDOW / 2);
	assert(settings->max_stream_window >= MUX_STREAM_WINDOW && settings->max_stream_window <= MUX_MAX_WINDOW / 2);
	*mux = (struct mux_fsm){ .settings = *settings,
				 .may_send = MUX_SESSION_WINDOW,
				 .may_receive = MUX_SESSION_WINDOW,
				 .unreported = settings->session_window - MUX_SESSION_WINDOW,
				 .heard_us = now_us,
				 .pinged_us = now_us,
				 .owes_ping = true };
	link_init(&mux->all);
	link_init(&mux->urgent);
	link_init(&mux->turn);
}

/* windows */

/* What the other side may still send is no more than what it could be told of: tell it. */
static bool is_due(uint32_t unreported, uint32_t may_receive)
{
	return unreported > 0 && unreported >= may_receive;
}

static void note_consumed_in_all(struct mux_fsm *mux, size_t n)
{
	mux->unreported += (uint32_t)n;
}

/* Half of all memory is for who reads: who holds more than its part of that is let send no more until it has taken it. */
static bool holds_too_much(const struct mux_fsm *mux, const struct mux_stream *stream)
{
	const uint32_t half = mux->settings.session_window / 2;

	return mux->held > half && stream->held > half / (mux->n_ours + mux->n_theirs + mux->n_lingering + 1);
}

/* If not, it is asked again when more is consumed: who holds too much has something to consume. */
static bool is_window_due(const struct mux_fsm *mux, const struct mux_stream *stream)
{
	return !stream->other_has_ended && !stream->is_reset && is_due(stream->unreported, stream->may_receive) &&
	       !holds_too_much(mux, stream);
}

/* Used up within two round trips; and twice of it is no more than half of what others leave. */
static bool is_to_grow(const struct mux_fsm *mux, const struct mux_stream *stream, uint64_t now_us)
{
	const uint32_t grown = mux->grown - stream->grown, held = mux->held - stream->held;
	const uint32_t left = mux->settings.session_window - (grown > held ? grown : held);
	const uint64_t twice = 2 * ((uint64_t)MUX_STREAM_WINDOW + stream->grown);

	return stream->growth == 0 && mux->rtt_us > 0 && now_us - stream->granted_us < 2 * mux->rtt_us &&
	       twice <= mux->settings.max_stream_window && twice <= left / 2;
}

/* A byte now and then is as good as nothing: the time begins anew with so many, or when nothing is held. */
static void note_taken(struct mux_stream *stream, size_t n, uint64_t now_us)
{
	const uint32_t part = stream->held / 32;

	stream->taken += (uint32_t)n;
	if (stream->held > 0 && stream->taken < (part > MUX_PROGRESS ? part : MUX_PROGRESS))
		return;
	stream->taken = 0;
	stream->taken_us = now_us;
}

void mux_fsm_consumed(struct mux_fsm *mux, struct mux_stream *stream, size_t n, uint64_t now_us)
{
	assert(n <= stream->held && n <= mux->held);
	stream->held -= (uint32_t)n;
	mux->held -= (uint32_t)n;
	note_consumed_in_all(mux, n);
	stream->unreported += (uint32_t)n;
	stream->moved_us = now_us;
	note_taken(stream, n, now_us);
	if (!is_window_due(mux, stream))
		return;
	if (is_to_grow(mux, stream, now_us)) {
		stream->growth = MUX_STREAM_WINDOW + stream->grown;
		stream->grown += stream->growth;
		mux->grown += stream->growth;
	}
	link_append(&mux->urgent, &stream->urgent);
}

/* Is it a stream's turn, as far as it goes by itself? */
static void line_up(struct mux_fsm *mux, struct mux_stream *stream)
{
	if (stream->is_readable && !stream->ends && !stream->has_ended && !stream->is_reset && stream->may_send > 0)
		link_append(&mux->turn, &stream->turn);
	else
		link_remove(&stream->turn);
}

/* receiving */

static int receive_data(struct mux_fsm *mux, const struct mux_frame *frame, uint64_t now_us, struct mux_event *ret)
{
	struct mux_stream *stream = find(mux, frame->stream);
	const uint32_t len = (uint32_t)frame->data.len;

	if (!stream && !was_opened(mux, frame->stream))
		return MUX_UNKNOWN;
	if (stream && stream->other_has_ended)
		return MUX_AFTER_END;
	if (len > mux->may_receive || (stream && len > stream->may_receive))
		return MUX_OVERRUN;
	mux->may_receive -= len;
	if (!stream || stream->is_reset) { /* gone: nobody takes it */
		mux->counters.late++;
		note_consumed_in_all(mux, len);
		return 0;
	}
	if (stream->held == 0) {
		stream->taken = 0;
		stream->taken_us = now_us;
	}
	stream->moved_us = now_us;
	stream->may_receive -= len;
	stream->held += len;
	mux->held += len;
	*ret = (struct mux_event){ .type = MUX_EV_CAME, .stream = stream, .bytes = frame->data.bytes, .len = len };
	return 0;
}

static void queue_reset(struct mux_fsm *mux, uint32_t id, uint8_t reason)
{
	const uint32_t at = (mux->first_reset + mux->n_resets) % (uint32_t)ARRAY_LEN(mux->resets);

	assert(mux->n_resets < ARRAY_LEN(mux->resets));
	mux->resets[at] = (struct mux_reset){ id, reason };
	mux->n_resets++;
	mux->n_resets_theirs += is_ours(mux, id) ? 0 : 1;
	mux->counters.resets_sent++;
}

/* Without gaps, so that the buckets of find() are filled alike. */
static bool is_next_of_theirs(const struct mux_fsm *mux, uint32_t id)
{
	const uint32_t first = mux->settings.is_initiator ? 2 : 1;

	return id > mux->last_theirs && id == (mux->last_theirs == 0 ? first : mux->last_theirs + 2);
}

/* A place on the wire, and one here: who holds what came for streams that are over has as many again. */
static bool has_place_for_theirs(const struct mux_fsm *mux)
{
	const uint32_t max = mux->settings.max_theirs;

	return mux->n_theirs < max && mux->n_theirs + mux->n_lingering < 2 * max;
}

static int receive_open(struct mux_fsm *mux, const struct mux_frame *frame, uint64_t now_us, struct mux_event *ret)
{
	const struct mux_settings *settings = &mux->settings;

	if (!is_next_of_theirs(mux, frame->stream))
		return MUX_BAD_ID;
	mux->last_theirs = frame->stream;
	if (mux->n_resets_theirs >= MUX_MAX_STREAMS) /* so many have no place by any rule */
		return MUX_FLOOD;
	mux->offered = frame->stream;
	mux->offer = *frame;
	if (!has_place_for_theirs(mux) ||
	    !token_bucket_take(&mux->opens, now_us / 1000, settings->open_burst, settings->open_each_ms))
		mux_fsm_refuse(mux, MUX_REFUSED);
	else
		ret->type = MUX_EV_OPENED;
	return 0;
}

void mux_fsm_accept(struct mux_fsm *mux, struct mux_stream *stream, uint64_t now_us)
{
	assert(mux->offered != 0);
	begin_stream(mux, stream, false, mux->offer.open.port, &mux->offer.open.visitor, now_us);
	name_stream(mux, stream, mux->offered);
	mux->offered = 0;
}

/* A place of theirs is taken until they are told. */
void mux_fsm_refuse(struct mux_fsm *mux, uint8_t reason)
{
	assert(mux->offered != 0);
	mux->n_theirs++;
	queue_reset(mux, mux->offered, reason);
	mux->offered = 0;
	mux->counters.refused++;
}

/* Its window is used no more. */
static void give_up_growth(struct mux_fsm *mux, struct mux_stream *stream)
{
	mux->grown -= stream->grown;
	stream->grown = stream->growth = 0;
}

static int receive_end(struct mux_fsm *mux, struct mux_stream *stream, uint64_t now_us, struct mux_event *ret)
{
	if (stream->other_has_ended)
		return MUX_AFTER_END;
	stream->other_has_ended = true;
	stream->moved_us = now_us;
	give_up_growth(mux, stream);
	note_over(mux, stream);
	*ret = (struct mux_event){ .type = MUX_EV_ENDED, .stream = stream };
	return 0;
}

static int receive_reset(struct mux_fsm *mux, struct mux_stream *stream, uint8_t reason, struct mux_event *ret)
{
	stream->is_reset = true;
	mux->counters.resets_received++;
	line_up(mux, stream);
	link_remove(&stream->urgent);
	*ret = (struct mux_event){ .type = MUX_EV_RESET, .stream = stream, .reason = reason };
	return 0;
}

static int receive_window(struct mux_fsm *mux, struct mux_stream *stream, uint32_t more, uint64_t now_us)
{
	uint64_t *const may_send = stream ? &stream->may_send : &mux->may_send;

	if (*may_send + more > MUX_MAX_WINDOW)
		return MUX_WINDOW_OVER;
	*may_send += more;
	if (stream) {
		stream->moved_us = now_us; /* what was sent before was taken */
		line_up(mux, stream);
	}
	return 0;
}

static int receive_ping(struct mux_fsm *mux, const struct mux_frame *frame, uint64_t now_us)
{
	if (frame->type == MUX_PING) {
		if (mux->owes_pong)
			return MUX_BAD_PONG;
		mux->owes_pong = true;
		mux->pong_token = frame->ping.token;
		return 0;
	}
	if (!mux->awaits_pong || frame->ping.token != mux->ping_token)
		return MUX_BAD_PONG;
	mux->awaits_pong = false;
	mux->rtt_us = now_us > mux->pinged_us ? now_us - mux->pinged_us : 1;
	return 0;
}

/* END, RESET and WINDOW of a stream: of one that is gone they come late. */
static int receive_for_stream(struct mux_fsm *mux, const struct mux_frame *frame, uint64_t now_us, struct mux_event *ret)
{
	struct mux_stream *stream = find(mux, frame->stream);

	if (!stream || stream->is_reset) {
		mux->counters.late++;
		return was_opened(mux, frame->stream) ? 0 : MUX_UNKNOWN;
	}
	if (frame->type == MUX_END)
		return receive_end(mux, stream, now_us, ret);
	if (frame->type == MUX_RESET)
		return receive_reset(mux, stream, frame->reset.reason, ret);
	return receive_window(mux, stream, frame->window.more, now_us);
}

int mux_fsm_receive(struct mux_fsm *mux, const struct mux_frame *frame, uint64_t now_us, struct mux_event *ret)
{
	*ret = (struct mux_event){ .type = MUX_EV_NONE };
	assert(mux->offered == 0);
	mux->heard_us = now_us;
	switch (frame->type) {
	case MUX_DATA:
		return receive_data(mux, frame, now_us, ret);
	case MUX_OPEN:
		return receive_open(mux, frame, now_us, ret);
	case MUX_WINDOW:
		if (frame->stream == 0)
			return receive_window(mux, NULL, frame->window.more, now_us);
		return receive_for_stream(mux, frame, now_us, ret);
	case MUX_END:
	case MUX_RESET:
		return receive_for_stream(mux, frame, now_us, ret);
	case MUX_PING:
	case MUX_PONG:
		return receive_ping(mux, frame, now_us);
	case MUX_GOAWAY:
		mux->is_draining = true;
		*ret = (struct mux_event){ .type = MUX_EV_LEAVES, .reason = frame->goaway.reason };
		return 0;
	default:
		return frame->type >= MUX_SKIPPED ? 0 : MUX_BAD_TYPE;
	}
}

/* the owner's */

/* As many as streams can wait for their OPEN, which gives them theirs. */
static bool has_ids(const struct mux_fsm *mux)
{
	return mux->last_ours <= UINT32_MAX - 2 * (MUX_MAX_STREAMS + 1);
}

bool mux_fsm_open(struct mux_fsm *mux, struct mux_stream *stream, uint16_t port, const struct endpoint *visitor,
		  uint64_t now_us)
{
	if (mux->is_draining || mux->n_ours >= mux->settings.max_ours || !has_ids(mux))
		return false;
	begin_stream(mux, stream, true, port, visitor, now_us);
	link_append(&mux->urgent, &stream->urgent);
	return true;
}

void mux_fsm_readable(struct mux_fsm *mux, struct mux_stream *stream)
{
	stream->is_readable = true;
	line_up(mux, stream);
}

void mux_fsm_moved(struct mux_stream *stream, uint64_t now_us)
{
	stream->moved_us = now_us;
}

bool mux_fsm_is_over(const struct mux_stream *stream)
{
	return is_over_on_wire(stream) && stream->held == 0;
}

static void forget(struct mux_fsm *mux, struct mux_stream *stream)
{
	if (stream->id != 0) {
		struct mux_stream **at = bucket_of(mux, stream->id);
		while (*at != stream)
			at = &(*at)->next_in_bucket;
		*at = stream->next_in_bucket;
	}
	link_remove(&stream->all);
	link_remove(&stream->urgent);
	link_remove(&stream->turn);
}

void mux_fsm_close(struct mux_fsm *mux, struct mux_stream *stream, uint8_t reason)
{
	mux->counters.idle += reason == MUX_IDLE ? 1 : 0;
	mux->held -= stream->held;
	note_consumed_in_all(mux, stream->held);
	give_up_growth(mux, stream);
	forget(mux, stream);
	if (is_over_on_wire(stream) && !stream->is_ours)
		mux->n_lingering--;
	else if (stream->id == 0 || stream->is_reset || is_over_on_wire(stream))
		uncount(mux, stream->is_ours); /* they never heard of it, or know */
	else
		queue_reset(mux, stream->id, reason);
}

struct mux_stream *mux_fsm_any(const struct mux_fsm *mux)
{
	return link_is_alone(&mux->all) ? NULL : container_of(mux->all.next, struct mux_stream, all);
}

/* sending */

static bool next_of_connection(struct mux_fsm *mux, uint64_t now_us, struct mux_frame *ret)
{
	if (mux->owes_pong) {
		*ret = (struct mux_frame){ .type = MUX_PONG, .ping.token = mux->pong_token };
		mux->owes_pong = false;
	} else if (mux->owes_ping) {
		*ret = (struct mux_frame){ .type = MUX_PING, .ping.token = ++mux->ping_token };
		mux->owes_ping = false;
		mux->awaits_pong = true;
		mux->pinged_us = now_us;
	} else if (is_due(mux->unreported, mux->may_receive)) {
		*ret = (struct mux_frame){ .type = MUX_WINDOW, .window.more = mux->unreported };
		mux->may_receive += mux->unreported;
		mux->unreported = 0;
	} else if (mux->n_resets > 0) {
		const struct mux_reset *reset = &mux->resets[mux->first_reset];
		*ret = (struct mux_frame){ .stream = reset->id, .type = MUX_RESET, .reset.reason = reset->reason };
		uncount(mux, is_ours(mux, reset->id));
		mux->n_resets_theirs -= is_ours(mux, reset->id) ? 0 : 1;
		mux->first_reset = (mux->first_reset + 1) % (uint32_t)ARRAY_LEN(mux->resets);
		mux->n_resets--;
	} else {
		return false;
	}
	return true;
}

/* What a stream has to say besides its data; in this order. False: nothing more. */
static bool next_of_stream(struct mux_fsm *mux, struct mux_stream *stream, uint64_t now_us, struct mux_frame *ret)
{
	if (stream->id == 0) {
		mux->last_ours += mux->last_ours == 0 && mux->settings.is_initiator ? 1u : 2u;
		name_stream(mux, stream, mux->last_ours);
		*ret = (struct mux_frame){ .stream = stream->id,
					   .type = MUX_OPEN,
					   .open = { stream->port, stream->visitor } };
	} else if (is_window_due(mux, stream)) {
		const uint32_t more = stream->unreported + stream->growth;
		*ret = (struct mux_frame){ .stream = stream->id, .type = MUX_WINDOW, .window.more = more };
		stream->may_receive += more;
		stream->unreported = stream->growth = 0;
		stream->granted_us = now_us;
	} else if (stream->ends && !stream->has_ended) {
		*ret = (struct mux_frame){ .stream = stream->id, .type = MUX_END };
		stream->has_ended = true;
		note_over(mux, stream);
	} else {
		return false;
	}
	return true;
}

static bool next_urgent(struct mux_fsm *mux, uint64_t now_us, struct mux_send *ret)
{
	if (next_of_connection(mux, now_us, &ret->frame))
		return true;
	while (!link_is_alone(&mux->urgent)) {
		struct mux_stream *stream = container_of(mux->urgent.next, struct mux_stream, urgent);
		if (next_of_stream(mux, stream, now_us, &ret->frame)) {
			ret->stream = stream;
			return true;
		}
		link_remove(&stream->urgent);
	}
	return false;
}

void mux_fsm_next(struct mux_fsm *mux, size_t room, uint64_t now_us, struct mux_send *ret)
{
	*ret = (struct mux_send){ .type = MUX_SEND_NOTHING };
	if (room < MUX_MAX_CONTROL)
		return;
	if (next_urgent(mux, now_us, ret)) {
		ret->type = MUX_SEND_FRAME;
		return;
	}
	if (link_is_alone(&mux->turn) || mux->may_send == 0)
		return;
	struct mux_stream *stream = container_of(mux->turn.next, struct mux_stream, turn);
	stream->moved_us = now_us; /* it said that it had something */
	ret->type = MUX_SEND_STREAM;
	ret->stream = stream;
	ret->max = room - MUX_HEAD_LEN < MUX_MAX_DATA ? room - MUX_HEAD_LEN : MUX_MAX_DATA;
	if (ret->max > mux->may_send)
		ret->max = (size_t)mux->may_send;
	if (ret->max > stream->may_send)
		ret->max = (size_t)stream->may_send;
}

void mux_fsm_sent(struct mux_fsm *mux, struct mux_stream *stream, size_t n, enum mux_source source)
{
	assert(n <= stream->may_send && n <= mux->may_send && stream->id != 0);
	stream->may_send -= n;
	mux->may_send -= n;
	stream->is_readable = source == MUX_HAS_MORE;
	link_remove(&stream->turn); /* to the end of the line */
	line_up(mux, stream);
	if (source == MUX_AT_END) {
		stream->ends = true;
		link_append(&mux->urgent, &stream->urgent);
	}
}

/* time */

static bool needs_memory(const struct mux_fsm *mux)
{
	return mux->held >= mux->settings.session_window / 4 * 3;
}

/* Are there so many streams of ours, of theirs, that the places of those that are over should be free? */
static bool needs_places(const struct mux_fsm *mux, bool ours)
{
	return ours ? 4 * mux->n_ours > 3 * mux->settings.max_ours
		    : mux->n_theirs + mux->n_lingering > mux->settings.max_theirs;
}

static bool is_stalled(const struct mux_fsm *mux, const struct mux_stream *stream, uint64_t now_us)
{
	return stream->held > 0 && now_us - stream->taken_us >= (uint64_t)mux->settings.stalled_ms * 1000 &&
	       (needs_memory(mux) || (is_over_on_wire(stream) && needs_places(mux, stream->is_ours)));
}

/* That which holds most of those that take nothing, so that few must go. */
static struct mux_stream *find_stalled(const struct mux_fsm *mux, uint64_t now_us)
{
	struct mux_stream *stalled = NULL;

	for (struct mux_link *at = mux->all.next; at != &mux->all; at = at->next) {
		struct mux_stream *stream = container_of(at, struct mux_stream, all);
		if (is_stalled(mux, stream, now_us) && (!stalled || stream->held > stalled->held))
			stalled = stream;
	}
	return stalled;
}

/* Seen by who was told the end, and holds what came before it. Who has said it sees nothing of how that is taken; nor does
 * who waits for a window. */
static bool is_half_closed(const struct mux_stream *stream)
{
	const bool waits_to_send = stream->is_readable && !stream->ends;

	return stream->other_has_ended && !waits_to_send;
}

static bool is_idle(const struct mux_fsm *mux, const struct mux_stream *stream, uint64_t now_us)
{
	const uint64_t limit_ms = is_half_closed(stream) ? mux->settings.half_closed_ms : mux->settings.idle_ms;

	return limit_ms > 0 && now_us - stream->moved_us >= limit_ms * 1000;
}

static struct mux_stream *find_idle(const struct mux_fsm *mux, uint64_t now_us)
{
	for (struct mux_link *at = mux->all.next; at != &mux->all; at = at->next) {
		struct mux_stream *stream = container_of(at, struct mux_stream, all);
		if (is_idle(mux, stream, now_us))
			return stream;
	}
	return NULL;
}

/* Of who is heard the answers are waited for twice as long: a slow way has much before them. */
static bool is_dead(const struct mux_fsm *mux, uint64_t now_us)
{
	const uint64_t dead_us = (uint64_t)mux->settings.dead_ms * 1000;
	const bool is_asked = mux->awaits_pong || mux->owes_ping; /* owed for long: they take nothing at all */

	return now_us - mux->heard_us >= dead_us || (is_asked && now_us - mux->pinged_us >= 2 * dead_us);
}

void mux_fsm_tick(struct mux_fsm *mux, uint64_t now_us, struct mux_event *ret)
{
	*ret = (struct mux_event){ .type = MUX_EV_NONE };
	if (is_dead(mux, now_us) || !has_ids(mux)) {
		ret->type = MUX_EV_DEAD;
		return;
	}
	if (now_us - mux->pinged_us >= (uint64_t)mux->settings.ping_ms * 1000 && !mux->awaits_pong)
		mux->owes_ping = true;
	if ((ret->stream = find_idle(mux, now_us))) {
		ret->type = MUX_EV_IDLE;
		return;
	}
	if (!needs_memory(mux) && !needs_places(mux, true) && !needs_places(mux, false))
		return;
	ret->stream = find_stalled(mux, now_us);
	if (ret->stream) {
		ret->type = MUX_EV_STALLED;
		mux->counters.stalled++;
	}
}

static void check_stream(const struct mux_fsm *mux, const struct mux_stream *stream)
{
	const uint64_t window = (uint64_t)stream->may_receive + stream->held + stream->unreported + stream->growth;

	if (!stream->other_has_ended)
		assert(window == (uint64_t)MUX_STREAM_WINDOW + stream->grown);
	assert(window <= mux->settings.max_stream_window);
	assert(!(stream->id == 0 && (stream->held > 0 || !stream->is_ours)));
}

void mux_fsm_check(const struct mux_fsm *mux)
{
	uint64_t held = 0, grown = 0;
	uint32_t n = 0, n_lingering = 0;

	for (const struct mux_link *at = mux->all.next; at != &mux->all; at = at->next) {
		const struct mux_stream *stream = container_of(at, struct mux_stream, all);
		check_stream(mux, stream);
		held += stream->held;
		grown += stream->grown;
		n++;
		n_lingering += is_over_on_wire(stream) && !stream->is_ours ? 1 : 0;
	}
	assert(held == mux->held && grown == mux->grown && grown <= mux->settings.session_window);
	assert((uint64_t)mux->may_receive + mux->held + mux->unreported == mux->settings.session_window);
	assert(n - n_lingering + mux->n_resets == mux->n_ours + mux->n_theirs && n_lingering == mux->n_lingering);
	assert(mux->n_ours <= mux->settings.max_ours && mux->n_lingering <= 2 * mux->settings.max_theirs);
	assert(mux->n_resets_theirs <= 2 * MUX_MAX_STREAMS && mux->n_resets <= ARRAY_LEN(mux->resets));
}
