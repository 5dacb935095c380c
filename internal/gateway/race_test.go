//go:build race

package gateway

// RaceEnabled reports that the race detector is on: then pools drop items at random, and
// everything takes ten times as long.
const RaceEnabled = true
