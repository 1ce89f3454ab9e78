/*
 * merge: reads the batches' results, each rank its share, adds them up over MPI
 * and holds the price to Black and Scholes' formula. Exit status 1: more than
 * four standard errors away.
 *
 *   merge DIR BATCHES
 */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "option.h"

static double normal(double x) { return 0.5 * erfc(-x / sqrt(2)); }

int main(int argc, char **argv) {
	int rank, size, batches = argc == 3 ? atoi(argv[2]) : 0;
	double mine[3] = {0, 0, 0}, all[3];
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	for (int b = 1 + rank; b <= batches; b += size) {
		char path[4096];
		double n, sum, squares;
		snprintf(path, sizeof path, "%s/%d", argv[1], b);
		FILE *f = fopen(path, "r");
		if (!f || fscanf(f, "%lf %lf %lf", &n, &sum, &squares) != 3) {
			fprintf(stderr, "merge: no result in %s\n", path);
			MPI_Abort(MPI_COMM_WORLD, 1);
		}
		fclose(f);
		mine[0] += n;
		mine[1] += sum;
		mine[2] += squares;
	}
	MPI_Reduce(mine, all, 3, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
	int bad = 0;
	if (rank == 0) {
		double price = all[1] / all[0], error = sqrt((all[2] / all[0] - price * price) / all[0]);
		double d1 = (log(SPOT / STRIKE) + (RATE + SIGMA * SIGMA / 2) * YEARS) / (SIGMA * sqrt(YEARS)), d2 = d1 - SIGMA * sqrt(YEARS);
		double exact = SPOT * normal(d1) - STRIKE * exp(-RATE * YEARS) * normal(d2);
		bad = !(fabs(price - exact) <= 4 * error);
		printf("%.0f paths in %d batches, merged by %d ranks: %.4f +- %.4f, by formula %.4f\n", all[0], batches, size, price, error, exact);
	}
	MPI_Finalize();
	return bad;
}
