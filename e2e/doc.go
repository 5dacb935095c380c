// Package e2e tests the dstack binary with real engines, in the way that users use it: by
// its command line, its files and its addresses. scripts/test.sh starts what the tests
// need; a test that misses something is skipped with a message that names it.
package e2e
