//go:build race

package gateway_test

// raced says that the detector of races is on: then pools forget at random,
// and all takes ten times as long.
const raced = true
