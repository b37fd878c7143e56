/* p2pctl: the command line of the local node and, with an admin link, of control. */
#include "ctl/ctl.h"

#include <signal.h>
#include <sodium.h>
#include <stdlib.h>

int main(int argc, char *argv[])
{
	signal(SIGPIPE, SIG_IGN);
	if (sodium_init() < 0)
		abort();
	return ctl_main(argc, argv, stdin, stdout, stderr);
}
