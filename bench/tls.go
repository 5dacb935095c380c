package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// tlsName is the name that all proxies serve, with one certificate.
const tlsName = "web.example.test"

// tlsProxy is a program that ends TLS in front of the replica.
type tlsProxy struct {
	name       string
	port       int
	cmd        *exec.Cmd
	handshakes []float64 // a second, of each round
	requests   []float64

	handshakeCPU []float64 // of one, in microseconds, in each round, with all processes of the program
	requestCPU   []float64
}

// The work of one round.
const (
	tlsClients       = 8
	handshakesOfOne  = 120
	tlsRequestsOfOne = 800
)

const nginxTLSConfig = `%s
pid nginx.pid;
worker_processes auto;
error_log stderr error;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	keepalive_requests 1000000;
	upstream replica { server 127.0.0.1:%d; keepalive 64; }
	server {
		listen 127.0.0.1:%d ssl;
		server_name *.example.test;
		ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;
		location / { proxy_pass http://replica; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; }
	}
}
`

const caddyTLSConfig = `{
	admin off
	auto_https off
}
https://*.example.test:%d {
	bind 127.0.0.1
	tls %s %s
	reverse_proxy 127.0.0.1:%d
}
`

// measureTLS measures handshakes and requests on kept connections, beside nginx and Caddy with the same certificate.
func (b *benchmark) measureTLS(rounds int) (err error) {
	dir := filepath.Join(b.dir, "tls")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cert, key, err := writeCertificate(dir)
	if err != nil {
		return err
	}
	replica, err := freePort()
	if err != nil {
		return err
	}
	server, gateway, err := b.startTLSGateway(dir, replica, cert, key)
	if server != nil {
		defer func() {
			err = errors.Join(err, server.removeService("web", dir))
			server.stop()
		}()
	}
	if err != nil {
		return err
	}
	proxies := []*tlsProxy{gateway}
	for _, start := range []func() (*tlsProxy, error){
		func() (*tlsProxy, error) { return startTLSNginx(dir, replica, cert, key) },
		func() (*tlsProxy, error) { return startTLSCaddy(dir, replica, cert, key) },
	} {
		proxy, err := start()
		if why, is := errors.AsType[notMeasured](err); is {
			fmt.Println(why)
			continue
		}
		if err != nil {
			return err
		}
		defer proxy.stop()
		proxies = append(proxies, proxy)
	}
	for range rounds {
		for _, i := range mathrand.Perm(len(proxies)) {
			p := proxies[i]
			if err := p.measureRound(); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	reportTLS(proxies)
	return nil
}

func reportTLS(proxies []*tlsProxy) {
	fmt.Printf("%-12s %16s %16s %22s %22s\n", "TLS", "handshakes/s", "requests/s", "CPU of one handshake", "CPU of one request")
	for _, p := range proxies {
		fmt.Printf("%-12s %16.0f %16.0f %19.0f us %19.0f us\n", p.name, median(p.handshakes), median(p.requests),
			median(p.handshakeCPU), median(p.requestCPU))
	}
	ours := proxies[0]
	for _, p := range proxies[1:] {
		printRatios("TLS handshakes: gateway / "+p.name, ours.handshakes, p.handshakes)
		printRatios("requests over TLS: gateway / "+p.name, ours.requests, p.requests)
		printRatios("handshakes for the same CPU: gateway / "+p.name, p.handshakeCPU, ours.handshakeCPU)
		printRatios("requests for the same CPU: gateway / "+p.name, p.requestCPU, ours.requestCPU)
		if p.name == "nginx" {
			printMinimumGoal("handshakes, of those of nginx", median(divideByFloors(ours.handshakes, p.handshakes)), 0.9, "times")
		} else {
			printMinimumGoal("requests, of those of Caddy", median(divideByFloors(ours.requests, p.requests)), 1.5, "times")
		}
	}
}

// writeCertificate writes a certificate for *.example.test and its key.
func writeCertificate(dir string) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.example.test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return cert, key, errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// startTLSGateway starts a server with a gateway and the service web, whose replica listens on a port.
func (b *benchmark) startTLSGateway(dir string, replica int, cert, key string) (*dstackServer, *tlsProxy, error) {
	https, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	http, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	server, err := startServer(b.binary, filepath.Join(b.dir, "tls-server"), "process",
		"--gateway-host", "127.0.0.1", "--https-port", strconv.Itoa(https), "--http-port", strconv.Itoa(http))
	if err != nil {
		return nil, nil, err
	}
	gateway := fmt.Sprintf("type: gateway\nname: edge\nbackend: local\ndomain: example.test\ncertificate: {type: files, cert: %s, key: %s}\n", cert, key)
	service := fmt.Sprintf("type: service\nname: web\nport: %d\nauth: false\nenv: [HOST=127.0.0.1]\ncommands:\n- exec %s %[1]d\n", replica, b.workload)
	err = errors.Join(os.WriteFile(filepath.Join(dir, "gateway.dstack.yml"), []byte(gateway), 0o600),
		os.WriteFile(filepath.Join(dir, "service.dstack.yml"), []byte(service), 0o600))
	if err != nil {
		return server, nil, err
	}
	if err := server.runCLI(dir, "apply", "-f", "gateway.dstack.yml", "-y"); err != nil {
		return server, nil, err
	}
	if _, err := server.applyAndWait("web", dir); err != nil {
		return server, nil, err
	}
	proxy := &tlsProxy{name: "gateway", port: https, cmd: server.cmd}
	return server, proxy, proxy.waitUntilServed()
}

func startTLSNginx(dir string, replica int, cert, key string) (*tlsProxy, error) {
	if why := checkNginx(); why != "" {
		return nil, notMeasured("nginx is not measured: " + why)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // only root may read the folder
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxTLSConfig, user, replica, port, cert, key), 0o600); err != nil {
		return nil, err
	}
	return startTLSProxy("nginx", port, exec.Command("nginx", "-p", dir, "-c", config, "-g", "daemon off;"))
}

func startTLSCaddy(dir string, replica int, cert, key string) (*tlsProxy, error) {
	program := os.Getenv("DSTACK_TEST_CADDY")
	if program == "" {
		return nil, notMeasured("Caddy is not measured: DSTACK_TEST_CADDY is not set; scripts/test.sh bench sets it")
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, fmt.Appendf(nil, caddyTLSConfig, port, cert, key, replica), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "run", "--config", config, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return startTLSProxy("Caddy", port, cmd)
}

func startTLSProxy(name string, port int, cmd *exec.Cmd) (*tlsProxy, error) {
	p := &tlsProxy{name: name, port: port, cmd: cmd}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.waitUntilServed(); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *tlsProxy) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	_ = p.cmd.Wait()
}

func (p *tlsProxy) address() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// waitUntilServed waits for the first response of the replica.
func (p *tlsProxy) waitUntilServed() error {
	var last error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if last = p.sendRequests(1); last == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not serve TLS: %w", p.name, last)
}

// measureRound adds one round.
func (p *tlsProxy) measureRound() error {
	handshakes, used, err := p.measureRate(handshakesOfOne, p.shakeHands)
	if err != nil {
		return err
	}
	p.handshakes, p.handshakeCPU = append(p.handshakes, handshakes), append(p.handshakeCPU, used)
	requests, used, err := p.measureRate(tlsRequestsOfOne, p.sendRequests)
	p.requests, p.requestCPU = append(p.requests, requests), append(p.requestCPU, used)
	return err
}

// measureRate returns how much of something all clients do in a second, if each does it times, and the CPU that the program
// needs for one, in microseconds.
func (p *tlsProxy) measureRate(times int, do func(times int) error) (rate, used float64, err error) {
	errs := make([]error, tlsClients)
	before, began := usedCPUTime(p.cmd.Process.Pid), time.Now()
	var group sync.WaitGroup
	for i := range tlsClients {
		group.Go(func() { errs[i] = do(times) })
	}
	group.Wait()
	all := float64(tlsClients * times)
	rate = all / time.Since(began).Seconds()
	return rate, 1000 * toMilliseconds(usedCPUTime(p.cmd.Process.Pid)-before) / all, errors.Join(errs...)
}

var tlsClientConfig = &tls.Config{InsecureSkipVerify: true, ServerName: tlsName, NextProtos: []string{"http/1.1"}}

// shakeHands makes complete handshakes, without resumption.
func (p *tlsProxy) shakeHands(times int) error {
	for range times {
		conn, err := tls.Dial("tcp", p.address(), tlsClientConfig)
		if err != nil {
			return err
		}
		if err := conn.NetConn().Close(); err != nil {
			return err
		}
	}
	return nil
}

// sendRequests sends requests one after the other over one connection.
func (p *tlsProxy) sendRequests(times int) error {
	transport := &http.Transport{TLSClientConfig: tlsClientConfig, MaxIdleConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	for range times {
		req, err := http.NewRequest("GET", "https://"+p.address()+"/cancelled", nil)
		if err != nil {
			return err
		}
		req.Host = fmt.Sprintf("%s:%d", tlsName, p.port)
		res, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		if err := discard(res); err != nil {
			return err
		}
	}
	return nil
}

// discard reads a response, so that its connection is kept.
func discard(res *http.Response) error {
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
