// Package gateway decides how a gateway is: whether it serves, and what is missing.
package gateway

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// Summary is the status of a gateway.
type Summary struct {
	Status dstack.GatewayStatus
	Reason dstack.Reason // why, or what is missing although it runs; empty: nothing is
	Hint   string        // what the user can do
}

// Summarize decides the status of a gateway from what its processes told.
func Summarize(g dstack.Gateway, now time.Time) Summary {
	serving := ServingProcesses(g, now)
	switch {
	case g.IsDeleting:
		return Summary{Status: dstack.GatewayRunning, Reason: "it is being deleted: its processes are being ended"}
	case g.Domain == "":
		return Summary{dstack.GatewayFailed, "it has no domain", "dstack gateway update " + g.Name + " --domain example.com"}
	case len(serving) == 0:
		return summarizeAbsence(g, now)
	}
	isNew := func(p dstack.GatewayProcess) bool {
		return now.Sub(p.JoinedAt) < openTime || p.SeenAt.Before(g.AppliedAt) && now.Sub(g.AppliedAt) < openTime
	}
	if missing := findClosedPort(g, serving); missing == portsClosed && slices.ContainsFunc(serving, isNew) {
		return Summary{Status: dstack.GatewayProvisioning, Reason: "its ports are being opened"}
	} else if missing != "" {
		return Summary{dstack.GatewayFailed, missing, "end the other program, or choose other ports: --https-port and --http-port"}
	}
	s := Summary{Status: dstack.GatewayRunning}
	s.Reason, s.Hint = findMissing(g, serving)
	return s
}

// ServingProcesses returns the processes of a gateway that reported recently.
func ServingProcesses(g dstack.Gateway, now time.Time) []dstack.GatewayProcess {
	return slices.DeleteFunc(slices.Clone(g.Processes), func(p dstack.GatewayProcess) bool { return now.Sub(p.SeenAt) >= dstack.GatewaySilence })
}

// IsChanging reports whether a process has told nothing since the gateway was changed, or serves a certificate of the earlier
// configuration until there is one of the present one: what is known of the gateway will change by itself soon.
func IsChanging(g dstack.Gateway, now time.Time) bool {
	isUntold := now.Sub(g.AppliedAt) < openTime
	return slices.ContainsFunc(ServingProcesses(g, now), func(p dstack.GatewayProcess) bool {
		return isUntold && p.SeenAt.Before(g.AppliedAt) || slices.ContainsFunc(p.Certificates, func(c dstack.CertificateStatus) bool {
			return c.IsEarlier && c.State == dstack.CertificateValid // others say what failed
		})
	})
}

// summarizeAbsence returns why no process serves a gateway.
func summarizeAbsence(g dstack.Gateway, now time.Time) Summary {
	if len(g.Processes) > 0 {
		last := slices.MaxFunc(g.Processes, func(a, b dstack.GatewayProcess) int { return a.SeenAt.Compare(b.SeenAt) })
		reason := fmt.Sprintf("its process on %s has not answered for %s", last.Name, human.Duration(now.Sub(last.SeenAt).Round(time.Second)))
		if len(g.Processes) > 1 {
			reason = fmt.Sprintf("none of its %s has answered for %s", human.CountOf(len(g.Processes), "process", "processes"), human.Duration(now.Sub(last.SeenAt).Round(time.Second)))
		}
		if g.Problem != "" {
			reason = string(g.Problem)
		}
		hint := "look at the machine: systemctl status dstack-gateway"
		if g.Configuration.Backend == spec.BackendLocal {
			hint = "read the log of dstack server on that machine"
		} else if g.Configuration.Backend == spec.BackendKubernetes {
			hint = "look at its pods: kubectl get pods -l dstack.ai/gateway=" + g.Name
		}
		return Summary{dstack.GatewayFailed, dstack.Reason(reason), hint + "; requests that reach it are served as before"}
	}
	switch {
	case g.Problem != "":
		return Summary{Status: dstack.GatewayFailed, Reason: g.Problem}
	case g.Configuration.Backend == spec.BackendExternal:
		return Summary{dstack.GatewayProvisioning, "no process has joined yet", "dstack gateway token " + g.Name + " prints the command for the machine that is to serve"}
	case g.Configuration.Backend == spec.BackendSSH:
		return Summary{Status: dstack.GatewayProvisioning, Reason: "its process is being started on a host"}
	case g.Configuration.Backend == spec.BackendKubernetes:
		return Summary{Status: dstack.GatewayProvisioning, Reason: "its pods are being made"}
	}
	return Summary{Status: dstack.GatewaySubmitted, Reason: "the server begins to serve it"}
}

// findClosedPort returns why no process of a gateway can be reached; empty: one can.
func findClosedPort(g dstack.Gateway, serving []dstack.GatewayProcess) dstack.Reason {
	for _, p := range serving {
		if p.HTTPSPort != 0 || p.HTTPPort != 0 && g.Configuration.Certificate == nil {
			return ""
		}
	}
	for _, p := range serving {
		if len(p.Problems) > 0 {
			return dstack.Reason(strings.Join(p.Problems, "; "))
		}
	}
	return portsClosed
}

// portsClosed is the reason for processes that report no open ports, and not why.
const portsClosed dstack.Reason = "its ports are not open"

// openTime is how long a process that has joined, or whose gateway changed, may take until it reports its ports.
const openTime = 15 * time.Second

// findMissing returns what a gateway lacks although it serves: ports of single processes, and certificates.
func findMissing(g dstack.Gateway, serving []dstack.GatewayProcess) (dstack.Reason, string) {
	var texts []string
	hint := ""
	add := func(text, next string) {
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
		if hint == "" {
			hint = next
		}
	}
	if g.Problem != "" {
		add(string(g.Problem), "")
	}
	for _, p := range g.Processes {
		if !slices.ContainsFunc(serving, func(s dstack.GatewayProcess) bool { return s.ID == p.ID }) {
			add("its process on "+p.Name+" does not answer", "")
		}
	}
	for _, p := range serving {
		for _, problem := range p.Problems {
			if len(serving) > 1 {
				problem = p.Name + ": " + problem
			}
			add(problem, "")
		}
	}
	missing := 0
	for _, c := range ListCertificates(serving) {
		if c.State == dstack.CertificateValid && c.Reason == "" {
			continue
		}
		if missing++; missing <= maxNamedCertificates {
			add(DescribeCertificate(c), c.Hint)
		}
	}
	if missing > maxNamedCertificates {
		add(fmt.Sprintf("and %d more certificates", missing-maxNamedCertificates), "")
	}
	return dstack.Reason(strings.Join(texts, "; ")), hint
}

// maxNamedCertificates is how many certificates a reason names.
const maxNamedCertificates = 3

// ListCertificates returns the certificates of processes by name: of each name the worst that a process has.
func ListCertificates(serving []dstack.GatewayProcess) []dstack.CertificateStatus {
	byName := map[string]dstack.CertificateStatus{}
	for _, p := range serving {
		for _, c := range p.Certificates {
			if known, ok := byName[c.Name]; !ok || certificateRank(c) > certificateRank(known) {
				byName[c.Name] = c
			}
		}
	}
	all := make([]dstack.CertificateStatus, 0, len(byName))
	for _, c := range byName {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b dstack.CertificateStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// certificateRank orders the states of a certificate, the worst last.
func certificateRank(c dstack.CertificateStatus) int {
	return slices.Index([]dstack.CertificateState{dstack.CertificateValid, dstack.CertificateFailing, dstack.CertificatePending, dstack.CertificateMissing}, c.State)
}

// DescribeCertificate describes a certificate that is missing, waits or cannot be renewed.
func DescribeCertificate(c dstack.CertificateStatus) string {
	text := "certificate for " + c.Name
	switch c.State {
	case dstack.CertificatePending:
		text += " is being issued"
		if c.Queue > 0 {
			text = fmt.Sprintf("certificate for %s waits: place %d of %d", c.Name, c.Queue, max(c.Queue, c.Queued))
		}
	case dstack.CertificateFailing:
		text += " cannot be renewed"
	case dstack.CertificateMissing:
		text += " is missing"
	case dstack.CertificateValid: // with a warning
	}
	if c.Reason != "" {
		text += ": " + c.Reason
	}
	return text
}
