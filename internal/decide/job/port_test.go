package job_test

import (
	"testing"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestMayChoosePort(t *testing.T) {
	for _, c := range []struct {
		name string
		s    spec.Service
		want bool
	}{
		{"the port is fixed", spec.Service{Commands: []string{"serve 8000"}}, false},
		{"port: auto", spec.Service{Port: spec.Port{Auto: true}}, true},
		{"a command reads $PORT", spec.Service{Commands: []string{"cd a", "serve --port $PORT"}}, true},
		{"a command reads ${PORT}", spec.Service{Commands: []string{`serve "${PORT}"`}}, true},
		{"a command reads it with a fallback", spec.Service{Commands: []string{"serve ${PORT:-8000}"}}, true},
		{"a command of an inner shell reads it", spec.Service{Commands: []string{`sh -c 'serve $PORT'`}}, true},
		{"a part of a word", spec.Service{Commands: []string{"serve 127.0.0.1:$PORT/x"}}, true},
		{"the entrypoint reads it", spec.Service{Entrypoint: `sh -c 'serve $PORT'`}, true},
		{"an argument of the entrypoint reads it", spec.Service{Entrypoint: "sh -c", Commands: []string{"serve $PORT"}}, true},
		{"another variable begins with it", spec.Service{Commands: []string{"serve $PORTS ${PORT_2} $PORT2"}}, false},
		{"another variable ends with it", spec.Service{Commands: []string{"serve $HTTP_PORT ${MY_PORT}"}}, false},
		{"a word without $", spec.Service{Commands: []string{"serve PORT {PORT}"}}, false},
		{"the environment sets PORT", spec.Service{
			Commands: []string{"serve $PORT"}, Env: spec.Env{{Name: "PORT", Value: "9000"}},
		}, false},
		{"a command sets PORT", spec.Service{Commands: []string{"export PORT=9000", "serve $PORT"}}, false},
		{"a command sets it for one program", spec.Service{Commands: []string{"PORT=9000 serve && echo $PORT"}}, false},
		{"a command of an inner shell sets it", spec.Service{Commands: []string{`sh -c "PORT=9000; serve $PORT"`}}, false},
		{"a command sets it, and says auto", spec.Service{Port: spec.Port{Auto: true}, Commands: []string{"PORT=9000 a", "b $PORT"}}, true},
		{"a command sets it to itself", spec.Service{Commands: []string{`export PORT="${PORT:-8000}"; serve $PORT`}}, true},
		{"a command passes it on by another name", spec.Service{Commands: []string{"HTTP_PORT=9000 URL=?PORT=1 serve $PORT"}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := newRunSpec(c.s)
			if got := job.MayChoosePort(rs); got != c.want {
				t.Errorf("got %v", got)
			}
			if got := job.BuildRequirements(rs).AnyPort; got != c.want {
				t.Errorf("the requirements say %v", got)
			}
			if got := job.BuildAttemptSpec(dstack.Run{Spec: rs}, dstack.Replica{}).ChoosePort; got != c.want {
				t.Errorf("the attempt says %v", got)
			}
		})
	}
}

func TestBuildEnv_HasPort(t *testing.T) {
	for want, s := range map[string]spec.Service{
		"8001": {Port: spec.Port{Container: 8001}},
		"8000": {Port: spec.Port{Container: spec.DefaultAutoPort, Auto: true}},
		"9000": {Port: spec.Port{Container: 9000}, Env: spec.Env{{Name: "PORT", Value: "9000"}}},
	} {
		if got := job.BuildEnv(dstack.Run{Spec: newRunSpec(s)}, dstack.Replica{})["PORT"]; got != want {
			t.Errorf("PORT is %q, want %q", got, want)
		}
	}
}
