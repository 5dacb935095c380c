package route_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var update = flag.Bool("update", false, "write the golden file")

// exampleTable has a value in every field of the JSON form.
func exampleTable() route.Table {
	return route.Table{
		Version:       1764300000000042,
		DrainSequence: 7,
		Routes: []route.Route{
			{
				Run: "6f1c", Project: "main", Name: "llama", Auth: true, Model: "meta/llama", Prefix: "/v1", Format: "tgi",
				Template: &dstack.ChatTemplate{
					Default: "{{ messages }}", Named: []dstack.NamedTemplate{{Name: "tool_use", Source: "{{ tools }}"}},
					Tokens: map[string]string{"bos_token": "<s>"}, OnlyTemplateAddsBOS: true,
					Kwargs: json.RawMessage(`{"loud":true}`), Source: "the configuration",
				},
				Since: 1764300000,
				Ready: []route.Target{
					{Replica: "a1", Num: 0, Endpoint: dstack.Endpoint{Address: "127.0.0.1:40001"}},
					{Replica: "b2", Num: 1, Endpoint: dstack.Endpoint{Host: "gpu1", Address: "10.0.0.5:8000"}},
				},
				PanicMode: true,
				Rules: route.Rules{
					Window: 30 * time.Second,
					Limits: []spec.RateLimit{{Prefix: "/v1/", Key: spec.RateLimitKey{Type: "header", Header: "X-User"}, RPS: 2.5, Burst: 10}},
					Hold:   spec.Hold{Requests: 100, Timeout: 60},
				},
			},
			{Run: "70aa", Project: "team", Name: "idle", Since: 1764300001, State: "it sleeps until a request comes", IsSleeping: true},
			{Run: "81bb", Project: "team", Name: "gone", Since: 1764300002, IsStopping: true, NeverServes: true},
		},
		Tokens: map[string][]string{digest("admin"): {"*"}, digest("member"): {"main", "team"}},
	}
}

func TestTable_JSONForm(t *testing.T) {
	text, err := json.MarshalIndent(exampleTable(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	golden := filepath.Join("testdata", "table.json")
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the JSON form differs from %s (write it with -update):\n%s", golden, cmp.Diff(string(want), string(text)))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, want); err != nil {
		t.Fatal(err)
	}
	var read route.Table
	if err := json.Unmarshal(compact.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleTable(), read); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// A gateway may be older than its server.
func TestTable_JSONIgnoresUnknownFields(t *testing.T) {
	text, err := json.Marshal(exampleTable())
	if err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	var newer object
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&newer); err != nil {
		t.Fatal(err)
	}
	first := newer["routes"].([]any)[0].(object)
	for _, o := range []object{newer, first, first["ready"].([]any)[0].(object), first["rules"].(object), first["template"].(object)} {
		o["later"] = object{"version": 2}
	}
	text, err = json.Marshal(newer)
	if err != nil {
		t.Fatal(err)
	}
	var read route.Table
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleTable(), read); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTable_JSONRoundTrip(t *testing.T) {
	text := rapid.StringN(0, 20, -1)
	target := rapid.Custom(func(t *rapid.T) route.Target {
		return route.Target{
			Replica: dstack.ReplicaID(text.Draw(t, "replica")), Num: rapid.IntMin(0).Draw(t, "num"),
			Endpoint: dstack.Endpoint{Host: text.Draw(t, "host"), Address: text.Draw(t, "address")},
		}
	})
	limit := rapid.Custom(func(t *rapid.T) spec.RateLimit {
		return spec.RateLimit{
			Prefix: text.Draw(t, "prefix"), RPS: rapid.Float64Range(0, 1e6).Draw(t, "rps"), Burst: rapid.Int().Draw(t, "burst"),
			Key: spec.RateLimitKey{Type: text.Draw(t, "type"), Header: text.Draw(t, "header")},
		}
	})
	template := rapid.Custom(func(t *rapid.T) *dstack.ChatTemplate {
		if rapid.Bool().Draw(t, "no template") {
			return nil
		}
		return &dstack.ChatTemplate{
			Default: text.Draw(t, "default"), OnlyTemplateAddsBOS: rapid.Bool().Draw(t, "bos"), Source: text.Draw(t, "source"),
			Tokens: emptyToNil(rapid.MapOfN(text, text, 0, 3).Draw(t, "tokens")),
		}
	})
	routes := rapid.Custom(func(t *rapid.T) route.Route {
		flags := rapid.SliceOfN(rapid.Bool(), 5, 5).Draw(t, "flags")
		return route.Route{
			Run: dstack.RunID(text.Draw(t, "run")), Project: text.Draw(t, "project"), Name: text.Draw(t, "name"),
			Auth: flags[0], IsStopping: flags[1], IsSleeping: flags[2], NeverServes: flags[3], PanicMode: flags[4],
			Model: text.Draw(t, "model"), Prefix: text.Draw(t, "prefix"), Format: text.Draw(t, "format"),
			Template: template.Draw(t, "template"), Since: rapid.Int64().Draw(t, "since"), State: dstack.Reason(text.Draw(t, "state")),
			Ready: sliceOf(t, target, "ready"),
			Rules: route.Rules{
				Window: time.Duration(rapid.Int64().Draw(t, "window")), Limits: sliceOf(t, limit, "limits"),
				Hold: spec.Hold{Requests: rapid.Int().Draw(t, "held"), Timeout: spec.Seconds(rapid.IntMin(0).Draw(t, "timeout"))},
			},
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := route.Table{
			Version: rapid.Uint64().Draw(t, "version"), DrainSequence: rapid.Int64().Draw(t, "drain sequence"),
			Routes: sliceOf(t, routes, "routes"),
			Tokens: emptyToNil(rapid.MapOfN(text, rapid.SliceOfN(text, 0, 3), 0, 3).Draw(t, "tokens")),
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got route.Table
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// sliceOf draws a short slice, nil when it is empty: JSON does not distinguish.
func sliceOf[T any](t *rapid.T, of *rapid.Generator[T], label string) []T {
	all := rapid.SliceOfN(of, 0, 3).Draw(t, label)
	if len(all) == 0 {
		return nil
	}
	return all
}

func emptyToNil[M ~map[K]V, K comparable, V any](m M) M {
	if len(m) == 0 {
		return nil
	}
	return m
}
