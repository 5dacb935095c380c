// Go puts clients for Go through the cases of the clients' test, and prints a
// line of JSON for each result: go CASES, where CASES is a JSON list. It is a
// module of its own, so that dstack does not depend on the clients.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"strings"
	"sync"
)

const question = "Name three colours."

// client is a client library. Its functions return the text of the answer.
type client struct {
	name, module string
	chat         func(ctx context.Context, baseURL, token, model string, once bool) (string, error) // once: without tries after the first
	stream       func(ctx context.Context, baseURL, token, model string) (string, error)
	describe     func(error) (class, message string, status int)
}

var clients = []client{goOpenAI, openaiGo}

// testCase is one call, up to Tries times: the first call over a limit may be
// one that is not refused.
type testCase struct {
	Name, Call, Token, Model, Says string
	BaseURL                        string `json:"base_url"`
	Once                           bool
	Tries                          int
}

type result struct {
	Client  string `json:"client"`
	Version string `json:"version"`
	Case    string `json:"case"`
	Text    string `json:"text"`
	Error   string `json:"error,omitempty"`
	Status  int    `json:"status"`
	Says    bool   `json:"says"` // the error has the gateway's message
}

var out sync.Mutex

func report(v any) {
	out.Lock()
	defer out.Unlock()
	line, err := json.Marshal(v)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}

func main() {
	var cases []testCase
	if err := json.Unmarshal([]byte(os.Args[1]), &cases); err != nil {
		log.Fatal(err)
	}
	report(map[string]int{"clients": len(clients)})
	var all sync.WaitGroup
	for _, c := range clients {
		for _, test := range cases {
			all.Go(func() { report(c.run(test)) })
		}
	}
	all.Wait()
}

func (c client) run(test testCase) result {
	r := result{Client: c.name, Version: versionOf(c.module), Case: test.Name}
	text, err := c.call(test)
	if err != nil {
		var message string
		r.Error, message, r.Status = c.describe(err)
		r.Says = strings.Contains(message, test.Says)
		return r
	}
	r.Text = text
	return r
}

func (c client) call(test testCase) (text string, err error) {
	for range test.Tries {
		if test.Call == "stream" {
			text, err = c.stream(context.Background(), test.BaseURL, test.Token, test.Model)
		} else {
			text, err = c.chat(context.Background(), test.BaseURL, test.Token, test.Model, test.Once)
		}
		if err != nil {
			break
		}
	}
	return text, err
}

func versionOf(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == module {
			return strings.TrimPrefix(m.Version, "v")
		}
	}
	return "?"
}
