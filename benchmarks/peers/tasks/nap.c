/* nap: sleeps so many microseconds, as little else as a process can do. */
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
	long us = argc > 1 ? atol(argv[1]) : 0;
	struct timespec t = {us / 1000000, us % 1000000 * 1000};
	return us > 0 && nanosleep(&t, NULL) != 0;
}
