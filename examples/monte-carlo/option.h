/* The option: spot and strike price, yearly rate and volatility, years. */
#define SPOT 100.0
#define STRIKE 105.0
#define RATE 0.02
#define SIGMA 0.25
#define YEARS 1.0
