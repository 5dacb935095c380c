package jinja

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"dstack/internal/jinja/jinjatest"
)

// contexts are the variables of random templates.
var contexts = []string{
	`{"s": "some text here", "word": "Word", "n": 3, "f": 2.5, "big": 123456789012345678901234567890, "flag": true, "nul": null,
	  "xs": [3, 1, 2], "words": ["b", "A", "c"], "mixed": [1, "a", null, 2.5, [1]], "lines": "one\ntwo\r\n\n three\n",
	  "d": {"b": 1, "a": "x", "c": [1, 2]}, "m": {"role": "user", "content": " Hi <there> 'you' ", "count": 2, "tool": null},
	  "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "tool": {"x": 1}}, {"role": "user", "content": ""}]}`,
	`{"s": "", "word": "ÄÖü ß", "n": 0, "f": -0.0, "big": -1e300, "flag": false, "nul": null, "xs": [], "words": [], "mixed": [[], {}, ""], "lines": "",
	  "d": {}, "m": {"role": "system", "content": null, "count": 0}, "messages": []}`,
	`{"s": "a-b a\ta", "word": "12", "n": -7, "f": 1e16, "big": 9223372036854775807, "flag": 1, "nul": null, "xs": [0, -1, 5.0, true], "words": ["x"], "mixed": ["é", {"k": [1.0, -2]}, true],
	  "lines": "  x\n\ty\u2028z", "d": {"items": 1, "Z": null, "a": {"q": "\"'\\"}}, "m": {"role": "tool", "content": [{"type": "text", "text": "t"}], "count": 1.0, "tool": [1]},
	  "messages": [{"role": "b", "content": "1"}, {"role": "A", "content": 2}]}`,
}

// TestRandomTemplatesRenderAsInPython compares random templates with Python.
// JINJA_FUZZ sets their number, JINJA_SEED the seed.
func TestRandomTemplatesRenderAsInPython(t *testing.T) {
	p := jinjatest.Start(t)
	count, seed := envNumber("JINJA_FUZZ", 2000), envNumber("JINJA_SEED", 1)
	strict := os.Getenv("JINJA_STRICT") != ""
	end := time.Now().Add(time.Duration(max(count, 2000)) * 9 * time.Millisecond)
	rendered, failed, limited := 0, 0, 0
	for i := range count {
		if time.Now().After(end) {
			t.Logf("stopped in time after %d templates", i)
			break
		}
		g := &grammar{Rand: rand.New(rand.NewPCG(uint64(seed), uint64(i)))}
		template, vars := g.template(), contexts[i%len(contexts)]
		want := p.Ask(t, jinjatest.Question{Template: template, Vars: []byte(vars)})
		out, err := renderTemplate(t, template, vars)
		var e *Error
		if errors.As(err, &e) && e.Kind == KindLimit {
			limited++
			continue
		}
		if hasAddress(want.Output + want.Error) {
			continue
		}
		if want.OK {
			rendered++
		} else {
			failed++
		}
		if e != nil && e.Kind == want.Kind && e.Kind == KindRuntime && !strict {
			continue // the texts of Python's own errors may differ
		}
		if problem := findDifference(want, out, err); problem != "" {
			t.Errorf("template %d with context %d: %s\n%s", i, i%len(contexts), problem, template)
		}
	}
	t.Logf("seed %d: %d rendered, %d failed as in Python, %d met a limit", seed, rendered, failed, limited)
}

func envNumber(env string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return otherwise
}
