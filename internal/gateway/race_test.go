//go:build race

package gateway_test

// raceEnabled reports that the race detector is on: then pools drop items at random, and
// everything takes ten times as long.
const raceEnabled = true
