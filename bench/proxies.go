package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// proxy is a program between clients and replicas, or none: then the replicas are reached directly.
type proxy struct {
	name    string
	program *exec.Cmd // nil: none
	pid     int

	web    endpoint // GET / answers with 1 KB
	chat   endpoint // whole answers to chat requests
	tokens endpoint // answers of the token source, as streams and whole
	h2     endpoint // HTTP/2 without TLS; no address: not offered
	tls    endpoint // HTTP/1.1 and HTTP/2 over TLS; no address: not offered
	// metrics is where a server of ours serves them.
	metrics string
}

// endpoint is where requests of one kind are sent.
type endpoint struct {
	address string
	path    string
	host    string // in the Host field
}

// openDescriptors is the number of open files that each program may have.
const openDescriptors = 20000

// replicaPorts are where the two replicas listen that all programs forward to, and an application that permits every request.
type replicaPorts struct{ web, tokens, auth int }

// proxyPorts are where a program listens for each replica.
type proxyPorts struct{ web, tokens, h2, tls int }

func takePorts() (p proxyPorts, err error) {
	for _, port := range []*int{&p.web, &p.tokens, &p.h2, &p.tls} {
		var one error
		*port, one = freePort()
		err = errors.Join(err, one)
	}
	return p, err
}

const (
	webPath  = "/"
	chatPath = "/v1/chat/completions"
)

func (p proxyPorts) endpoints(name string) *proxy {
	at := func(port int, path string) endpoint {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		return endpoint{address, path, address}
	}
	return &proxy{name: name, web: at(p.web, webPath), chat: at(p.web, chatPath), tokens: at(p.tokens, chatPath)}
}

// nginxFrame is a configuration of nginx: the line with the user, the most open files twice, and the servers.
const nginxFrame = `%s
pid nginx.pid;
worker_processes 2;
worker_rlimit_nofile %d;
error_log stderr error;
events { worker_connections %[2]d; }
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	keepalive_requests 100000000;
	client_max_body_size 16m;
%s
}
`

// nginxForward forwards to both replicas, over connections that are kept. Its parameters are the two ports of the replicas, the
// ports to listen on, further settings of all servers, a further location, and further servers.
const nginxForward = `	upstream web { server 127.0.0.1:%d; keepalive 256; }
	upstream tokens { server 127.0.0.1:%d; keepalive 256; }
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	proxy_set_header Host $http_host;
	proxy_set_header X-Forwarded-For $remote_addr;
	proxy_buffering off;
	proxy_read_timeout 15m;
	%s
	server { listen 127.0.0.1:%d; location / { proxy_pass http://web; %s } %s }
	server { listen 127.0.0.1:%d; location / { proxy_pass http://tokens; } }
	%s`

// nginxAuth asks an application before each request, over connections that are kept.
const nginxAuth = `location = /auth { internal; proxy_pass http://auth; proxy_pass_request_body off;
		proxy_set_header Connection ""; proxy_set_header Content-Length ""; }`

// startNginxProgram starts nginx with servers, and waits until it answers.
func startNginxProgram(dir, servers string, port int) (*exec.Cmd, error) {
	if why := checkNginx(); why != "" {
		return nil, notMeasured("nginx is not measured: " + why)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // only root may read the folder
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxFrame, user, openDescriptors, servers), 0o600); err != nil {
		return nil, err
	}
	return startProgram(exec.Command("nginx", "-p", dir, "-c", file, "-g", "daemon off;"), port)
}

// startProgram starts a program and waits until it listens on a port.
func startProgram(cmd *exec.Cmd, port int) (*exec.Cmd, error) {
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return cmd, conn.Close()
		}
		if time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("%s does not listen: %w", cmd.Path, err), stopProgram(cmd))
		}
	}
}

// stopProgram asks a program to end, and waits until it has ended.
func stopProgram(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait() // it was asked to end
	return nil
}

// startNginxProxy starts nginx as a proxy; settings hold for all requests.
func startNginxProxy(dir, name, settings string, to replicaPorts, cert, key string) (*proxy, error) {
	ports, err := takePorts()
	if err != nil {
		return nil, err
	}
	location, more, servers := "", "", fmt.Sprintf("server { listen 127.0.0.1:%d http2; location / { proxy_pass http://web; } }\n"+
		"server { listen 127.0.0.1:%d ssl http2; ssl_certificate %s; ssl_certificate_key %s; location / { proxy_pass http://web; } }",
		ports.h2, ports.tls, cert, key)
	if strings.Contains(name, "auth_request") {
		location, more = "auth_request /auth;", nginxAuth
		servers += fmt.Sprintf("\nupstream auth { server 127.0.0.1:%d; keepalive 256; }", to.auth)
	}
	p := ports.endpoints(name)
	p.h2 = endpoint{fmt.Sprintf("127.0.0.1:%d", ports.h2), webPath, tlsName}
	p.tls = endpoint{fmt.Sprintf("127.0.0.1:%d", ports.tls), webPath, tlsName}
	text := fmt.Sprintf(nginxForward, to.web, to.tokens, settings, ports.web, location, more, ports.tokens, servers)
	p.program, err = startNginxProgram(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), text, ports.tokens)
	return p, err
}

const haproxyConfig = `global
	nbthread 2
	maxconn 9500
	stats socket %s
defaults
	mode http
	option http-no-delay
	http-reuse always
	timeout connect 5s
	timeout client 15m
	timeout server 15m
listen web
	bind 127.0.0.1:%d
	server replica 127.0.0.1:%d
listen tokens
	bind 127.0.0.1:%d
	server replica 127.0.0.1:%d
`

func startHAProxy(dir string, to replicaPorts) (*proxy, error) {
	if why := os.Getenv("DSTACK_TEST_WITHOUT_HAPROXY"); why != "" {
		return nil, notMeasured("HAProxy is not measured: " + why)
	}
	program, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, notMeasured("HAProxy is not measured: " + err.Error())
	}
	ports, err := takePorts()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "haproxy.cfg")
	text := fmt.Appendf(nil, haproxyConfig, filepath.Join(dir, "haproxy.sock"), ports.web, to.web, ports.tokens, to.tokens)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	p := ports.endpoints("HAProxy")
	p.program, err = startProgram(exec.Command(program, "-db", "-f", file), ports.tokens)
	return p, err
}

const caddyConfig = `{
	admin off
	auto_https off
}
http://127.0.0.1:%d {
	reverse_proxy 127.0.0.1:%d
}
http://127.0.0.1:%d {
	reverse_proxy 127.0.0.1:%d {
		flush_interval -1
	}
}
`

func startCaddyProxy(dir string, to replicaPorts) (*proxy, error) {
	program := os.Getenv("DSTACK_TEST_CADDY")
	if program == "" {
		return nil, notMeasured("Caddy is not measured: DSTACK_TEST_CADDY is not set; scripts/test.sh bench sets it")
	}
	ports, err := takePorts()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, fmt.Appendf(nil, caddyConfig, ports.web, to.web, ports.tokens, to.tokens), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	log, err := os.Create(filepath.Join(dir, "caddy.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log // it reports there what is not wrong, too
	p := ports.endpoints("Caddy")
	p.program, err = startProgram(cmd, ports.tokens)
	return p, err
}

// startReverseProxy starts httputil.ReverseProxy with a transport that keeps connections, as a process of its own.
func startReverseProxy(to replicaPorts) (*proxy, error) {
	ports, err := takePorts()
	if err != nil {
		return nil, err
	}
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := ports.endpoints("ReverseProxy")
	p.program, err = startProgram(exec.Command(own, reverseProxyMode, strconv.Itoa(ports.web), strconv.Itoa(to.web),
		strconv.Itoa(ports.tokens), strconv.Itoa(to.tokens)), ports.tokens)
	return p, err
}
