/* A small task that writes down that it ran: smalltask DIR SEED appends the line
 * "index attempt pid" to DIR/effects.NODE with one write. What else it does follows
 * from the index and the seed; taskchaos_linux_test.go has the same table. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

int main(int argc, char **argv)
{
	const char *index = getenv("GANGWAY_ARRAY_INDEX"), *attempt = getenv("GANGWAY_ATTEMPT"), *node = getenv("GANGWAY_NODE");
	if (argc != 3 || !index || !attempt || !node)
		return 9;
	char path[4096], line[128];
	if (snprintf(path, sizeof path, "%s/effects.%s", argv[1], node) >= (int)sizeof path)
		return 9;
	int n = snprintf(line, sizeof line, "%s %s %ld\n", index, attempt, (long)getpid());
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, line, n) != n)
		return 9;
	uint64_t h = mix(strtoull(argv[2], 0, 10) * 1000003 + strtoull(index, 0, 10)) % 1000;
	if (h < 10) { /* a slow one */
		struct timespec t = {0, 20 * 1000 * 1000};
		nanosleep(&t, 0);
	} else if (h < 20) { /* fails at first */
		if (!strcmp(attempt, "1"))
			return 3;
	} else if (h < 23) { /* leaves something in a session of its own */
		if (fork() == 0) {
			setsid();
			sleep(60);
			_exit(0);
		}
	} else if (h < 123) { /* says something */
		if (write(1, line, n) != n)
			return 9;
	}
	return 0;
}
