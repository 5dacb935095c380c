// Package e2e tests the real binary against real engines, as a user would:
// by its command line, its files and its addresses. scripts/test.sh brings
// what the tests need; a test whose piece is missing is skipped by its name.
package e2e
