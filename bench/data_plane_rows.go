package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"
)

// planeRow is something that is measured of all proxies in every round.
type planeRow struct {
	title   string
	unit    string    // what CPU and rate count
	times   [2]string // what the two times are
	applies func(*proxy) bool
	measure func([]*proxy) ([]loadFigures, error)
	goals   []planeGoal
}

// planeGoal is a bound for the median of the ratios of all rounds: ours in relation to a peer.
type planeGoal struct {
	what    string
	peer    string
	ratio   func(ours, peer, direct loadFigures) float64
	bound   float64
	isFloor bool // the ratio has to be at least the bound
}

func cpuRatio(ours, peer, _ loadFigures) float64  { return ours.cpu / peer.cpu }
func rateRatio(ours, peer, _ loadFigures) float64 { return ours.rate / peer.rate }

// addedP50 and addedP99 compare what is added to the time of a direct request.
func addedP50(ours, peer, direct loadFigures) float64 {
	return (ours.p50 - direct.p50) / (peer.p50 - direct.p50)
}
func addedP99(ours, peer, direct loadFigures) float64 {
	return (ours.p99 - direct.p99) / (peer.p99 - direct.p99)
}

const (
	modelBody  = `{"model":"%s","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"%s"}]}`
	streamBody = `{"model":"tokens","stream":true,"pieces":%d,"pace":%d,"messages":[{"role":"user","content":"Tell me about the fox."}]}`
	heldBody   = `{"model":"tokens","stream":true,"hold":true,"messages":[{"role":"user","content":"Tell me about the quick brown fox."}]}`

	longPrompt    = 400 << 10 // bytes
	streamPieces  = 200
	streamClients = 16
)

func toWeb(p *proxy) endpoint    { return p.web }
func toChat(p *proxy) endpoint   { return p.chat }
func toTokens(p *proxy) endpoint { return p.tokens }

// listRows returns what is measured, as far as its title matches a pattern.
func (d *dataPlane) listRows(pattern string, period time.Duration) ([]planeRow, error) {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	short := fmt.Sprintf(modelBody, "whole", "Tell me about the quick brown fox, in a few words.")
	long := fmt.Sprintf(modelBody, "tokens", strings.Repeat("a long prompt ", longPrompt/14))
	webGoals := []planeGoal{
		{"CPU", nginxPlain, cpuRatio, 1.25, false},
		{"CPU", nginxAuthed, cpuRatio, 0.65, false},
		{"CPU", "Caddy", cpuRatio, 0.33, false},
		{"rate", "HAProxy", rateRatio, 0.95, true},
	}
	var all []planeRow
	if why := checkTool("wrk", "WRK"); why != "" {
		d.missing = append(d.missing, "requests of wrk are not measured: "+why)
	} else {
		all = append(all,
			d.wrkRow("GET 1 KB, 16 connections", period, wrkLoad{16, toWeb, ""}, webGoals...),
			d.wrkRow("GET 1 KB, 64 connections", period, wrkLoad{64, toWeb, ""}, webGoals...),
			d.wrkRow("whole chat answers, 16 connections", period, wrkLoad{16, toChat, short},
				planeGoal{"rate", nginxPlain, rateRatio, 0.6, true}, planeGoal{"CPU", nginxPlain, cpuRatio, 1.6, false}),
			d.wrkRow("chat with a prompt of 400 KB, 4 connections", period, wrkLoad{4, toTokens, long},
				planeGoal{"CPU", nginxPlain, cpuRatio, 1.3, false}, planeGoal{"CPU", nginxMemory, cpuRatio, 1.3, false}))
	}
	all = append(all, planeRow{title: "GET 1 KB, 1 connection", unit: "request", times: [2]string{"p50", "p99"}, measure: measureTurns, applies: isNotSpecial,
		goals: []planeGoal{{"added p50", nginxPlain, addedP50, 1.5, false}, {"added p99", nginxPlain, addedP99, 1, false}}})
	for _, pace := range []int{1, 5, 20} {
		all = append(all, planeRow{title: fmt.Sprintf("%d streams of %d pieces, %d ms apart", streamClients, streamPieces, pace), unit: "token",
			times: [2]string{"first", "late p99"}, applies: isNotSpecial, measure: eachAlone(func(p *proxy) (loadFigures, error) {
				one := streamPieces * time.Duration(pace) * time.Millisecond
				return streamLoad{streamClients, streamPieces, time.Duration(pace) * time.Millisecond, int(period / one)}.run(p)
			}),
			goals: []planeGoal{{"added time to the first token", nginxPlain, addedP50, 1, false}, {"CPU", nginxPlain, cpuRatio, 1.25, false}}})
	}
	all = append(all, d.http2Rows()...)
	return slices.DeleteFunc(all, func(r planeRow) bool { return !match.MatchString(r.title) }), nil
}

func (d *dataPlane) wrkRow(title string, period time.Duration, load wrkLoad, goals ...planeGoal) planeRow {
	isLong := len(load.body) > 64<<10
	return planeRow{title: title, unit: "request", times: [2]string{"p50", "p99"}, goals: goals,
		applies: func(p *proxy) bool { return isLong || p.name != nginxMemory },
		measure: eachAlone(func(p *proxy) (loadFigures, error) { return load.run(d.dir, p, period) })}
}

// isNotSpecial leaves out what is the same as nginx without bodies.
func isNotSpecial(p *proxy) bool { return p.name != nginxMemory }

// maxTries is how often a program may fail in one round.
const maxTries = 3

// eachAlone measures one proxy after the other, in random order.
func eachAlone(measure func(*proxy) (loadFigures, error)) func([]*proxy) ([]loadFigures, error) {
	return func(proxies []*proxy) ([]loadFigures, error) {
		all := make([]loadFigures, len(proxies))
		for _, i := range rand.Perm(len(proxies)) {
			for try := 1; ; try++ {
				var err error
				if all[i], err = measure(proxies[i]); err == nil {
					break
				}
				err = fmt.Errorf("%s: %w", proxies[i].name, err)
				if try == maxTries {
					return nil, err
				}
				fmt.Println("measured once more:", err)
			}
		}
		return all, nil
	}
}

// The titles of what listRows does not have.
const (
	heldTitle   = "held streams"
	scrapeTitle = "scrape of 1000 services"
)

// checkRows returns an error that lists the titles of all rows if a pattern matches none.
func checkRows(pattern string) error {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	rows, err := new(dataPlane).listRows("", time.Second)
	if err != nil {
		return err
	}
	titles := []string{heldTitle, scrapeTitle}
	for _, row := range rows {
		titles = append(titles, row.title)
	}
	if !slices.ContainsFunc(titles, match.MatchString) {
		return fmt.Errorf("no row matches %q; the rows are:\n  %s", pattern, strings.Join(titles, "\n  "))
	}
	return nil
}

// measureGateway measures what our gateway adds to requests, beside other programs.
func (b *benchmark) measureGateway(rounds int) (err error) {
	if err := checkRows(b.rows); err != nil {
		return err
	}
	d, err := b.newDataPlane()
	if err != nil {
		return err
	}
	defer func() {
		if e := d.close(); err == nil {
			err = e
		}
	}()
	rows, err := d.listRows(b.rows, b.period)
	if err != nil {
		return err
	}
	for _, why := range d.missing {
		fmt.Println(why)
	}
	for _, row := range rows {
		proxies := slices.Clone(d.proxies)
		if row.applies != nil {
			proxies = slices.DeleteFunc(proxies, func(p *proxy) bool { return !row.applies(p) })
		}
		result := planeResult{row: row, proxies: proxies}
		for round := range rounds + 1 {
			figures, err := row.measure(proxies)
			if err != nil {
				return fmt.Errorf("%s: %w", row.title, err)
			}
			if round > 0 { // the first one warms up
				result.rounds = append(result.rounds, figures)
			}
		}
		result.report()
	}
	if err := d.measureHeld(b.rows); err != nil {
		return err
	}
	if match, err := regexp.MatchString(b.rows, scrapeTitle); err != nil || !match {
		return err
	}
	fmt.Println()
	return b.measureScrape()
}
