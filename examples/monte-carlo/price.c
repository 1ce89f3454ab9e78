/*
 * price: the value of a European call by Monte Carlo. Writes "paths sum squares",
 * the discounted payoffs' sums, for seeds that belong to one batch.
 *
 *   price BATCH PATHS
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "option.h"

/* SplitMix64: a batch's numbers are a stream of their own. */
static uint64_t state;
static double uniform(void) {
	uint64_t z = state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return ((double)((z ^ (z >> 31)) >> 11) + 0.5) / 9007199254740992.0;
}

int main(int argc, char **argv) {
	if (argc != 3 || atol(argv[1]) < 1 || atol(argv[2]) < 1) {
		fprintf(stderr, "usage: price BATCH PATHS, both from 1\n");
		return 2;
	}
	long paths = atol(argv[2]) / 2 * 2;
	state = (uint64_t)atol(argv[1]) << 40;
	double drift = (RATE - 0.5 * SIGMA * SIGMA) * YEARS, spread = SIGMA * sqrt(YEARS), discount = exp(-RATE * YEARS), sum = 0, squares = 0;
	for (long i = 0; i < paths; i += 2) { /* Box and Muller's pairs */
		double r = sqrt(-2 * log(uniform())), a = 2 * M_PI * uniform(), z[2] = {r * cos(a), r * sin(a)};
		for (int k = 0; k < 2; k++) {
			double payoff = discount * fmax(SPOT * exp(drift + spread * z[k]) - STRIKE, 0);
			sum += payoff;
			squares += payoff * payoff;
		}
	}
	printf("%ld %.17g %.17g\n", paths, sum, squares);
	return 0;
}
