package main

import (
	"strings"
	"testing"
)

func TestDescribeRunning(t *testing.T) {
	for _, c := range []struct {
		names    []string
		replicas int
		want     []string
	}{
		{[]string{"web"}, 1, []string{"1 service keeps running: web (1 replica)", "dstack stop web"}},
		{[]string{"web", "llama"}, 3, []string{"2 services keep running: web, llama (3 replicas)", "dstack stop --all"}},
		{[]string{"a", "b", "c", "d", "e", "f", "g"}, 7, []string{"7 services keep running: a, b, c, d, e and 2 more (7 replicas)"}},
	} {
		got := describeRunning(c.names, c.replicas)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v: %q is missing in\n%s", c.names, want, got)
			}
		}
	}
}
