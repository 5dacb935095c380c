package gcp

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// maxParallel is how many requests of one call are on their way at once.
const maxParallel = 16

// ListMachines implements cloud.Provider. At rest it is one request for all regions.
func (p *Provider) ListMachines(ctx context.Context) ([]cloud.Machine, error) {
	asked := time.Now()
	found, err := listEverywhere[instance](ctx, p, p.settings.ProjectID, "instances", p.ownFilter(), instanceFields, "list the machines of "+p.settings.ProjectID)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	machines := make([]cloud.Machine, 0, len(found))
	for _, i := range found {
		if p.isOwn(i.Labels) {
			machines = append(machines, p.newMachine(i))
		}
	}
	open := p.records.update(machines, asked)
	pending, err := p.lookAtLaunches(ctx, open.launches)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	if err := p.lookForReasons(ctx, open); err != nil {
		return nil, p.describeError(err, nil)
	}
	return p.records.complete(append(machines, pending...), time.Now()), nil
}

// newMachine returns a machine as the API reports it.
func (p *Provider) newMachine(i instance) cloud.Machine {
	zone := lastPart(i.Zone)
	m := cloud.Machine{
		Instance: dstack.InstanceID(i.Labels[labelInstance]), Ref: i.Name, Region: regionOf(zone), Zone: zone, Type: lastPart(i.MachineType),
		Spot: isSpot(i), State: stateOf(i.Status), LaunchedAt: parseTime(i.CreationTimestamp),
	}
	if id, ok := p.instanceOf(i.Name); ok && m.Instance == "" {
		m.Instance = id
	}
	if len(i.Interfaces) > 0 {
		m.Private = i.Interfaces[0].NetworkIP
		m.Address = m.Private
		if p.settings.PublicIPs {
			m.Address = ""
			if public := i.Interfaces[0].AccessConfigs; len(public) > 0 {
				m.Address = public[0].NatIP
			}
		}
	}
	return m
}

// stateOf returns the state of a machine. TERMINATED means stopped: its disks still cost money.
func stateOf(status string) cloud.MachineState {
	switch status {
	case "PENDING", "PROVISIONING", "STAGING":
		return cloud.MachinePending
	case "RUNNING", "REPAIRING":
		return cloud.MachineRunning
	}
	return cloud.MachineEnding
}

// lookAtLaunches reads the operations of launches whose machines are not listed. It returns the machines that may come.
func (p *Provider) lookAtLaunches(ctx context.Context, launches []expectedMachine) ([]cloud.Machine, error) {
	operations := make([]operation, len(launches))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallel)
	for i, l := range launches {
		group.Go(func() error {
			o, err := p.readOperation(ctx, l.operation, p.zonePlace(l.machine.Zone), "see how a launch ends")
			if hasMeaning(err, meansNotFound) {
				o, err = operation{Status: "DONE"}, nil
			}
			operations[i] = o
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var pending []cloud.Machine
	for i, l := range launches {
		o := operations[i]
		failure := o.failure("rent a machine of type " + l.asked.Type + " in " + l.asked.Zone)
		switch {
		case failure != nil:
			why, _ := errors.AsType[*dstack.MachineFailure](p.describeError(failure, &l.asked))
			p.records.addFailure(l.machine.Ref, l.machine.Zone)
			p.records.end(l.machine, why, parseTime(o.EndTime))
		case o.isDone():
			p.records.settle(l.machine.Ref) // the next listing has it, or it ended at once
		default:
			pending = append(pending, l.machine)
		}
	}
	return pending, nil
}

// lookForReasons reads why machines end or have ended that nobody asked to end.
func (p *Provider) lookForReasons(ctx context.Context, open openQuestions) error {
	if open.isFirst {
		return p.reviewPreemptions(ctx)
	}
	zones := map[string][]cloud.Machine{}
	for _, m := range open.unexplained {
		zones[m.Zone] = append(zones[m.Zone], m)
	}
	filter := "(operationType = " + quoteFilter(operationPreempted) + ") OR (operationType = " + quoteFilter(operationDelete) + ")"
	for zone, machines := range zones {
		operations, err := list[operation](ctx, p, p.settings.ProjectID, "zones/"+zone+"/operations", filter, operationFields, "see why machines ended")
		if err != nil {
			return err
		}
		for _, m := range machines {
			p.records.explain(m, p.reasonFor(m, operations))
		}
	}
	return nil
}

// reasonFor returns why a machine ends or has ended, by the newest operation on it. nil: dstack ended it, or it only lacks
// in a listing that lags.
func (p *Provider) reasonFor(m cloud.Machine, operations []operation) *dstack.MachineFailure {
	slices.SortFunc(operations, func(a, b operation) int {
		return parseTime(b.InsertTime).Compare(parseTime(a.InsertTime))
	})
	for _, o := range operations {
		if lastPart(o.TargetLink) != m.Ref || !strings.Contains(o.TargetLink, "/instances/") || parseTime(o.InsertTime).Before(m.LaunchedAt.Add(-time.Minute)) {
			continue
		}
		switch {
		case o.Type == operationPreempted:
			return newPreemption(m)
		case o.User == p.client.tokens.Account():
			return nil
		}
		who := o.User
		if who == "" {
			who = "somebody"
		}
		return &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: who + " deleted the machine"}
	}
	if m.State == cloud.MachineEnding {
		return &dstack.MachineFailure{Cause: dstack.FailureBroken, Message: "the machine was stopped, and not by dstack"}
	}
	return nil
}

func newPreemption(m cloud.Machine) *dstack.MachineFailure {
	return &dstack.MachineFailure{Cause: dstack.FailurePreempted, Message: "GCP took the spot machine back: " + m.Zone + " needed the capacity of " + m.Type}
}

// maxReviewPages limits how far back the first look goes.
const maxReviewPages = 4

// reviewPreemptions finds machines that the cloud took back while no server ran. Their operations name them.
func (p *Provider) reviewPreemptions(ctx context.Context) error {
	pages := 0
	r := call{method: http.MethodGet, url: p.client.compute + "projects/" + p.settings.ProjectID + "/aggregated/operations",
		query: url.Values{"filter": {"operationType = " + quoteFilter(operationPreempted)}, "maxResults": {maxPage}}, what: "see why machines ended"}
	err := p.client.listPages(ctx, r, func(answer []byte) (string, error) {
		page, next, err := parseOperations(answer)
		if err != nil {
			return "", err
		}
		for _, o := range page {
			name, ended := lastPart(o.TargetLink), parseTime(o.InsertTime)
			if id, ok := p.instanceOf(name); ok && time.Since(ended) < endedAge {
				zone := zoneOf(o.TargetLink)
				m := cloud.Machine{Instance: id, Ref: name, Region: regionOf(zone), Zone: zone, Spot: true, LaunchedAt: ended}
				p.records.end(m, newPreemption(m), ended)
			}
		}
		if pages++; pages == maxReviewPages {
			return "", nil
		}
		return next, nil
	})
	if err == nil {
		p.records.setReviewed()
	}
	return err
}

// Terminate implements cloud.Provider.
func (p *Provider) Terminate(ctx context.Context, machines []cloud.Machine) error {
	failures := make([]error, len(machines))
	group := errgroup.Group{}
	group.SetLimit(maxParallel)
	for i, m := range machines {
		group.Go(func() error {
			failures[i] = p.terminate(ctx, m)
			return nil
		})
	}
	_ = group.Wait() // its functions return nil
	var failed []error
	for _, err := range failures {
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return p.describeError(failed[0], nil)
}

// terminate requests the end of one machine.
func (p *Provider) terminate(ctx context.Context, m cloud.Machine) error {
	if m.Zone == "" {
		found, ok, err := p.findMachine(ctx, m.Ref)
		if err != nil || !ok {
			return err
		}
		m = found
	}
	p.records.terminate(m.Ref)
	err := p.client.send(ctx, call{method: http.MethodDelete, url: p.client.compute + string(p.zonePlace(m.Zone)) + "/instances/" + m.Ref,
		query: url.Values{"noGracefulShutdown": {"true"}}, what: "end the machine " + m.Ref}, nil)
	if hasMeaning(err, meansNotFound) {
		return nil
	}
	return err
}
