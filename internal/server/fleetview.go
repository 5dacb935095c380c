package server

import (
	"encoding/json"
	"slices"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// maskedValue stands in place of the values of variables.
const maskedValue = "•••"

// buildFleetView returns a fleet as our command line shows it.
func buildFleetView(a wire.FleetAnswer) api.FleetView {
	f := a.Fleet
	v := api.FleetView{ID: string(f.ID), Project: f.ProjectName, Name: f.Name, User: f.Author, CreatedAt: f.CreatedAt, AppliedAt: f.AppliedAt,
		IsDeleting: f.IsDeleting, Hosts: []api.HostView{}}
	shown := f.Configuration.WithoutKeys()
	shown.Env = slices.Clone(shown.Env)
	for i := range shown.Env {
		shown.Env[i].Value = maskedValue
	}
	v.Configuration, _ = json.Marshal(shown) // what was read from JSON can be written
	for _, h := range f.Hosts {
		v.Hosts = append(v.Hosts, buildHostView(h, a.Replicas[h.ID]))
	}
	if f.IsRented() {
		addRentedView(&v, a)
	}
	return v
}

func buildHostView(h dstack.Host, replicas []string) api.HostView {
	check, found := h.Check, h.Check.Found
	v := api.HostView{ID: string(h.ID), Num: h.Num, Name: h.Name, Address: h.Login.Address, User: h.Login.User,
		HostKey: dstack.HostKeyFingerprint(h.Login.HostKey), Status: hostViewStatus(h, len(replicas)), IsDraining: h.IsDraining, IsLeaving: h.IsLeaving,
		Since: check.Since, CheckedAt: nullIfZero(check.CheckedAt), NextCheckAt: nullIfZero(check.NextAt), IsChecked: h.IsChecked(),
		Warnings: found.Warnings, Replicas: append([]string{}, replicas...)}
	if check.Status == dstack.HostFailed || check.Status == dstack.HostUnreachable {
		v.Step, v.Message, v.Hint = string(check.Step), check.Message, check.Hint
	}
	if h.Jump != nil {
		v.Jump, v.JumpUser, v.JumpHostKey = h.Jump.Address, h.Jump.User, dstack.HostKeyFingerprint(h.Jump.HostKey)
	}
	hw := found.Hardware
	v.Found = api.HostFound{System: found.System, DockerVersion: found.DockerVersion, DockerAPI: found.DockerAPI, DockerAccess: string(found.DockerAccess),
		DriverVersion: found.DriverVersion, CPUs: hw.CPUs, Arch: hw.Arch, MemoryMiB: hw.MemoryMiB, DiskMiB: hw.DiskMiB}
	for _, g := range hw.GPUs {
		v.Found.GPUs = append(v.Found.GPUs, api.HostGPU{ID: g.ID, Vendor: g.Maker, Name: g.Name, MemoryMiB: g.MemoryMiB})
	}
	return v
}

// hostViewStatus returns the status of a host for the user.
func hostViewStatus(h dstack.Host, replicas int) api.HostStatus {
	switch {
	case h.IsLeaving:
		return api.HostStatusLeaving
	case h.Check.Status == dstack.HostFailed:
		return api.HostStatusFailed
	case h.Check.Status == dstack.HostUnreachable:
		return api.HostStatusUnreachable
	case h.Check.Status == dstack.HostPending:
		return api.HostStatusChecking
	case h.IsDraining && replicas > 0:
		return api.HostStatusDraining
	case h.IsDraining:
		return api.HostStatusDrained
	case replicas > 0:
		return api.HostStatusBusy
	}
	return api.HostStatusIdle
}
