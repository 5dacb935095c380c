package process_test

import (
	"os"
	"testing"

	"dstack/internal/dstack"
)

// BenchmarkStart measures the time from Start until a small web server is ready.
func BenchmarkStart(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for b.Loop() {
		e := openEngine(b, dir)
		spec := newSpec("exec " + self + " serve")
		spec.Port = 11990
		spec.Env["PORT"] = "11990"
		if err := e.Start(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
		for ready := false; !ready; {
			all, err := e.ListReports(b.Context())
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
		if err := e.Remove(b.Context(), spec.Attempt); err != nil {
			b.Fatal(err)
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
