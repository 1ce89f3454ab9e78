/*
 * spawnloop: P processes that posix_spawn a program and wait for it, N times
 * together, and print the tasks per second.
 *
 *   spawnloop N P DIR CMD [ARG...]     DIR -: nothing but the program; else
 *                                      with files of its own there for output,
 *                                      a process group, that directory, usage
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static atomic_int *next; /* shared */
static int total, all;
static char *dir, **command;

static int file(int i, const char *kind) {
	char name[4096];
	snprintf(name, sizeof name, "%s/%d.%s", dir, i, kind);
	return open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
}

static int work(void) {
	int i, status, out = -1, err = -1, bad = 0;
	struct rusage used;
	while ((i = atomic_fetch_add(next, 1)) < total) {
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
	return bad;
}

int main(int argc, char **argv) {
	struct timespec from, to;
	int i, workers, status, bad = 0;
	if (argc < 5)
		return 2;
	total = atoi(argv[1]);
	workers = atoi(argv[2]);
	dir = argv[3];
	all = strcmp(dir, "-") != 0;
	command = argv + 4;
	next = mmap(NULL, sizeof *next, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (next == MAP_FAILED)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (i = 0; i < workers; i++)
		if (fork() == 0)
			_exit(work());
	for (i = 0; i < workers; i++)
		bad |= wait(&status) < 0 || status != 0;
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%.1f\n", total / (to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9));
	return bad;
}
