package spec_test

import (
	"encoding/json"
	"testing"

	"dstack/internal/spec"
)

// The stored form keeps `port: auto`; the wire form, which a client of 0.18.10
// reads, has a number.
func TestPort_Auto(t *testing.T) {
	service, problems := spec.ParseService("a.dstack.yml", []byte("type: service\nport: auto\ncommands: [serve $PORT]\n"))
	if problems != nil {
		t.Fatal(problems)
	}
	if !service.Port.Auto || service.Port.Container != 8000 || service.Port.String() != "auto" {
		t.Errorf("the port is %+v", service.Port)
	}
	source, err := service.SourceJSON()
	if err != nil {
		t.Fatal(err)
	}
	var again spec.Service
	if err := json.Unmarshal(source, &again); err != nil || again.Port.String() != "auto" {
		t.Errorf("%s is read as %+v, %v", source, again.Port, err)
	}
	wire, err := json.Marshal(service)
	if err != nil {
		t.Fatal(err)
	}
	var fields struct {
		Port struct {
			Local     int `json:"local_port"`
			Container int `json:"container_port"`
		}
	}
	if err := json.Unmarshal(wire, &fields); err != nil || fields.Port.Local != 80 || fields.Port.Container != 8000 {
		t.Errorf("the wire form is %s, %v", wire, err)
	}
	fixed := *service
	fixed.Port.Auto = false
	changes := spec.Diff(*service, fixed)
	if len(changes) != 1 || changes[0] != (spec.Change{Path: "port", From: "auto", To: "8000"}) {
		t.Errorf("the changes are %+v", changes)
	}
}
