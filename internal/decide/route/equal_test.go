package route_test

import (
	"reflect"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Each field of a route makes it another one, also a field that is added later.
func TestIsSame(t *testing.T) {
	full := route.Route{Run: "r", Project: "main", Name: "web", Auth: true, Model: "m", Prefix: "/v1", Format: "openai",
		Template: &dstack.ChatTemplate{}, Since: 1, Ready: []route.Target{{Replica: "a", Num: 1, Endpoint: dstack.Endpoint{Host: "h", Address: "a:1"}}},
		State: "x", IsStopping: true, IsSleeping: true, NeverServes: true, PanicMode: true, Gateway: "g",
		Rules: route.Rules{Window: time.Second, Limits: make([]spec.RateLimit, 1), Hold: spec.Hold{Requests: 1}}}
	same := full
	same.Ready = append([]route.Target(nil), full.Ready...)
	if !full.IsSame(&same) {
		t.Error("a copy is another route")
	}
	fields := reflect.TypeFor[route.Route]()
	for i := range fields.NumField() {
		changed := full
		field := reflect.ValueOf(&changed).Elem().Field(i)
		if field.IsZero() {
			t.Errorf("the test does not set %s", fields.Field(i).Name)
		}
		field.SetZero()
		if full.IsSame(&changed) || changed.IsSame(&full) {
			t.Errorf("a route without %s is the same", fields.Field(i).Name)
		}
	}
	for name, change := range map[string]func(*route.Rules){
		"the window": func(r *route.Rules) { r.Window = 0 }, "the limits": func(r *route.Rules) { r.Limits = nil },
		"the hold": func(r *route.Rules) { r.Hold = spec.Hold{} },
	} {
		changed := full
		change(&changed.Rules)
		if full.IsSame(&changed) {
			t.Errorf("a route with another value of %s is the same", name)
		}
	}
}
