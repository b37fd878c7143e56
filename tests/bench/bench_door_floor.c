/*
 * bench_door_floor epoll|uring PORT TARGET_PORT: what the kernel alone takes for a front door's visits, on 127.0.0.1. No hosts, no
 * bounds, no deadlines, no counters: what comes first of a visitor goes to the target as it came, what that answers comes back, its end
 * as an end, and the visitor's end closes both. Only for visitors of `bench_door_load connect`: who does not take all at once loses it.
 *
 *   epoll  the calls that the front door makes for such a visit, and it rests in a crowd, and looks for who comes alone, as that does
 *          (relay/frontdoor/door_thread.c)
 *   uring  io_uring in their place. Accepting is asked for once, and tells no address, so it does less than a door has to. The target's
 *          socket is in no table of descriptors, and made, connected, given what came and listened to in one chain. The visitor's is
 *          an ordinary one: IORING_OP_SHUTDOWN wakes another thread, shutdown(2) does not
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS	     16384
#define PIECE	     1024
#define EVENTS	     256
#define ACCEPT_A_TURN 64
#define WATCHED	     (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET)
#define NAP_NS	     50000
#define LOOK_NS	     50000
#define CROWD	     2
#define CROWD_NS     2000000
#define MANY_EVENTS  32
#define SLACK_NS     1000UL

#define ENTRIES	 1024
#define COMPLETE 16384
#define CHAIN	 5 /* the longest */
/* In <linux/io_uring.h> since Linux 6.7. */
#define URING_SETSOCKOPT 3

static struct sockaddr_in target;
static int listener;
static const int one = 1;

static struct {
	uint64_t until_ns; /* of a crowd */
	uint32_t n_events, n_visitors;
} turn;

_Noreturn static void fail(const char *what)
{
	fprintf(stderr, "bench_door_floor: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct sockaddr_in place(const char *port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons((uint16_t)atoi(port)),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static int listen_at(const struct sockaddr_in *address, int flags)
{
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
	    bind(fd, (const void *)address, sizeof(*address)) != 0 || listen(fd, SOMAXCONN) != 0)
		fail("listen");
	return fd;
}

/* True: it rested, and many have come meanwhile. */
static bool rest_in_crowd(void)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };

	if (turn.n_events >= MANY_EVENTS || now_ns() > turn.until_ns)
		return false;
	(void)nanosleep(&nap, NULL);
	return true;
}

static void begin_turn(uint32_t n_events)
{
	turn.n_events = n_events;
	turn.n_visitors = 0;
}

static void end_turn(void)
{
	if (turn.n_visitors >= CROWD)
		turn.until_ns = now_ns() + CROWD_NS;
}

/* ---- epoll ---- */

static struct {
	int fd;
	struct visit {
		int other; /* -1: none yet */
		bool is_target;
		bool is_watched;
	} visits[MAX_FDS];
	uint8_t piece[PIECE];
} epoll;

static bool watch(int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(epoll.fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static int connect_to_target(void)
{
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || fd >= MAX_FDS || setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &one, sizeof(one)) != 0 ||
	    (connect(fd, (const void *)&target, sizeof(target)) != 0 && errno != EINPROGRESS))
		fail("connect");
	return fd;
}

static void lead(int fd)
{
	struct visit *visit = &epoll.visits[fd];
	const ssize_t n = recv(fd, epoll.piece, sizeof(epoll.piece), 0);

	if (n < 0 && errno == EAGAIN) {
		visit->is_watched = visit->is_watched || watch(fd, WATCHED);
		return;
	}
	if (n <= 0) {
		close(fd);
		return;
	}
	visit->other = connect_to_target();
	epoll.visits[visit->other] = (struct visit){ .other = fd, .is_target = true };
	(void)send(visit->other, epoll.piece, (size_t)n, MSG_NOSIGNAL);
	if (!watch(visit->other, WATCHED) || (!visit->is_watched && !watch(fd, WATCHED)))
		fail("epoll_ctl");
}

/* The last of it with its end in one segment. */
static void give_back(int fd, uint32_t events)
{
	const int visitor = epoll.visits[fd].other;
	const ssize_t n = recv(fd, epoll.piece, sizeof(epoll.piece), 0);
	const bool has_ended = n == 0 || (n > 0 && (events & EPOLLRDHUP)) || (n < 0 && errno != EAGAIN);

	if (n > 0)
		(void)send(visitor, epoll.piece, (size_t)n, MSG_NOSIGNAL | (has_ended ? MSG_MORE : 0));
	if (has_ended)
		(void)shutdown(visitor, SHUT_WR);
}

static void hear(int fd)
{
	const ssize_t n = recv(fd, epoll.piece, sizeof(epoll.piece), 0);

	if (n > 0 || (n < 0 && errno == EAGAIN))
		return;
	close(fd);
	close(epoll.visits[fd].other);
}

static void ask_in(void)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	int fd;

	for (int i = 0; i < ACCEPT_A_TURN; i++, len = sizeof(address)) {
		fd = accept4(listener, (void *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		if (fd >= MAX_FDS)
			fail("accept");
		epoll.visits[fd] = (struct visit){ .other = -1 };
		turn.n_visitors++;
		lead(fd);
	}
}

static int wait_for_events(struct epoll_event *events)
{
	int n = 0;

	if (!rest_in_crowd()) {
		const uint64_t until_ns = now_ns() + LOOK_NS;
		while ((n = epoll_wait(epoll.fd, events, EVENTS, 0)) == 0 && now_ns() < until_ns)
			sched_yield();
	}
	return n != 0 ? n : epoll_wait(epoll.fd, events, EVENTS, -1);
}

static _Noreturn void run_epoll(const struct sockaddr_in *address)
{
	struct epoll_event events[EVENTS];

	listener = listen_at(address, SOCK_NONBLOCK);
	epoll.fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll.fd < 0 || !watch(listener, EPOLLIN))
		fail("epoll");
	for (;;) {
		const int n = wait_for_events(events);
		begin_turn(n > 0 ? (uint32_t)n : 0);
		for (int i = 0; i < n; i++) {
			const int fd = events[i].data.fd;
			if (fd == listener)
				ask_in();
			else if (epoll.visits[fd].is_target)
				give_back(fd, events[i].events);
			else if (epoll.visits[fd].other < 0)
				lead(fd);
			else
				hear(fd);
		}
		end_turn();
	}
}

/* ---- io_uring ---- */

/* What an entry was for; the visitor's descriptor is the other half of its user_data, and its target's place in the table of files. */
enum deed { ACCEPTED, CAME, CHAINED, ANSWERED, ENDED, DONE };

static struct {
	int fd;
	uint32_t *tail, *done_head, *done_tail;
	uint32_t mask, done_mask;
	uint32_t next, given; /* entries: written, and told of */
	struct io_uring_sqe *entries;
	struct io_uring_cqe *complete;
	uint8_t (*pieces)[PIECE];
} ring;

static void enter(uint32_t n_awaited, uint32_t flags)
{
	__atomic_store_n(ring.tail, ring.next, __ATOMIC_RELEASE);
	const long n = syscall(__NR_io_uring_enter, ring.fd, ring.next - ring.given, n_awaited, flags, NULL, 0);
	if (n < 0 && errno != EINTR && errno != EAGAIN)
		fail("io_uring_enter");
	ring.given += n > 0 ? (uint32_t)n : 0;
}

/* What is a chain has to be told of in one call. */
static void make_room(uint32_t n)
{
	while (ring.next - ring.given + n > ENTRIES)
		enter(0, 0);
}

static struct io_uring_sqe *entry(uint8_t operation, int fd, enum deed deed, int visitor, uint8_t flags)
{
	struct io_uring_sqe *ret = &ring.entries[ring.next++ & ring.mask];

	*ret = (struct io_uring_sqe){ .opcode = operation,
				      .fd = fd,
				      .flags = flags,
				      .user_data = (uint64_t)deed << 32 | (uint32_t)visitor };
	return ret;
}

static void ask_to_accept(void)
{
	struct io_uring_sqe *accept = entry(IORING_OP_ACCEPT, listener, ACCEPTED, 0, 0);

	accept->ioprio = IORING_ACCEPT_MULTISHOT;
	accept->accept_flags = SOCK_CLOEXEC;
}

static void ask_to_receive(int fd, enum deed deed, int visitor, uint8_t flags, bool is_there)
{
	struct io_uring_sqe *receive = entry(IORING_OP_RECV, fd, deed, visitor, flags);

	receive->addr = (uintptr_t)ring.pieces[visitor];
	receive->len = PIECE;
	receive->ioprio = (uint16_t)(is_there ? 0 : IORING_RECVSEND_POLL_FIRST); /* else it is tried in vain */
}

static void ask_to_send(int fd, int visitor, uint32_t n, uint8_t flags, uint32_t how)
{
	struct io_uring_sqe *send = entry(IORING_OP_SEND, fd, CHAINED, visitor, flags | IOSQE_CQE_SKIP_SUCCESS);

	send->addr = (uintptr_t)ring.pieces[visitor];
	send->len = n;
	send->msg_flags = MSG_NOSIGNAL | how;
}

/* As connect_to_target() has it. */
static void ask_to_connect(int visitor, uint8_t link)
{
	struct io_uring_sqe *next = entry(IORING_OP_SOCKET, AF_INET, CHAINED, visitor, link);

	next->off = SOCK_STREAM;
	next->file_index = (uint32_t)visitor + 1;
	next = entry(IORING_OP_URING_CMD, visitor, CHAINED, visitor, link | IOSQE_FIXED_FILE);
	next->cmd_op = URING_SETSOCKOPT;
	next->addr = IPPROTO_TCP | (uint64_t)TCP_DEFER_ACCEPT << 32; /* two words, of a machine that has the lower one first */
	next->file_index = sizeof(one);
	next->addr3 = (uintptr_t)&one;
	next = entry(IORING_OP_CONNECT, visitor, CHAINED, visitor, link | IOSQE_FIXED_FILE);
	next->addr = (uintptr_t)&target;
	next->off = sizeof(target);
}

static void ask_target(int visitor, uint32_t n)
{
	const uint8_t link = IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;

	make_room(CHAIN);
	ask_to_connect(visitor, link);
	ask_to_send(visitor, visitor, n, link | IOSQE_FIXED_FILE, 0);
	ask_to_receive(visitor, ANSWERED, visitor, IOSQE_FIXED_FILE, false);
}

static void ask_to_close(int visitor, bool with_target)
{
	make_room(2);
	if (with_target)
		entry(IORING_OP_CLOSE, 0, DONE, 0, IOSQE_CQE_SKIP_SUCCESS)->file_index = (uint32_t)visitor + 1;
	(void)entry(IORING_OP_CLOSE, visitor, DONE, 0, IOSQE_CQE_SKIP_SUCCESS);
}

/* Whether there is more, which may be its end, is told with what came. */
static void on_answer(int visitor, int n, bool has_more)
{
	make_room(2);
	if (n > 0) {
		ask_to_send(visitor, visitor, (uint32_t)n, 0, has_more ? MSG_MORE : 0);
		ask_to_receive(visitor, ANSWERED, visitor, IOSQE_FIXED_FILE, has_more);
		return;
	}
	(void)shutdown(visitor, SHUT_WR);
	ask_to_receive(visitor, ENDED, visitor, 0, false);
}

static void on_complete(const struct io_uring_cqe *complete)
{
	const int visitor = (int)(uint32_t)complete->user_data, n = complete->res;

	make_room(1);
	switch ((enum deed)(complete->user_data >> 32)) {
	case ACCEPTED:
		if (!(complete->flags & IORING_CQE_F_MORE))
			ask_to_accept();
		if (n < 0 || n >= MAX_FDS)
			fail("accept");
		turn.n_visitors++;
		make_room(1);
		ask_to_receive(n, CAME, n, 0, true);
		break;
	case CAME:
		if (n > 0)
			ask_target(visitor, (uint32_t)n);
		else
			ask_to_close(visitor, false);
		break;
	case ANSWERED:
		on_answer(visitor, n, complete->flags & IORING_CQE_F_SOCK_NONEMPTY);
		break;
	case ENDED:
		if (n > 0)
			ask_to_receive(visitor, ENDED, visitor, 0, false);
		else
			ask_to_close(visitor, true);
		break;
	case CHAINED: /* it broke, and what is behind it says so */
	case DONE:
		break;
	}
}

static void *map(size_t size, off_t at)
{
	void *ret = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, at);

	if (ret == MAP_FAILED)
		fail("mmap");
	return ret;
}

static void map_ring(const struct io_uring_params *p)
{
	const size_t size = p->sq_off.array + p->sq_entries * sizeof(uint32_t),
		     done = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	uint8_t *bytes = map(size > done ? size : done, IORING_OFF_SQ_RING);
	uint32_t *array = (void *)(bytes + p->sq_off.array);

	ring.entries = map(p->sq_entries * sizeof(*ring.entries), IORING_OFF_SQES);
	ring.tail = (void *)(bytes + p->sq_off.tail);
	ring.mask = p->sq_entries - 1;
	ring.done_head = (void *)(bytes + p->cq_off.head);
	ring.done_tail = (void *)(bytes + p->cq_off.tail);
	ring.done_mask = p->cq_entries - 1;
	ring.complete = (void *)(bytes + p->cq_off.cqes);
	for (uint32_t i = 0; i < p->sq_entries; i++)
		array[i] = i;
}

static void open_ring(void)
{
	struct io_uring_params params = { .flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
						   IORING_SETUP_COOP_TASKRUN | IORING_SETUP_DEFER_TASKRUN,
					  .cq_entries = COMPLETE };
	struct io_uring_rsrc_register files = { .nr = MAX_FDS, .flags = IORING_RSRC_REGISTER_SPARSE };

	ring.fd = (int)syscall(__NR_io_uring_setup, ENTRIES, &params);
	if (ring.fd < 0 || syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_FILES2, &files, sizeof(files)) != 0)
		fail("io_uring");
	map_ring(&params);
	ring.pieces = calloc(MAX_FDS, sizeof(*ring.pieces));
	if (!ring.pieces)
		fail("memory");
}

static bool has_complete(void)
{
	return __atomic_load_n(ring.done_tail, __ATOMIC_ACQUIRE) != *ring.done_head;
}

static void wait_for_complete(void)
{
	const uint64_t until_ns = now_ns() + LOOK_NS;

	enter(0, IORING_ENTER_GETEVENTS); /* who waits for it has it before the rest */
	if (!rest_in_crowd())
		while (!has_complete() && now_ns() < until_ns) {
			sched_yield();
			enter(0, IORING_ENTER_GETEVENTS);
		}
	if (!has_complete())
		enter(1, IORING_ENTER_GETEVENTS);
}

static _Noreturn void run_uring(const struct sockaddr_in *address)
{
	listener = listen_at(address, 0);
	open_ring();
	ask_to_accept();
	for (;;) {
		wait_for_complete();
		uint32_t head = *ring.done_head;
		const uint32_t tail = __atomic_load_n(ring.done_tail, __ATOMIC_ACQUIRE);
		begin_turn(tail - head);
		for (; head != tail; head++)
			on_complete(&ring.complete[head & ring.done_mask]);
		__atomic_store_n(ring.done_head, head, __ATOMIC_RELEASE);
		end_turn();
	}
}

int main(int argc, char *argv[])
{
	struct rlimit files;

	if (argc != 4 || (strcmp(argv[1], "epoll") != 0 && strcmp(argv[1], "uring") != 0)) {
		fputs("bench_door_floor epoll|uring PORT TARGET_PORT\n", stderr);
		return EXIT_FAILURE;
	}
	const struct sockaddr_in address = place(argv[2]);
	target = place(argv[3]);
	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < MAX_FDS ? files.rlim_max : MAX_FDS;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)prctl(PR_SET_TIMERSLACK, SLACK_NS); /* as the front door's thread, for its rests */
	if (strcmp(argv[1], "epoll") == 0)
		run_epoll(&address);
	run_uring(&address);
}
