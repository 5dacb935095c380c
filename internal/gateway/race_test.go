//go:build race

package gateway_test

// raced says that the race detector is on: then pools drop items at random, and
// everything takes ten times as long.
const raced = true
