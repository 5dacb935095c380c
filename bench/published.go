package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	publishedReplicas = 3 // of each service
	publishedSettle   = 15 * time.Minute
	idleMinute        = time.Minute
)

// publishedCounts are the numbers of services in the databases while requests are measured.
var publishedCounts = []int{1, 20, 100}

// commandsAt is the number of services in the databases while the command lines are measured.
const commandsAt = 20

// The bodies of runs/list of the published clients' `dstack ps -a`.
const (
	seedList   = `{"project_name":"main","repo_id":null,"username":null,"only_active":false,"prev_submitted_at":null,"prev_run_id":null,"limit":100,"ascending":false}`
	newestList = `{"project_name":"main","repo_id":null,"username":null,"only_active":false,"include_jobs":true,"job_submissions_limit":1,` +
		`"prev_submitted_at":null,"prev_run_id":null,"limit":100,"ascending":false}`
)

// measurePublished compares our server and command line with the published releases 0.18.10 and 0.22.5: real servers as
// processes on loopback with SQLite, each with the same finished services. Nobody has a machine, so that nobody is busy
// with one, except that ours plans on the machine it runs on.
func (b *benchmark) measurePublished(rounds int) error {
	peers, err := b.newPeers()
	if why, is := errors.AsType[notMeasured](err); is {
		fmt.Println("the published releases are not measured:", why)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range peers {
			_ = p.stop() // stop returns no error
		}
	}()
	var report publishedReport
	for _, p := range peers {
		if err := errors.Join(p.start(), p.registerRepo()); err != nil {
			return err
		}
		report.peers = append(report.peers, p)
	}
	have := 0
	for _, count := range publishedCounts {
		for _, p := range peers {
			if err := p.addRuns(p, have, count-have); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if err := p.waitForRuns(count, publishedSettle, isFinishedStatus); err != nil {
				return err
			}
		}
		have = count
		if err := report.measureRequests(peers, count, rounds); err != nil {
			return err
		}
		if count == commandsAt {
			if report.commands, err = b.runRounds(commandCases(report.listOwners()), rounds); err != nil {
				return err
			}
			report.printCommands()
		}
	}
	for _, p := range peers { // two processes of one binary would share its pages
		if err := p.stop(); err != nil {
			return err
		}
	}
	if report.idle, err = measureIdlePeers(report.listOwners()); err != nil {
		return err
	}
	report.printIdle()
	return nil
}

// oursNewest is the name of a second server of ours, which gets what the newest client sends.
const oursNewest = "ours, 0.22.5's"

// newPeers returns our release, twice because it answers each published client in its own format, and the published ones.
func (b *benchmark) newPeers() ([]*peer, error) {
	seed, newest := os.Getenv("DSTACK_TEST_PUBLISHED"), os.Getenv("DSTACK_TEST_NEWEST_SERVER")
	if seed == "" || newest == "" {
		return nil, notMeasured(cmp.Or(strings.TrimSpace(os.Getenv("DSTACK_TEST_WITHOUT_PUBLISHED")+" "+os.Getenv("DSTACK_TEST_WITHOUT_NEWEST_SERVER")),
			"DSTACK_TEST_PUBLISHED and DSTACK_TEST_NEWEST_SERVER are not set; scripts/test.sh bench sets them"))
	}
	seedFormat, err := readWireFormat("0.18.10", seedList)
	if err != nil {
		return nil, err
	}
	newestFormat, err := readWireFormat("0.22.5", newestList)
	if err != nil {
		return nil, err
	}
	const noMachines = "projects:\n- name: main\n  backends: []\n"
	const thisMachine = "projects:\n- name: main\n  backends:\n  - type: local\n    engine: process\n"
	submit := func(p *peer, first, count int) error { return p.submitAndStop(seedFormat, first, count) }
	peers := []*peer{
		{name: "ours", wire: seedFormat, binary: b.binary, flags: []string{"--default"}, addRuns: submit, config: thisMachine},
		{name: oursNewest, wire: newestFormat, binary: b.binary, flags: []string{"--default"}, addRuns: submit, config: thisMachine},
		{name: "0.18.10", wire: seedFormat, binary: filepath.Join(seed, "bin", "dstack"), flags: []string{"--default"},
			config: noMachines, addRuns: (*peer).insertRuns, rival: "ours"},
		{name: "0.22.5", wire: newestFormat, binary: filepath.Join(newest, "bin", "dstack"), flags: []string{"-y"},
			config: noMachines, addRuns: (*peer).applyRuns, rival: oursNewest},
	}
	for i, p := range peers {
		p.home = filepath.Join(b.dir, fmt.Sprintf("peer-%d", i))
	}
	return peers, nil
}

// submitAndStop adds services to our server: they wait for a machine that does not exist, and are stopped.
func (p *peer) submitAndStop(format *wireFormat, first, count int) error {
	wait := map[string]any{"retry": map[string]any{"on_events": []string{"no-capacity"}, "duration": 3600}}
	var names []string
	for number := first; number < first+count; number++ {
		spec, name, err := format.nameRun(number, wait)
		if err != nil {
			return err
		}
		if err := p.callWith(format, runsPath+"submit", map[string]any{"run_spec": spec}); err != nil {
			return err
		}
		names = append(names, name)
	}
	if err := p.waitForRuns(first+count, publishedSettle, func(string) bool { return true }); err != nil {
		return err
	}
	return p.callWith(format, runsPath+"stop", map[string]any{"runs_names": names, "abort": false})
}

// applyRuns adds services to the server of 0.22.5. They fail because it has no machine.
func (p *peer) applyRuns(first, count int) error {
	for number := first; number < first+count; number++ {
		spec, _, err := p.wire.nameRun(number, nil)
		if err != nil {
			return err
		}
		plan := map[string]any{"run_spec": spec, "current_resource": nil}
		if err := p.callWith(p.wire, runsPath+"apply", map[string]any{"plan": plan, "force": false}); err != nil {
			return err
		}
	}
	return nil
}

// insertRuns adds services to the database of 0.18.10 with that server's own functions: it would submit them only with a
// gateway, which is a machine.
func (p *peer) insertRuns(first, count int) error {
	script, err := filepath.Abs(filepath.Join("bench", "testdata", "seed_published.py"))
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(filepath.Dir(p.binary), "python"), script, strconv.Itoa(first), strconv.Itoa(count))
	cmd.Dir, cmd.Env, cmd.Stdin = p.home, p.newCommand().Env, strings.NewReader(p.wire.plan)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot insert runs: %w: %s", err, out)
	}
	return nil
}

// measuredCommands are the commands whose CPU is compared: each release's own command line with its own server.
var measuredCommands = [][]string{{"--help"}, {"ps"}, {"ps", "-a"}}

func commandCases(peers []*peer) []benchmarkCase {
	var all []benchmarkCase
	for _, p := range peers {
		for _, args := range measuredCommands {
			all = append(all, benchmarkCase{p.name + " " + strings.Join(args, " "), func() (float64, error) {
				cmd := p.newCommand(args...)
				out, err := cmd.CombinedOutput()
				if err != nil {
					return 0, fmt.Errorf("dstack %s: %w: %.300s", strings.Join(args, " "), err, out)
				}
				if len(args) > 1 && !strings.Contains(string(out), "bench-0") {
					return 0, fmt.Errorf("dstack %s shows no runs: %.300s", strings.Join(args, " "), out)
				}
				return toMilliseconds(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()), nil
			}})
		}
	}
	return all
}
