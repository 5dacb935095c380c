package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

const (
	http2Requests = 6000
	http2Clients  = 8
)

// http2Rows are requests of h2load.
func (d *dataPlane) http2Rows() []planeRow {
	if why := checkTool("h2load", "WRK"); why != "" {
		d.missing = append(d.missing, "HTTP/2 is not measured: "+why)
		return nil
	}
	row := func(title string, to func(*proxy) endpoint, scheme string, flags ...string) planeRow {
		return planeRow{title: title, unit: "request", times: [2]string{"mean", "longest"},
			applies: func(p *proxy) bool { return to(p).address != "" && p.name != nginxMemory && p.name != nginxAuthed },
			measure: eachAlone(func(p *proxy) (loadFigures, error) { return runH2load(p, to(p), scheme, flags...) }),
			goals:   []planeGoal{{"CPU", nginxPlain, cpuRatio, 1, false}}}
	}
	tls := func(p *proxy) endpoint { return p.tls }
	return []planeRow{
		row("HTTP/2 without TLS, 8 connections, 16 streams each", func(p *proxy) endpoint { return p.h2 }, "http", "-m16"),
		row("HTTP/2 over TLS, 8 connections, 16 streams each", tls, "https", "-m16"),
		row("HTTP/1.1 over TLS, 8 connections", tls, "https", "--h1"),
	}
}

var (
	h2loadDone = regexp.MustCompile(`requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded`)
	h2loadRate = regexp.MustCompile(`finished in [^,]+, ([\d.]+) req/s`)
	h2loadTime = regexp.MustCompile(`time for request: +(\S+) +(\S+) +(\S+)`)
)

func runH2load(p *proxy, to endpoint, scheme string, flags ...string) (f loadFigures, err error) {
	args := append(flags, "-n", strconv.Itoa(http2Requests), "-c", strconv.Itoa(http2Clients), "--connect-to", to.address,
		"-H", "authorization: Bearer "+token, scheme+"://"+to.host+to.path)
	before := readCPUClock(p.pid)
	out, err := exec.Command("h2load", args...).CombinedOutput()
	used := readCPUClock(p.pid) - before
	if err != nil {
		return f, fmt.Errorf("h2load: %w: %s", err, out)
	}
	done, rate, took := h2loadDone.FindSubmatch(out), h2loadRate.FindSubmatch(out), h2loadTime.FindSubmatch(out)
	if done == nil || rate == nil || took == nil || string(done[1]) != string(done[2]) {
		return f, fmt.Errorf("h2load: %s", out)
	}
	f.rate, err = strconv.ParseFloat(string(rate[1]), 64)
	longest, _ := time.ParseDuration(string(took[2])) // it writes us, ms and s as Go does
	mean, _ := time.ParseDuration(string(took[3]))
	f.cpu, f.p50, f.p99 = toMicroseconds(used)/http2Requests, toMilliseconds(mean), toMilliseconds(longest)
	return f, err
}

// getText returns the body of a response, which must be 200.
func getText(url string) (string, error) {
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return string(text), err
}
