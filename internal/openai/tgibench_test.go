package openai_test

import (
	"io"
	"runtime"
	"testing"

	"dstack/internal/openai"
)

func BenchmarkStream_Event(b *testing.B) {
	for name, more := range map[string]string{"plain": ``, "stops": `,"stop":["END","\n\n\n","<|x|>"]`, "logprobs": `,"logprobs":true`} {
		b.Run(name, func(b *testing.B) {
			s := chatStream(b, more).Stream(io.Discard)
			event := []byte(piece(" learning"))
			b.SetBytes(int64(len(event)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Feed(0, event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream_Held measures the memory of an open stream in the middle of
// an event, with its request.
func BenchmarkStream_Held(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		const many = 2000
		held := make([]*openai.TGIStream, many)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range held {
			held[i] = chatStream(b, `,"stop":["END"]`).Stream(io.Discard)
			if err := held[i].Feed(0, []byte(piece("a")+piece("bE")+piece("c")[:60])); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/stream")
		runtime.KeepAlive(held)
	}
}

func BenchmarkReadTGI(b *testing.B) {
	body := []byte(`{"model":"org/llama","messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hello, how are you today?"}],"temperature":0.7,"stream":true}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := openai.ReadTGI(chatCall, body, llama(), 0); err != nil {
			b.Fatal(err)
		}
	}
}
