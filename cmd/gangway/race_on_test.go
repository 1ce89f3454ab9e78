//go:build race

package main

// raceEnabled: the binary under test is built like this test.
const raceEnabled = true
