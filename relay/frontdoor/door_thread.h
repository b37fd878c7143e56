/*
 * The front door's thread: everything that front_door.h draws on the right. One thread; door_thread_turn() is its only
 * waiting point. Only front_door.c and its test include this.
 */
#pragma once

#include "relay/frontdoor/door_datagrams.h"
#include "relay/frontdoor/front_door.h"

struct dial_exchange;
struct hand_over;
struct door_thread;
struct watch;

/* fds: listening, non-blocking, and one that is readable when there is word (an eventfd, read here); all borrowed. */
P2P_CHECK int door_thread_new(const struct front_door_options *options, const int *listeners, int wake_fd,
			      struct door_thread **ret);
/*
 * Its turns are another's too: whose descriptor is readable is told in the same thread. Level-triggered; both borrowed.
 * struct watch: splice_pump.h. 0 or -errno.
 */
P2P_CHECK int door_thread_also_watch(struct door_thread *door, int fd, struct watch *watch);
/* Once, before the first turn: agents dial back to this listener; both are borrowed. 0 or -errno. */
P2P_CHECK int door_thread_open_dial_back(struct door_thread *door, int listener, struct dial_exchange *exchange);
/* Once, before the first turn: who wants the relay at front_door_options.is_relays goes there, and wake is called. Borrowed. */
void door_thread_share_relay(struct door_thread *door, struct hand_over *for_relay, struct hand_over *dial_backs, void (*wake)(void *owner),
			     void *owner);
/*
 * Between turns, and nobody turns any more: all streams that are whole, and who has not said yet whom he wants, are put into the
 * queue, for the door that runs next; they are gone from here. queue: see stream_queue.h.
 */
void door_thread_hand_streams_over(struct door_thread *door, struct stream_queue *queue);
/* Once, before the first turn and with routes: those that the door before has put there. The queue is empty, and closed. */
void door_thread_take_streams(struct door_thread *door, struct stream_queue *queue);
/* The loop has answered whose agents are to dial back. */
void door_take_answers(struct door_thread *door);
/* Resets all visitors. Accepts NULL. */
void door_thread_free(struct door_thread *door);
/* Of UDP's ports, borrowed to the end of the thread; before its first routes. It is watched. 0 or -errno. */
P2P_CHECK int door_thread_use_datagrams(struct door_thread *door, struct door_datagrams *datagrams);
/* Borrowed until the next are set; NULL: no host is known. */
void door_thread_set_routes(struct door_thread *door, const struct door_routes *routes);
/* Visitors' sockets are as the one that they came to. sockets: see tcp_listen(). 0 or -errno. */
P2P_CHECK int door_open_listener(const struct endpoint *address, const struct listen_sockets *sockets, int *ret,
				 struct error *reterr);
/* *ret is borrowed. How often they were written: as often they may have changed. */
uint64_t door_thread_ports(const struct door_thread *door, const struct port_states **ret);
/* Waits for something and does it. True: there is word. */
bool door_thread_turn(struct door_thread *door);
struct front_door_counters door_thread_counters(const struct door_thread *door);
