/*
 * hello: one line a rank, and a line from rank 0 with the result of a
 * reduction that only comes out right when all ranks are in one world.
 *
 *   hello 1/4 on n1 cpus 0-1 Open MPI v4.1.4
 *   sum 6 of 4 ranks
 *
 * HELLO_FAIL=R:STATUS makes rank R exit with STATUS after the first barrier;
 * HELLO_SLEEP=SECONDS keeps the ranks in the world that long;
 * HELLO_PAUSE=MILLISECONDS is slept before MPI_Finalize, 100 if not set:
 * Debian's MPICH 4.0.2 over TCP (UCX 1.13) hangs there in about every third
 * run, under any launcher, when the ranks come straight out of a collective.
 * HELLO_BYTES=N reduces N bytes instead of one number (for counters).
 */
#define _GNU_SOURCE
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* cpulist writes this process's cpus as Linux writes a list: 0-2,5. */
static void cpulist(char *out, size_t len) {
	cpu_set_t *set = NULL;
	size_t size = 0;
	int n, cpu, first = 1;
	size_t used = 0;

	/* The kernel refuses a mask smaller than its own: grow until it fits. */
	for (n = 1024; n <= 1 << 20; n *= 2) {
		set = CPU_ALLOC(n);
		size = CPU_ALLOC_SIZE(n);
		if (set == NULL) break;
		CPU_ZERO_S(size, set);
		if (sched_getaffinity(0, size, set) == 0) break;
		CPU_FREE(set);
		set = NULL;
	}
	out[0] = 0;
	if (set == NULL) return;
	for (cpu = 0; cpu < n && used + 32 < len; cpu++) {
		int last;
		if (!CPU_ISSET_S(cpu, size, set)) continue;
		for (last = cpu; last + 1 < n && CPU_ISSET_S(last + 1, size, set); last++) {}
		used += snprintf(out + used, len - used, "%s%d", first ? "" : ",", cpu);
		if (last > cpu) used += snprintf(out + used, len - used, "-%d", last);
		first = 0;
		cpu = last;
	}
	CPU_FREE(set);
}

int main(int argc, char **argv) {
	int rank, size, len, failing, status;
	long sum = 0, mine;
	char host[256], cpus[1024], version[MPI_MAX_LIBRARY_VERSION_STRING];
	const char *env;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	MPI_Get_library_version(version, &len);
	/* Some libraries return a page; what matters is its beginning. */
	version[strcspn(version, ",\n")] = 0;
	for (char *p = version; *p; p++)
		if (*p == '\t') *p = ' ';
	gethostname(host, sizeof host);
	host[sizeof host - 1] = 0;
	cpulist(cpus, sizeof cpus);

	mine = rank;
	MPI_Allreduce(&mine, &sum, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
	if ((env = getenv("HELLO_BYTES")) != NULL) {
		int count = atoi(env);
		char *a = calloc(count > 0 ? count : 1, 1), *b = calloc(count > 0 ? count : 1, 1);
		if (a == NULL || b == NULL) MPI_Abort(MPI_COMM_WORLD, 3);
		MPI_Allreduce(a, b, count, MPI_CHAR, MPI_SUM, MPI_COMM_WORLD);
		free(a);
		free(b);
	}
	printf("hello %d/%d on %s cpus %s %s\n", rank, size, host, cpus, version);
	if (rank == 0) printf("sum %ld of %d ranks\n", sum, size);
	fflush(stdout);
	if ((env = getenv("HELLO_FAIL")) != NULL && sscanf(env, "%d:%d", &failing, &status) == 2 && failing == rank)
		_exit(status);
	if ((env = getenv("HELLO_SLEEP")) != NULL) sleep(atoi(env));
	env = getenv("HELLO_PAUSE");
	usleep(1000 * (env != NULL ? atoi(env) : 100));
	MPI_Finalize();
	return sum == (long)size * (size - 1) / 2 ? 0 : 1;
}
