/* p2pctl: the command line of the local node and, with an admin link, of control. */
#include "common/log.h"
#include "ctl/ctl.h"

#include <signal.h>
#include <sodium.h>
#include <stdlib.h>

int main(int argc, char *argv[])
{
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_ERROR); /* what goes wrong is told in words of our own */
	if (sodium_init() < 0)
		abort();
	return ctl_main(argc, argv, stdin, stdout, stderr);
}
