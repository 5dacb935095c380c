package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// gatewaySet is a gateway on hosts, and a service that is published there.
type gatewaySet struct {
	*hostSet
	domain string
}

// applyGateway applies a gateway on hosts with more lines of its configuration.
func (s *gatewaySet) applyGateway(lines ...string) *result {
	s.t.Helper()
	file := filepath.Join(s.newFolder(""), "edge.dstack.yml")
	s.writeFile(file, "type: gateway\nname: edge\nbackend: ssh\ndomain: "+s.domain+"\ncertificate: null\n"+strings.Join(append(lines, ""), "\n"))
	return s.runCLI("apply", "-f", file, "-y")
}

// call makes a request for a service to the gateway on a host. It returns the status and the body.
func (s *gatewaySet) call(host int, service, token string) (int, string, error) {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.address(host)+"/who", http.NoBody)
	if err != nil {
		return 0, "", err
	}
	request.Host = service + "." + s.domain
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// awaitService waits until the gateway on a host serves a service to those who have a token, and to nobody else.
func (s *gatewaySet) awaitService(limit time.Duration, host int, service string) {
	s.t.Helper()
	s.waitUntil(limit, fmt.Sprintf("%s is served by host %d", service, host), func() error {
		status, body, err := s.call(host, service, s.token)
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("it answers %d %s", status, body)
		}
		return nil
	})
	if status, body, err := s.call(host, service, ""); err != nil || status == http.StatusOK {
		s.t.Errorf("without a token it answers %d %s: %v", status, body, err)
	}
}

// fetchGateway returns the gateway, or nil.
func (s *gatewaySet) fetchGateway() *api.GatewayView {
	s.t.Helper()
	var views api.GatewayViews
	s.postJSON(api.PathGatewayViews, api.GatewayViewsRequest{}, &views)
	for i, g := range views.Gateways {
		if g.Name == "edge" {
			return &views.Gateways[i]
		}
	}
	return nil
}

func (s *gatewaySet) waitForGateway(limit time.Duration, status, reason string) {
	s.t.Helper()
	s.waitUntil(limit, "the gateway is "+status, func() error {
		g := s.fetchGateway()
		if g == nil || string(g.Status) != status || !strings.Contains(string(g.Reason), reason) {
			return fmt.Errorf("it is %+v", g)
		}
		return nil
	})
}

// listGatewaysOn returns the containers and volumes of gateways on a host.
func (s *gatewaySet) listGatewaysOn(host int) string {
	filter := "label=dstack.gateway_installation=" + s.installationName()
	return s.runOn(host, "docker", "ps", "-a", "--filter", filter, "--format", "{{.Names}} {{.State}}") +
		s.runOn(host, "docker", "volume", "ls", "-q", "--filter", filter)
}

// awaitSavedState waits until the process of the gateway on a host has saved what the server told it: a gateway writes at most
// once a second, and a call right after its death may still be answered by the process that dies.
func (s *gatewaySet) awaitSavedState(limit time.Duration, host int) {
	s.t.Helper()
	const compare = `docker inspect --format '{{.State.Running}} {{.State.StartedAt}}' $0 &&
		stat -c %y $(docker inspect --format '{{range .Mounts}}{{if eq .Destination "/state"}}{{.Source}}{{end}}{{end}}' $0)/state`
	s.waitUntil(limit, "the gateway has saved its state", func() error {
		lines := strings.Split(s.runOn(host, "sh", "-c", compare, strings.Fields(s.listGatewaysOn(host))[0]), "\n")
		isRunning, text, _ := strings.Cut(lines[0], " ")
		started, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || len(lines) < 2 || isRunning != "true" {
			return fmt.Errorf("it is %q: %w", lines, err)
		}
		saved, err := time.Parse("2006-01-02 15:04:05.999999999 -0700", lines[1])
		if err != nil || !saved.After(started) {
			return fmt.Errorf("saved at %s, started at %s: %w", saved, started, err)
		}
		return nil
	})
}

// removeGateways shows and removes what a failed test has left on the hosts.
func (s *gatewaySet) removeGateways() {
	const show = "for c in $(docker ps -aq --filter label=dstack.gateway_placement); do docker logs --tail 30 $c 2>&1; done"
	const remove = "docker rm -f $(docker ps -aq --filter label=dstack.gateway_placement); docker volume rm $(docker volume ls -q --filter label=dstack.gateway_placement)"
	for host := 1; s.hostSet != nil && s.t.Failed() && host <= fleetHosts; host++ {
		logs, _ := s.control(context.Background(), nil, "run", strconv.Itoa(host), "sh", "-c", show)
		s.t.Logf("the log of the gateway on host %d:\n%s", host, logs)
		_, _ = s.control(context.Background(), nil, "run", strconv.Itoa(host), "sh", "-c", remove)
	}
}

// TestFleet_Gateway: a gateway on a host that cannot dial the server serves a service on another host, to callers with a token.
// It survives its own death and, while the server is down, a reboot of its host; and with the gateway, all of it goes.
func TestFleet_Gateway(t *testing.T) {
	s := &gatewaySet{domain: "fleet.test"}
	t.Cleanup(s.removeGateways) // after the server has ended, which would start them again
	s.hostSet = newHostSet(t)
	s.applyFleet("edge", s.host(1), s.host(3)).expectExit(0)
	s.applyFleet("work", s.host(2)).expectExit(0)
	s.waitForHost(30*time.Second, "edge", s.address(1), api.HostStatusIdle)
	s.waitForHost(30*time.Second, "work", s.address(2), api.HostStatusIdle)
	s.applyGateway("hosts: [" + s.address(1) + "]").expectExit(0)
	s.applyAndWait(s.newFolder(s.serviceConfig("shop", 1, "fleets: [work]")))
	s.waitForGateway(45*time.Second, "running", "")
	s.awaitService(20*time.Second, 1, "shop")
	if left := s.runOn(1, "docker", "inspect", "--format", "{{.Config.Env}}", strings.Fields(s.listGatewaysOn(1))[0]); strings.Contains(left, "dgw_") {
		t.Errorf("its token is in its environment: %s", left)
	}

	s.runOn(1, "sh", "-c", "kill -9 $(docker inspect --format '{{.State.Pid}}' "+strings.Fields(s.listGatewaysOn(1))[0]+")")
	s.awaitSavedState(20*time.Second, 1)
	s.awaitService(20*time.Second, 1, "shop")

	s.killServer()
	s.act("crash", 1, "up")
	s.mustControl("up", "1")
	s.awaitService(45*time.Second, 1, "shop")
	s.startServer()
	s.waitForGateway(30*time.Second, "running", "")
	if isLongRun() {
		s.checkGatewayUpgrade()
		s.checkGatewayMoves()
	}

	s.runCLI("gateway", "delete", "edge", "-y").expectExit(0)
	s.waitUntil(45*time.Second, "the gateway is gone", func() error {
		if g := s.fetchGateway(); g != nil {
			return fmt.Errorf("it is %s: %s", g.Status, g.Reason)
		}
		return nil
	})
	for host := 1; host <= fleetHosts; host++ {
		if left := s.listGatewaysOn(host); left != "" {
			t.Errorf("host %d has %s", host, left)
		}
	}
}

// checkGatewayUpgrade starts the server with another program: the gateway gets it, and serves all requests meanwhile.
func (s *gatewaySet) checkGatewayUpgrade() {
	s.t.Helper()
	before := strings.Fields(s.listGatewaysOn(1))[0]
	text, err := os.ReadFile(dstackBinary)
	if err != nil {
		s.t.Fatal(err)
	}
	next := filepath.Join(s.home, "next-dstack")
	if err := os.WriteFile(next, append(text, "another digest"...), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.stopServer()
	s.program = next
	s.startServer()
	calls := 0
	s.waitUntil(90*time.Second, "the gateway has the new program", func() error {
		for range 20 {
			calls++
			if status, body, err := s.call(1, "shop", s.token); err != nil || status != http.StatusOK {
				s.t.Errorf("call %d: %d %s: %v", calls, status, body, err)
			}
		}
		if all := s.listGatewaysOn(1); strings.Contains(all, before) || !strings.Contains(all, "running") {
			return fmt.Errorf("host 1 has %s", all)
		}
		return nil
	})
}

// checkGatewayMoves pulls the cable of the gateway's host and puts it back, and drains the host: the gateway then moves to
// another one before it leaves.
func (s *gatewaySet) checkGatewayMoves() {
	s.act("unplug", 1, "plug")
	s.waitForGateway(time.Minute, "failed", "does not answer")
	s.mustControl("plug", strconv.Itoa(1))
	s.waitForGateway(2*time.Minute, "running", "")
	s.awaitService(20*time.Second, 1, "shop")
	s.applyGateway().expectExit(0) // any host of the project
	s.runCLI("fleet", "drain", "edge", s.address(1)).expectExit(0)
	s.waitUntil(2*time.Minute, "the gateway has moved", func() error {
		if left := s.listGatewaysOn(1); left != "" {
			return fmt.Errorf("host 1 has %s", left)
		}
		return nil
	})
	served := 0
	for _, host := range []int{2, 3} {
		if s.listGatewaysOn(host) != "" {
			s.awaitService(20*time.Second, host, "shop")
			served++
		}
	}
	if served != 1 {
		s.t.Errorf("%d hosts serve", served)
	}
}
