package gateway_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"testing"

	"dstack/internal/gateway"
)

// serveRaw answers each request, which ends with last, with the same bytes.
func serveRaw(t testing.TB, last string, reply []byte) string {
	t.Helper()
	replica, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { replica.Close() })
	go func() {
		for {
			conn, err := replica.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if !bytes.HasSuffix(buffer[:n], []byte(last)) {
						continue
					}
					if _, err := conn.Write(reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	return replica.Addr().String()
}

const chatAnswer = `{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a word, and some more"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":7,"total_tokens":19}}`

// chatCaller returns a function that sends a call to a model over one connection.
func chatCaller(t testing.TB) (r *testGateway, call func()) {
	reply := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: x\r\nContent-Length: %d\r\n\r\n%s", len(chatAnswer), chatAnswer)
	r = startGatewayWith(t, gateway.Options{Log: slog.New(slog.DiscardHandler)}, modelRoute("m", "org/m", targetAt(serveRaw(t, "]}", []byte(reply)), 0)))
	conn := r.dialGateway()
	body := `{"model":"org/m","messages":[{"role":"user","content":"Tell me about the quick brown fox."}]}`
	request := []byte(fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", member, len(body), body))
	answer := make([]byte, 4096)
	return r, func() {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(answer)
		if err != nil || !bytes.HasSuffix(answer[:n], []byte("19}}")) {
			t.Fatalf("%v %q", err, answer[:n])
		}
	}
}

// A call to a model takes almost no memory: its model is found, its tokens are counted.
func TestFast_AllocationsOfACall(t *testing.T) {
	most := 0.1
	if gateway.RaceEnabled { // memory cannot be measured; scripts/test.sh runs the test without the detector, too
		most = 1000
	}
	r, call := chatCaller(t)
	for range 100 {
		call()
	}
	const calls = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		call()
	}
	runtime.ReadMemStats(&after)
	each := float64(after.Mallocs-before.Mallocs) / calls
	t.Logf("%.3f allocations a call", each)
	if each > most || r.fast.Load() < calls {
		t.Errorf("%.3f allocations a call; %d of %d are fast", each, r.fast.Load(), calls)
	}
}

func BenchmarkFast_Call(b *testing.B) {
	_, call := chatCaller(b)
	for b.Loop() {
		call()
	}
}
