/*
 * spawn: starts a program N times, at most P at once, and waits for all: the
 * least that starting so many processes on this machine costs.
 *
 *   spawn N P CMD [ARG…]
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv) {
	int left, most, running = 0, bad = 0, status;
	if (argc < 4) {
		fprintf(stderr, "usage: spawn N P CMD [ARG...]\n");
		return 2;
	}
	left = atoi(argv[1]);
	most = atoi(argv[2]);
	while (left > 0 || running > 0) {
		if (left > 0 && running < most) {
			pid_t pid;
			errno = posix_spawnp(&pid, argv[3], NULL, NULL, argv + 3, environ);
			if (errno != 0) {
				perror(argv[3]);
				return 1;
			}
			left--;
			running++;
			continue;
		}
		if (wait(&status) < 0) {
			perror("wait");
			return 1;
		}
		running--;
		bad |= status != 0;
	}
	return bad;
}
