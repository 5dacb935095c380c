package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// dataPlane has two replicas and all programs that forward requests to them: ours twice, as a null check, and others.
type dataPlane struct {
	dir       string
	replicas  []*exec.Cmd
	servers   []*dstackServer
	proxies   []*proxy
	cert, key string
	missing   []string // what is not measured, and why
}

// The names of the proxies that figures are compared with.
const (
	direct      = "direct"
	ours        = "gateway"
	oursAgain   = "gateway again"
	nginxPlain  = "nginx"
	nginxMemory = "nginx, bodies in memory"
	nginxAuthed = "nginx with auth_request"
)

// webReplica answers all requests at once, chat requests like a model. Its parameters are its port, the answers, and the port of
// the application that permits requests.
const webReplica = `	client_body_buffer_size 1m;
	server {
		listen 127.0.0.1:%d reuseport backlog=4096;
		location / { default_type text/plain; return 200 "%s"; }
		location = /v1/chat/completions { default_type application/json; return 200 '%s'; }
	}
	server { listen 127.0.0.1:%d; location / { return 204; } }
`

// newDataPlane starts everything. The replicas start last: servers refuse to start a replica whose port is taken.
func (b *benchmark) newDataPlane() (d *dataPlane, err error) {
	d = &dataPlane{dir: filepath.Join(b.dir, "data-plane")}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err = os.MkdirAll(d.dir, 0o755); err != nil {
		return d, err
	}
	if d.cert, d.key, err = writeCertificate(d.dir); err != nil {
		return d, err
	}
	var to replicaPorts
	for _, port := range []*int{&to.web, &to.tokens, &to.auth} {
		if *port, err = freePort(); err != nil {
			return d, err
		}
	}
	at := proxyPorts{web: to.web, tokens: to.tokens}
	d.proxies = []*proxy{at.endpoints(direct)}
	binaries := []struct{ name, binary string }{{ours, b.binary}, {oursAgain, b.binary}}
	if b.beside != "" {
		binaries = append(binaries, struct{ name, binary string }{"gateway, " + filepath.Base(b.beside), b.beside})
	}
	for i, one := range binaries {
		if err := d.startOurs(one.name, one.binary, filepath.Join(d.dir, fmt.Sprint("server-", i)), to); err != nil {
			return d, err
		}
	}
	if err := d.startReplicas(to); err != nil {
		return d, err
	}
	if err := d.startPeers(to); err != nil {
		return d, err
	}
	for _, p := range d.proxies {
		if p.program != nil {
			p.pid = p.program.Process.Pid
		}
		for _, to := range []endpoint{p.web, p.tokens} {
			if err := to.waitUntilServed(); err != nil {
				return d, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return d, nil
}

func (e endpoint) waitUntilServed() error {
	return waitUntilServed("http://"+e.address+webPath, e.host, 30*time.Second)
}

func (d *dataPlane) startReplicas(to replicaPorts) error {
	web := fmt.Sprintf(webReplica, to.web, strings.Repeat("x", 1024), sourceWhole, to.auth)
	program, err := startNginxProgram(filepath.Join(d.dir, "replica"), web, to.web)
	if err != nil {
		return err
	}
	d.replicas = append(d.replicas, program)
	own, err := os.Executable()
	if err != nil {
		return err
	}
	source, err := startProgram(exec.Command(own, tokenSourceMode, strconv.Itoa(to.tokens)), to.tokens)
	if err == nil {
		d.replicas = append(d.replicas, source)
	}
	return err
}

// startPeers starts all programs that ours is compared with, as far as they are installed.
func (d *dataPlane) startPeers(to replicaPorts) error {
	for _, start := range []func() (*proxy, error){
		func() (*proxy, error) { return startNginxProxy(d.dir, nginxPlain, "", to, d.cert, d.key) },
		func() (*proxy, error) {
			return startNginxProxy(d.dir, nginxMemory, "client_body_buffer_size 1m;", to, d.cert, d.key)
		},
		func() (*proxy, error) { return startNginxProxy(d.dir, nginxAuthed, "", to, d.cert, d.key) },
		func() (*proxy, error) { return startHAProxy(d.dir, to) },
		func() (*proxy, error) { return startCaddyProxy(d.dir, to) },
		func() (*proxy, error) { return startReverseProxy(to) },
	} {
		p, err := start()
		if why, is := errors.AsType[notMeasured](err); is {
			d.missing = append(d.missing, string(why))
			continue
		}
		if err != nil {
			return err
		}
		d.proxies = append(d.proxies, p)
	}
	return nil
}

const (
	webService = "type: service\nname: web\nport: %d\nenv: [HOST=127.0.0.1]\ncommands:\n- touch %s\n- exec sleep 1000000\n" +
		"model: {type: chat, name: whole, format: openai}\n"
	tokenService = "type: service\nname: tokens\nport: %d\nenv: [HOST=127.0.0.1]\ncommands:\n- touch %s\n- exec sleep 1000000\n" +
		"model: {type: chat, name: tokens, format: openai}\n"
)

// startOurs starts a server of ours with a gateway and two services. Their replicas are processes that wait; what listens on
// their ports starts later, and serves all programs.
func (d *dataPlane) startOurs(name, binary, home string, to replicaPorts) error {
	var metrics, https, plain int
	for _, port := range []*int{&metrics, &https, &plain} {
		var err error
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	s, err := startServer(binary, home, "process", "--metrics", fmt.Sprint("127.0.0.1:", metrics),
		"--gateway-host", "127.0.0.1", "--https-port", strconv.Itoa(https), "--http-port", strconv.Itoa(plain))
	if err != nil {
		return err
	}
	d.servers = append(d.servers, s)
	gateway := fmt.Sprintf("type: gateway\nname: edge\nbackend: local\ndomain: example.test\n"+
		"certificate: {type: files, cert: %s, key: %s}\n", d.cert, d.key)
	started := []string{filepath.Join(home, "web-started"), filepath.Join(home, "tokens-started")}
	for i, text := range []string{gateway, fmt.Sprintf(webService, to.web, started[0]), fmt.Sprintf(tokenService, to.tokens, started[1])} {
		file := filepath.Join(home, fmt.Sprintf("%d.dstack.yml", i))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		args := []string{"apply", "-f", file, "-y"}
		if i > 0 {
			args = append(args, "-d")
		}
		if err := s.runCLI(home, args...); err != nil {
			return err
		}
	}
	for end := time.Now().Add(20 * time.Second); !exists(started[0]) || !exists(started[1]); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s: the replicas do not start", name)
		}
	}
	address := fmt.Sprintf("127.0.0.1:%d", s.port)
	model := endpoint{address, "/proxy/models/main" + chatPath, ""}
	web := endpoint{address, webPath, "web.localhost"}
	tokens := model
	model.host, tokens.host = "web.localhost", "tokens.localhost"
	d.proxies = append(d.proxies, &proxy{name: name, pid: s.cmd.Process.Pid, web: web, chat: model, tokens: tokens, h2: web,
		tls: endpoint{fmt.Sprintf("127.0.0.1:%d", https), webPath, tlsName}, metrics: fmt.Sprint("127.0.0.1:", metrics)})
	return nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func (d *dataPlane) close() error {
	var errs []error
	for _, p := range d.proxies {
		if p.program != nil {
			errs = append(errs, stopProgram(p.program))
		}
	}
	for _, s := range d.servers {
		for _, run := range []string{"web", "tokens"} {
			_ = s.removeService(run, s.home) // it may not exist
		}
		s.stop()
	}
	for _, replica := range d.replicas {
		errs = append(errs, stopProgram(replica))
	}
	return errors.Join(errs...)
}
