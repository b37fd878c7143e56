/* What a program gives up that reads what strangers send, as the kernel tells it of a child that did. */
#include "common/service.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A line of /proc/self/status, as a number of that base. */
static unsigned long long status_of(const char *name, int base)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long ret = ~0ull;
	char line[256];

	assert(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
			ret = strtoull(line + strlen(name) + 1, NULL, base);
	fclose(file);
	return ret;
}

static void test_who_gives_up_all_has_nothing_and_gets_nothing(void)
{
	struct error error;
	int status;
	const pid_t child = fork();

	assert(child >= 0);
	if (child == 0) {
		assert(service_give_up_all(&error) == 0);
		assert(status_of("CapEff", 16) == 0 && status_of("CapPrm", 16) == 0 && status_of("CapInh", 16) == 0);
		assert(status_of("NoNewPrivs", 10) == 1);
#ifndef __SANITIZE_ADDRESS__
		assert(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
#endif
		_exit(0);
	}
	assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	test_who_gives_up_all_has_nothing_and_gets_nothing();
	puts("ok");
	return 0;
}
