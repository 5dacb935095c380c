package process_test

import (
	"os"
	"testing"

	"dstack/internal/dstack"
)

// BenchmarkStart is the time from Start to ready of a server that needs none.
func BenchmarkStart(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for b.Loop() {
		e := open(b, dir)
		o := order("exec " + self + " serve")
		o.Port = 11990
		o.Env["PORT"] = "11990"
		if err := e.Start(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		for ready := false; !ready; {
			all, err := e.Running(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range all {
				if r.State.IsOver() {
					b.Fatalf("%+v", r)
				}
				ready = r.Ready && r.State == dstack.AttemptRunning
			}
		}
		b.StopTimer()
		if err := e.Remove(b.Context(), o.Attempt); err != nil {
			b.Fatal(err)
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
