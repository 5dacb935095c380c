package gateway_test

import (
	"testing"
	"time"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var now = time.Date(2026, 11, 29, 7, 0, 0, 0, time.UTC)

func process(name string, change func(*dstack.GatewayProcess)) dstack.GatewayProcess {
	p := dstack.GatewayProcess{ID: name, Name: name, HTTPSPort: 443, HTTPPort: 80, SeenAt: now.Add(-time.Second)}
	if change != nil {
		change(&p)
	}
	return p
}

func silent(p *dstack.GatewayProcess) { p.SeenAt = now.Add(-2 * time.Minute) }

func with(certificates ...dstack.CertificateStatus) func(*dstack.GatewayProcess) {
	return func(p *dstack.GatewayProcess) { p.Certificates = certificates }
}

func portTaken(p *dstack.GatewayProcess) {
	p.HTTPSPort, p.Problems = 0, []string{"port 443 is taken by another program"}
}

func TestSummarize(t *testing.T) {
	valid := dstack.CertificateStatus{Name: "*.example.com", State: dstack.CertificateValid}
	missing := dstack.CertificateStatus{Name: "a.example.com", State: dstack.CertificateMissing, Reason: "example.com does not point at 192.0.2.7", Hint: "change the record"}
	waits := dstack.CertificateStatus{Name: "b.example.com", State: dstack.CertificatePending, Queue: 34, Queued: 50}
	for name, c := range map[string]struct {
		backend   string
		change    func(*dstack.Gateway)
		processes []dstack.GatewayProcess
		status    dstack.GatewayStatus
		reason    dstack.Reason
		hint      string
	}{
		"everything is there":     {"local", nil, []dstack.GatewayProcess{process("box", with(valid))}, "running", "", ""},
		"it has no domain":        {"local", func(g *dstack.Gateway) { g.Domain = "" }, nil, "failed", "it has no domain", "dstack gateway update front-door --domain example.com"},
		"the server just got it":  {"local", nil, nil, "submitted", "the server begins to serve it", ""},
		"nobody has joined":       {"external", nil, nil, "provisioning", "no process has joined yet", "dstack gateway token front-door prints the command for the machine that is to serve"},
		"a host gets its process": {"remote", nil, nil, "provisioning", "its process is being started on a host", ""},
		"no host can have it":     {"remote", func(g *dstack.Gateway) { g.Problem = "no host is ready" }, nil, "failed", "no host is ready", ""},
		"its only process is gone": {"external", nil, []dstack.GatewayProcess{process("edge", silent)}, "failed", "its process on edge has not answered for 2m",
			"look at the machine: systemctl status dstack-gateway; requests that reach it are served as before"},
		"all processes are gone": {"external", nil, []dstack.GatewayProcess{process("edge", silent), process("edge-2", silent)}, "failed",
			"none of its 2 processes has answered for 2m", "look at the machine: systemctl status dstack-gateway; requests that reach it are served as before"},
		"one of two is gone": {"external", nil, []dstack.GatewayProcess{process("edge", silent), process("edge-2", nil)}, "running", "its process on edge does not answer", ""},
		"its port is taken": {"local", nil, []dstack.GatewayProcess{process("box", portTaken)}, "failed", "port 443 is taken by another program",
			"end the other program, or choose other ports: --https-port and --http-port"},
		"the port of one of two is taken": {"external", nil, []dstack.GatewayProcess{process("edge", portTaken), process("edge-2", nil)}, "running",
			"edge: port 443 is taken by another program", ""},
		"plain HTTP needs no port for TLS": {"local", func(g *dstack.Gateway) { g.Configuration.Certificate = nil },
			[]dstack.GatewayProcess{process("box", func(p *dstack.GatewayProcess) { p.HTTPSPort = 0 })}, "running", "", ""},
		"certificates are missing and wait": {"local", nil, []dstack.GatewayProcess{process("box", with(missing, waits, valid))}, "running",
			"certificate for a.example.com is missing: example.com does not point at 192.0.2.7; certificate for b.example.com waits: place 34 of 50", "change the record"},
		"a certificate cannot be renewed": {"local", nil, []dstack.GatewayProcess{process("box",
			with(dstack.CertificateStatus{Name: "*.example.com", State: dstack.CertificateFailing, Reason: "the authority is down"}))},
			"running", "certificate for *.example.com cannot be renewed: the authority is down", ""},
		"its ports are being opened": {"external", nil, []dstack.GatewayProcess{process("edge", func(p *dstack.GatewayProcess) {
			p.HTTPSPort, p.HTTPPort, p.JoinedAt = 0, 0, now.Add(-14*time.Second)
		})}, "provisioning", "its ports are being opened", ""},
		"its ports do not open": {"external", nil, []dstack.GatewayProcess{process("edge", func(p *dstack.GatewayProcess) {
			p.HTTPSPort, p.HTTPPort, p.JoinedAt = 0, 0, now.Add(-15*time.Second)
		})}, "failed", "its ports are not open", "end the other program, or choose other ports: --https-port and --http-port"},
		"it reported 10 seconds ago": {"external", nil, []dstack.GatewayProcess{process("edge", func(p *dstack.GatewayProcess) {
			p.SeenAt = now.Add(-dstack.GatewaySilence)
		})}, "failed", "its process on edge has not answered for 10s", "look at the machine: systemctl status dstack-gateway; requests that reach it are served as before"},
		"the server itself is silent": {"local", nil, []dstack.GatewayProcess{process("box", silent)}, "failed", "its process on box has not answered for 2m",
			"read the log of dstack server on that machine; requests that reach it are served as before"},
		"its process is gone and no host can have another": {"remote", func(g *dstack.Gateway) { g.Problem = "no host is ready" },
			[]dstack.GatewayProcess{process("edge", silent)}, "failed", "no host is ready",
			"look at the machine: systemctl status dstack-gateway; requests that reach it are served as before"},
		"a valid certificate has a warning": {"local", nil, []dstack.GatewayProcess{process("box", with(dstack.CertificateStatus{
			Name: "a.example.com", State: dstack.CertificateValid, Reason: "it expires on 2026-11-30"}))}, "running",
			"certificate for a.example.com: it expires on 2026-11-30", ""},
		"it is being deleted": {"remote", func(g *dstack.Gateway) { g.IsDeleting = true }, []dstack.GatewayProcess{process("box", nil)}, "running",
			"it is being deleted: its processes are being ended", ""},
	} {
		g := dstack.Gateway{Name: "front-door", Domain: "example.com", Processes: c.processes,
			Configuration: spec.Gateway{Backend: c.backend, Certificate: &spec.Certificate{Type: "lets-encrypt"}}}
		if c.change != nil {
			c.change(&g)
		}
		if got, want := gateway.Summarize(g, now), (gateway.Summary{Status: c.status, Reason: c.reason, Hint: c.hint}); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
}

// Many missing certificates are counted, not listed.
func TestSummarize_ManyCertificates(t *testing.T) {
	var all []dstack.CertificateStatus
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		all = append(all, dstack.CertificateStatus{Name: name, State: dstack.CertificatePending})
	}
	g := dstack.Gateway{Domain: "example.com", Processes: []dstack.GatewayProcess{process("box", with(all...))},
		Configuration: spec.Gateway{Backend: "local", Certificate: &spec.Certificate{}}}
	want := dstack.Reason("certificate for a is being issued; certificate for b is being issued; certificate for c is being issued; and 2 more certificates")
	if got := gateway.Summarize(g, now).Reason; got != want {
		t.Errorf("got %s", got)
	}
}

// Of several processes, the one whose certificate is worst counts: a client may reach any of them.
func TestListCertificates(t *testing.T) {
	of := func(state dstack.CertificateState) dstack.GatewayProcess {
		return process(string(state), with(dstack.CertificateStatus{Name: "a", State: state}))
	}
	order := []dstack.CertificateState{dstack.CertificateValid, dstack.CertificateFailing, dstack.CertificatePending, dstack.CertificateMissing}
	for i, better := range order {
		for _, worse := range order[i:] {
			for _, pair := range [][]dstack.GatewayProcess{{of(better), of(worse)}, {of(worse), of(better)}} {
				if got := gateway.ListCertificates(pair); len(got) != 1 || got[0].State != worse {
					t.Errorf("of %s and %s: %+v", better, worse, got)
				}
			}
		}
	}
}

// A report from before a change says nothing about it, and a certificate of the earlier configuration is not the wanted one.
func TestIsChanging(t *testing.T) {
	applied := now.Add(-2 * time.Second)
	told := process("box", func(p *dstack.GatewayProcess) { p.SeenAt = applied.Add(time.Millisecond) })
	untold := process("box-2", func(p *dstack.GatewayProcess) { p.SeenAt = applied.Add(-time.Millisecond) })
	earlier := func(state dstack.CertificateState) dstack.GatewayProcess {
		p := told
		p.Certificates = []dstack.CertificateStatus{{Name: "*.example.com", State: state, IsEarlier: true}}
		return p
	}
	for name, c := range map[string]struct {
		applied   time.Time
		processes []dstack.GatewayProcess
		want      bool
	}{
		"all have told":                     {applied, []dstack.GatewayProcess{told}, false},
		"one has not told":                  {applied, []dstack.GatewayProcess{told, untold}, true},
		"it does not tell":                  {now.Add(-20 * time.Second), []dstack.GatewayProcess{process("box", func(p *dstack.GatewayProcess) { p.SeenAt = now.Add(-21 * time.Second) })}, false},
		"its certificate is the earlier":    {applied, []dstack.GatewayProcess{earlier(dstack.CertificateValid)}, true},
		"the new certificate cannot be had": {applied, []dstack.GatewayProcess{earlier(dstack.CertificateFailing)}, false},
	} {
		if got := gateway.IsChanging(dstack.Gateway{AppliedAt: c.applied, Processes: c.processes}, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	closed := untold
	closed.HTTPSPort, closed.HTTPPort, closed.JoinedAt = 0, 80, now.Add(-time.Hour)
	g := dstack.Gateway{Name: "front-door", Domain: "example.com", AppliedAt: applied, Processes: []dstack.GatewayProcess{closed}}
	g.Configuration.Backend, g.Configuration.Certificate = "local", &spec.Certificate{Type: "internal"}
	if got := gateway.Summarize(g, now); got.Status != dstack.GatewayProvisioning {
		t.Errorf("a port that a change needs: %+v", got)
	}
}
