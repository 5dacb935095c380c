package httpwire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strings"
	"testing"

	"dstack/internal/httpwire"
)

// gathered is a watcher that keeps the data.
type gathered struct{ bytes.Buffer }

func (g *gathered) Watch(piece []byte) { g.Write(piece) }

// scan reads a body that arrives in pieces of at most size bytes. It returns the data, what goes on as it is, the trailers and
// what follows the body.
func scan(body string, size int) (data, passed, trailers, rest string, err error) {
	var s httpwire.ChunkScanner
	var w gathered
	var pass bytes.Buffer
	for begin := 0; begin < len(body); {
		piece := []byte(body[begin:min(begin+size, len(body))])
		p, n, done, err := s.Scan(piece, &w)
		pass.Write(piece[:p])
		begin += n
		switch {
		case err != nil:
			return w.String(), pass.String(), "", "", err
		case done:
			return w.String(), pass.String(), string(s.Trailers), body[begin:], nil
		case n != len(piece):
			return "", "", "", "", fmt.Errorf("read %d of %d", n, len(piece))
		}
	}
	return w.String(), pass.String(), "", "", io.ErrUnexpectedEOF
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*httpwire.Refusal](err)
	return ok
}

// next reads a body by Next, in pieces.
func next(body string, size int) (data, rest string, err error) {
	var s httpwire.ChunkScanner
	var all []byte
	for begin := 0; begin < len(body); {
		piece, n, done, err := s.Next([]byte(body[begin:min(begin+size, len(body))]))
		all = append(all, piece...)
		begin += n
		if err != nil || done {
			return string(all), body[begin:], err
		}
	}
	return string(all), "", io.ErrUnexpectedEOF
}

func TestScannerReadsChunks(t *testing.T) {
	for _, c := range []struct {
		name, body, data, passed, trailers string
	}{
		{"no chunk", "0\r\n\r\n", "", "0\r\n\r\n", ""},
		{"two chunks", "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "abc0123456789", "", ""},
		{"zeros before the size", "0003\r\nabc\r\n000\r\n\r\n", "abc", "", ""},
		{"line ends as data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "", ""},
		{"extensions", "3;a=b; c=\"d;e\" \t;f\r\nabc\r\n0;g\r\n\r\n", "abc", "", ""},
		{"trailers", "3\r\nabc\r\n0\r\nX-A: b\r\nX-C:\r\n\r\n", "abc", "3\r\nabc\r\n0\r\n", "X-A: b\r\nX-C:\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.passed == "" {
				c.passed = c.body
			}
			for size := 1; size <= len(c.body)+4; size++ {
				data, passed, trailers, rest, err := scan(c.body+"GET ", size)
				if err != nil || data != c.data || passed != c.passed || trailers != c.trailers || rest != "GET " {
					t.Fatalf("in pieces of %d: data %q, passed %q, trailers %q, rest %q, %v", size, data, passed, trailers, rest, err)
				}
				if data, rest, err := next(c.body+"GET ", size); err != nil || data != c.data || rest != "GET " {
					t.Fatalf("Next in pieces of %d: %q, %q, %v", size, data, rest, err)
				}
			}
		})
	}
}

func TestScannerRefusesChunks(t *testing.T) {
	for name, body := range map[string]string{
		"no size":                      "\r\nabc\r\n0\r\n\r\n",
		"an empty size":                "\r\n\r\n",
		"a signed size":                "+3\r\nabc\r\n0\r\n\r\n",
		"a negative size":              "-3\r\nabc\r\n0\r\n\r\n",
		"a size with 0x":               "0x3\r\nabc\r\n0\r\n\r\n",
		"an underscore in a size":      "1_0\r\nabc\r\n0\r\n\r\n",
		"a blank before the size":      " 3\r\nabc\r\n0\r\n\r\n",
		"a blank behind the size":      "3 \r\nabc\r\n0\r\n\r\n",
		"a blank before the semicolon": "3 ;a\r\nabc\r\n0\r\n\r\n",
		"a letter in the size":         "3g\r\nabc\r\n0\r\n\r\n",
		"16 digits":                    "0000000000000003\r\nabc\r\n0\r\n\r\n",
		"a size beyond 64 bits":        "10000000000000003\r\nabc\r\n0\r\n\r\n",
		"a bare LF behind the size":    "3\nabc\r\n0\r\n\r\n",
		"a bare CR behind the size":    "3\rabc\r\n0\r\n\r\n",
		"a bare LF in an extension":    "3;a\nb\r\nabc\r\n0\r\n\r\n",
		"a bare CR in an extension":    "3;a\rb\r\nabc\r\n0\r\n\r\n",
		"NUL in an extension":          "3;\x00\r\nabc\r\n0\r\n\r\n",
		"DEL in an extension":          "3;\x7f\r\nabc\r\n0\r\n\r\n",
		"an extension beyond ASCII":    "3;ä\r\nabc\r\n0\r\n\r\n",
		"an extension without size":    ";a\r\n\r\n",
		"a long extension":             "3;" + strings.Repeat("a", 1024) + "\r\nabc\r\n0\r\n\r\n",
		"data beyond the size":         "3\r\nabcd\r\n0\r\n\r\n",
		"data ends with LF":            "3\r\nabc\n0\r\n\r\n",
		"data ends with CR":            "3\r\nabc\r0\r\n\r\n",
		"data ends with two CRs":       "3\r\nabc\r\r\n0\r\n\r\n",
		"no end of data":               "3\r\nabc0\r\n\r\n",
		"the end is a bare LF":         "0\r\n\n",
		"the end is a bare CR":         "0\r\n\rX",
		"a trailer ends with LF":       "0\r\nA: b\n\r\n",
		"a trailer without colon":      "0\r\nA\r\n\r\n",
		"a trailer without name":       "0\r\n: b\r\n\r\n",
		"a folded trailer":             "0\r\nA: b\r\n c\r\n\r\n",
		"a blank before the colon":     "0\r\nA : b\r\n\r\n",
		"NUL in a trailer":             "0\r\nA: \x00\r\n\r\n",
		"a bare CR in a trailer":       "0\r\nA: b\rc\r\n\r\n",
		"long trailers":                "0\r\n" + strings.Repeat("A: b\r\n", 1500) + "\r\n",
		"a long trailer":               "0\r\nA: " + strings.Repeat("b", 9000),
		"more framing than data":       strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nb\r\n", 100) + "0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{len(body), 1, 2, 3, 7} {
				if _, _, _, _, err := scan(body, size); !isRefusal(err) {
					t.Fatalf("in pieces of %d: %v", size, err)
				}
				if _, _, err := next(body, size); !isRefusal(err) {
					t.Fatalf("Next in pieces of %d: %v", size, err)
				}
			}
		})
	}
}

// Chunks of one byte are what a stream of tokens may have.
func TestScannerReadsManySmallChunks(t *testing.T) {
	body := strings.Repeat("1\r\na\r\n", 100_000) + httpwire.LastChunk
	if data, passed, _, _, err := scan(body, 4096); err != nil || len(data) != 100_000 || passed != body {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
}

func TestScannerReadsAgainAfterReset(t *testing.T) {
	var s httpwire.ChunkScanner
	for range 2 {
		if _, n, done, err := s.Scan([]byte("1\r\na\r\n0\r\nA: b\r\n\r\n"), nil); n != 17 || !done || err != nil {
			t.Fatal(n, done, err)
		}
		if string(s.Trailers) != "A: b\r\n" {
			t.Fatalf("trailers %q", s.Trailers)
		}
		s.Reset()
	}
}

func TestScannerAllocatesNothing(t *testing.T) {
	var s httpwire.ChunkScanner
	b, w := []byte("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), new(gathered)
	if n := testing.AllocsPerRun(100, func() {
		s.Reset()
		w.Reset()
		_, _, _, _ = s.Scan(b, w)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestAppendChunkSize(t *testing.T) {
	var out []byte
	for _, size := range []int{1, 15, 16, 65536} {
		out = httpwire.AppendChunkSize(out, size)
	}
	if string(out) != "1\r\nf\r\n10\r\n10000\r\n" {
		t.Fatalf("%q", out)
	}
}

// FuzzChunks checks that every cut gives the same, that net/http reads the same data wherever both accept a body, and that it
// reads it again from what is passed on.
func FuzzChunks(f *testing.F) {
	for _, body := range []string{"3\r\nabc\r\nA;b=c\r\n0123456789\r\n0\r\n\r\nGET /", "0\r\nA: b\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n",
		"3\nabc\n0\n\n", "3\r\nabcd", "fffffffffffffff\r\n", "00000000000000001\r\na"} {
		f.Add(body, 3)
	}
	f.Fuzz(func(t *testing.T, body string, size int) {
		if size <= 0 || len(body) > 1<<16 {
			return
		}
		data, passed, trailers, rest, err := scan(body, max(len(body), 1))
		cutData, cutPassed, cutTrailers, cutRest, cutErr := scan(body, size)
		if !errors.Is(cutErr, err) || trailers != cutTrailers || rest != cutRest || data != cutData || err == nil && passed != cutPassed {
			t.Fatalf("whole: %q, %q, %q, %v; in pieces of %d: %q, %q, %q, %v", data, trailers, rest, err, size, cutData,
				cutTrailers, cutRest, cutErr)
		}
		if nextData, nextRest, nextErr := next(body, size); !errors.Is(nextErr, err) || err == nil && (nextData != data || nextRest != rest) {
			t.Fatalf("Scan: %q, %q, %v; Next: %q, %q, %v", data, rest, err, nextData, nextRest, nextErr)
		}
		if err != nil {
			return
		}
		whole, goErr := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(body)))
		if goErr != nil || string(whole) != data {
			t.Fatalf("accepted %q; net/http: %q, %v", data, whole, goErr)
		}
		if trailers != "" {
			passed += httpwire.ChunkEnd
		}
		if again, passedAgain, more, _, err := scan(passed, size); again != data || passedAgain != passed || more != "" || err != nil {
			t.Fatalf("passed on as %q: %q, %q, %v", passed, again, more, err)
		}
	})
}

// TestScannerAppendsWhatWasRead cuts a body anywhere: what stands for the first part goes on with the second.
func TestScannerAppendsWhatWasRead(t *testing.T) {
	const body = "3\r\nabc\r\n01;a=\"b\"\r\nd\r\n00C\r\n0123456789ab\r\n0;c\r\nX-A: b\r\nX-C: d\r\n\r\n"
	for cut := range len(body) + 1 {
		var s httpwire.ChunkScanner
		var all []byte
		for read := 0; read < cut; {
			data, n, _, err := s.Next([]byte(body[read:cut]))
			if err != nil {
				t.Fatal(err)
			}
			read += n
			all = append(all, data...)
		}
		again := string(s.AppendRead(nil, all)) + body[cut:] + "rest"
		if data, _, trailers, rest, err := scan(again, len(again)); err != nil || data != "abcd0123456789ab" || trailers != "X-A: b\r\nX-C: d\r\n" || rest != "rest" {
			t.Errorf("cut at %d: %q is %q, %q, %q, %v", cut, again, data, trailers, rest, err)
		}
	}
}
