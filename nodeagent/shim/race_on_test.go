//go:build race

package shim

// raceEnabled: the binary under test is built like this test.
const raceEnabled = true
