/*
 * phases PHASE DIR: a program that can be caught in the middle of MPI_Init, of
 * a collective or of MPI_Finalize (PHASE: init, collective, finalize; none).
 *
 * The last rank stays out of the call until DIR/gate is there; the others write
 * DIR/RANK and go in, and so are inside until then. Once DIR/killed is there a
 * new run of the program holds nothing up, and its ranks write the names of their
 * hosts to DIR/used. Rank 0 writes the ranks' sum at the
 * end. Before MPI_Init a rank is what GANGWAY_RANK and GANGWAY_NRANKS say.
 */
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *phase, *dir;
static int rank, size, free_run;

static int there(const char *name) {
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

static void at(const char *point) {
	char name[4096];
	int fd;
	if (free_run || strcmp(point, phase) != 0) return;
	snprintf(name, sizeof name, "%s/%d", dir, rank);
	fd = open(name, O_CREAT | O_WRONLY, 0644);
	if (fd >= 0) close(fd);
	if (rank == size - 1)
		while (!there("gate")) usleep(10000);
}

static void used(void) {
	char name[4096], host[256];
	FILE *f;
	snprintf(name, sizeof name, "%s/used", dir);
	if (gethostname(host, sizeof host) != 0 || (f = fopen(name, "a")) == NULL) return;
	fprintf(f, "%s\n", host);
	fclose(f);
}

int main(int argc, char **argv) {
	const char *r = getenv("GANGWAY_RANK"), *n = getenv("GANGWAY_NRANKS");
	long sum = 0, mine;
	int world, of;
	if (argc != 3 || r == NULL || n == NULL) return 2;
	phase = argv[1];
	dir = argv[2];
	rank = atoi(r);
	size = atoi(n);
	free_run = there("killed");
	if (free_run) used();
	at("init");
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &world);
	MPI_Comm_size(MPI_COMM_WORLD, &of);
	if (world != rank || of != size) {
		fprintf(stderr, "rank %d of %d in MPI, %d of %d for gangway\n", world, of, rank, size);
		MPI_Abort(MPI_COMM_WORLD, 3);
	}
	/* All know all before one is held up: who connects late would wait for it. */
	MPI_Barrier(MPI_COMM_WORLD);
	at("collective");
	mine = rank;
	MPI_Allreduce(&mine, &sum, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
	if (rank == 0) {
		printf("sum %ld of %d ranks\n", sum, size);
		fflush(stdout);
	}
	/* MPICH 4.0.2 over UCX hangs in MPI_Finalize now and then without it. */
	usleep(100000);
	at("finalize");
	MPI_Finalize();
	return sum == (long)size * (size - 1) / 2 ? 0 : 1;
}
