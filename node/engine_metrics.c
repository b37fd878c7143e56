/* What a monitor is told of a public node: figures, and whether it is well. */
#include "node/engine_internal.h"

#include "relay/relay_metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COUNT_FDS_MS 5000 /* however often it is asked for */

static double seconds_of(const struct timeval *time)
{
	return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

static uint64_t resident_bytes(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file)
		return 0;
	if (fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Linux says how many since 6.2. To count thousands takes milliseconds, in which no packet goes on. */
static uint32_t count_open_fds(void)
{
	struct stat size;
	uint32_t n = 0;

	if (stat("/proc/self/fd", &size) == 0 && size.st_size > 0)
		return (uint32_t)size.st_size;
	DIR *folder = opendir("/proc/self/fd");
	if (!folder)
		return 0;
	while (readdir(folder))
		n++;
	closedir(folder);
	return n > 3 ? n - 3 : 0; /* ".", "..", and the folder */
}

static uint32_t open_fds(struct p2p_engine *engine)
{
	const uint64_t now_ms = uv_now(engine->loop);

	if (now_ms >= engine->open_fds.until_ms) {
		engine->open_fds.n = count_open_fds();
		engine->open_fds.until_ms = now_ms + COUNT_FDS_MS;
	}
	return engine->open_fds.n;
}

static void fill_process(struct p2p_engine *engine, struct relay_metrics *metrics)
{
	struct rusage usage = { 0 };
	struct rlimit limit = { 0 };

	(void)getrusage(RUSAGE_SELF, &usage);
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	metrics->cpu_s = seconds_of(&usage.ru_utime) + seconds_of(&usage.ru_stime);
	metrics->started_s = (double)time(NULL) - (double)(uv_now(engine->loop) - engine->started_ms) / 1e3;
	metrics->resident_bytes = resident_bytes();
	metrics->open_fds = open_fds(engine);
	metrics->max_fds = (uint32_t)limit.rlim_cur;
}

/* What the figures are in until they are printed. */
struct doors {
	struct front_door_counters front, exposed;
	struct door_metrics_exposure exposures[EXPOSURE_MAX];
	char hosts[EXPOSURE_MAX][EXPOSURE_HOST_TEXT];
};

static void fill_doors(const struct p2p_engine *engine, struct doors *doors, struct door_metrics *metrics)
{
	if (engine->front_door) {
		doors->front = front_door_counters(engine->front_door);
		metrics->front = &doors->front;
	}
	if (!engine->acceptor || acceptor_port(engine->acceptor) == 0)
		return;
	doors->exposed = acceptor_counters(engine->acceptor);
	metrics->exposed = &doors->exposed;
	metrics->exposures = doors->exposures;
	metrics->n_exposures = acceptor_count(engine->acceptor);
	for (uint32_t i = 0; i < metrics->n_exposures; i++) {
		exposure_print_host(acceptor_get(engine->acceptor, i, &doors->exposures[i].counters), doors->hosts[i]);
		doors->exposures[i].host = doors->hosts[i];
	}
}

char *engine_metrics(struct p2p_engine *engine, const struct diglett_metrics *diglett,
		     const struct webgw_agent_counters *webgw_agent)
{
	struct doors doors;
	struct relay_metrics metrics = { .is_draining = engine->relay_drains,
					 .has_control = p2p_engine_get_state(engine) == P2P_ENGINE_ONLINE,
					 .diglett = *diglett };
	struct public_node_stats stats;

	if (engine->public_node) {
		stats = public_node_stats(engine->public_node);
		metrics.stats = &stats;
	}
	fill_doors(engine, &doors, &metrics.doors);
	metrics.webgw.has_links = engine_webgw_links(engine, &metrics.webgw.links);
	metrics.webgw.is_agent = webgw_agent != NULL;
	if (webgw_agent)
		metrics.webgw.agent = *webgw_agent;
	fill_process(engine, &metrics);
	return relay_metrics_text(&metrics);
}

const char *engine_health(const struct p2p_engine *engine)
{
	if (!engine->public_node)
		return engine->state == MEMBER ? "not serving: starting or ending"
					       : "not serving: this node is no member of a network";
	if (engine->relay_drains)
		return "draining: clients are sent away, none are taken";
	return NULL;
}
