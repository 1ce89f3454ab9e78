/*
 * spawnloop: P threads that posix_spawn a program and wait for it, N times
 * together, and print the tasks per second.
 *
 *   spawnloop N P DIR CMD [ARG...]     DIR -: nothing but the program; else
 *                                      with files of its own there for output,
 *                                      a process group, that directory, usage
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static atomic_int next, bad;
static int total, all;
static char *dir, **command;

static int file(int i, const char *kind) {
	char name[4096];
	snprintf(name, sizeof name, "%s/%d.%s", dir, i, kind);
	return open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
}

static void *work(void *none) {
	int i, status, out = -1, err = -1;
	struct rusage used;
	while ((i = atomic_fetch_add(&next, 1)) < total) {
		posix_spawn_file_actions_t actions;
		posix_spawnattr_t attr;
		pid_t pid;
		if (all) {
			out = file(i, "out");
			err = file(i, "err");
			posix_spawn_file_actions_init(&actions);
			posix_spawn_file_actions_adddup2(&actions, out, 1);
			posix_spawn_file_actions_adddup2(&actions, err, 2);
			posix_spawn_file_actions_addchdir_np(&actions, dir);
			posix_spawnattr_init(&attr);
			posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
		}
		if (posix_spawn(&pid, command[0], all ? &actions : NULL, all ? &attr : NULL, command, environ) != 0 ||
		    wait4(pid, &status, 0, &used) != pid || status != 0)
			bad = 1;
		if (all) {
			posix_spawn_file_actions_destroy(&actions);
			posix_spawnattr_destroy(&attr);
			close(out);
			close(err);
		}
	}
	return none;
}

int main(int argc, char **argv) {
	pthread_t threads[64];
	struct timespec from, to;
	int i, workers;
	if (argc < 5)
		return 2;
	total = atoi(argv[1]);
	workers = atoi(argv[2]);
	if (workers < 1 || workers > 64)
		return 2;
	dir = argv[3];
	all = strcmp(dir, "-") != 0;
	command = argv + 4;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (i = 0; i < workers; i++)
		pthread_create(&threads[i], NULL, work, NULL);
	for (i = 0; i < workers; i++)
		pthread_join(threads[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%.1f\n", total / (to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9));
	return bad;
}
