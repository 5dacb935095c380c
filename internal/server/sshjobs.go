package server

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/google/uuid"

	"dstack/internal/decide/access"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/sshserver"
)

// AttachedLogsPort is the port of a job at which an attached client reads its logs. No other port is of the server
// itself, so a service whose own port this is cannot be reached through SSH.
const AttachedLogsPort = 10999

// defaultAfterEnd is how long the key of a run opens it after its end, so that a client can still read the last output.
const defaultAfterEnd = 5 * time.Minute

// SSHJobs gives the clients of an SSH server access to jobs. A login's user name is the ID of an attempt, which the wire
// format calls job submission. It implements sshserver.Jobs.
type SSHJobs struct {
	server *Server
	dialer *dial.Dialer
	logs   *attachedLogs

	afterEnd time.Duration // see defaultAfterEnd
}

// NewSSHJobs returns the jobs of a server. The task of LogsTask must run.
func NewSSHJobs(s *Server, dialer *dial.Dialer) *SSHJobs {
	return &SSHJobs{server: s, dialer: dialer, logs: newAttachedLogs(s), afterEnd: defaultAfterEnd}
}

// errNoSSHJob does not say which of user name and key is wrong.
var errNoSSHJob = &dstack.Error{Kind: dstack.Forbidden,
	Message: "no job accepts this user name with this key; the key is that of the run's ssh_key_pub"}

// Authorize implements sshserver.Jobs.
func (j *SSHJobs) Authorize(ctx context.Context, login sshserver.Login) error {
	_, err := j.authorizeRun(ctx, login)
	return err
}

// authorizeRun returns the run that a login opens: its key is that of the run, the run has not ended long ago, and its
// author may still see the project.
func (j *SSHJobs) authorizeRun(ctx context.Context, login sshserver.Login) (dstack.Run, error) {
	if uuid.Validate(login.User) != nil { // it may not even be text
		return dstack.Run{}, errNoSSHJob
	}
	run, err := j.server.store.RunOfAttempt(ctx, attemptOfLogin(login))
	switch {
	case dstack.KindOf(err) == dstack.NotFound:
		return dstack.Run{}, errNoSSHJob
	case err != nil:
		return dstack.Run{}, newSSHCheckError(err)
	}
	if key, ok := sshserver.ParseKey(run.Spec.SSHKeyPub); !ok || key != login.Key {
		return dstack.Run{}, errNoSSHJob
	}
	if run.Status.IsFinished() && time.Since(run.FinishedAt) >= j.afterEnd {
		return dstack.Run{}, &dstack.Error{Kind: dstack.Forbidden, Message: "the run " + run.Name + " has ended"}
	}
	return run, j.checkAuthor(ctx, run)
}

// attemptOfLogin returns the attempt that a user name names.
func attemptOfLogin(login sshserver.Login) dstack.AttemptID { return dstack.AttemptID(login.User) }

// checkAuthor fails with Forbidden if the author of a run was deleted or has left the project.
func (j *SSHJobs) checkAuthor(ctx context.Context, run dstack.Run) error {
	author, err := j.server.store.User(ctx, run.User)
	known := dstack.KindOf(err) != dstack.NotFound
	if known && err != nil {
		return newSSHCheckError(err)
	}
	membership, err := j.server.findMembership(ctx, run.ProjectID, author)
	if err != nil {
		return newSSHCheckError(err)
	}
	caller := access.Caller{Known: known, Role: author.GlobalRole}
	if access.Allow(access.LevelMember, caller, membership) != access.Allowed {
		return &dstack.Error{Kind: dstack.Forbidden, Message: run.User + ", who applied " + run.Name + ", may not see the project any more"}
	}
	return nil
}

func newSSHCheckError(cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Cause: cause, Message: "the server cannot check the key now"}
}

// Dial implements sshserver.Jobs. The port is that of the job's configuration or the one that its engine chose, or
// AttachedLogsPort.
func (j *SSHJobs) Dial(ctx context.Context, login sshserver.Login, port int) (net.Conn, error) {
	run, err := j.authorizeRun(ctx, login)
	if err != nil {
		return nil, err
	}
	if port == AttachedLogsPort {
		return j.logs.dial(ctx, attachedJob{run: run.ID, attempt: attemptOfLogin(login)})
	}
	found, err := j.server.store.RunDetails(ctx, run.ID)
	if err != nil || len(found) == 0 {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Cause: err, Message: "the server cannot find the job now"}
	}
	endpoint, err := findJobEndpoint(found[0], attemptOfLogin(login), port)
	if err != nil {
		return nil, err
	}
	conn, err := j.dialer.Dial(ctx, j.server.locateEndpoint(endpoint, findInstanceOf(found[0], attemptOfLogin(login))))
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Cause: err, Message: fmt.Sprintf("nothing answers at port %d of the job", port)}
	}
	return conn, nil
}

// findJobEndpoint returns where a port of a running attempt is reached.
func findJobEndpoint(details store.RunDetails, attempt dstack.AttemptID, port int) (dstack.Endpoint, error) {
	report := details.Reports[attempt]
	configured := details.Run.Spec.Configuration.Port.Container
	if port != configured && (report.Port == 0 || port != report.Port) {
		return dstack.Endpoint{}, &dstack.Error{Kind: dstack.Forbidden, Message: fmt.Sprintf("port %d is not a port of the job", port)}
	}
	for _, r := range details.Replicas {
		if r.Attempt == attempt && !r.Status.IsFinished() && report.State == dstack.AttemptRunning && report.Address != "" {
			return report.Endpoint, nil
		}
	}
	return dstack.Endpoint{}, &dstack.Error{Kind: dstack.Unavailable, Message: "the job does not run now"}
}

// findInstanceOf returns the machine of an attempt.
func findInstanceOf(details store.RunDetails, attempt dstack.AttemptID) dstack.Instance {
	for _, r := range details.Replicas {
		if r.Attempt == attempt {
			return details.Instances[r.Instance]
		}
	}
	return dstack.Instance{}
}

// locateEndpoint returns how this server reaches an endpoint on a machine, which may be that of another server.
func (s *Server) locateEndpoint(e dstack.Endpoint, machine dstack.Instance) dstack.Endpoint {
	if s.peers != nil && e.Host == "" && machine.Host != "" && dstack.ServerID(machine.Host) != s.peers.Self() {
		e.Host = dstack.ServerID(machine.Host).MachineHost()
	}
	return e
}
