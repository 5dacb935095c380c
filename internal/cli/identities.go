package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
	"dstack/internal/sshclient"
)

// maxPassphraseTries is how often a passphrase is asked for.
const maxPassphraseTries = 3

// identities reads the private keys of hosts, each file once.
type identities struct {
	*app
	known map[string]readIdentity
	notes []string // about keys that are not sent, because the server has others
}

// readIdentity is a private key without a passphrase, or why there is none.
type readIdentity struct {
	key string
	err error
}

// addKeys adds the private keys to the logins of a fleet. The server has keys of the hosts that stay, so a missing key is
// a problem only where changes say so. The problems have paths.
func (i *identities) addKeys(ctx context.Context, machines *spec.SSHMachines, changes []api.HostChange) (spec.Problems, error) {
	needs := map[string]bool{} // the files without which a host cannot be added
	noFile := -1               // a host without any file
	logins := machines.Logins()
	for n, login := range logins {
		change := api.HostChange{NeedsKey: true, NeedsJump: login.Jump != nil}
		if n < len(changes) {
			change = changes[n]
		}
		if change.NeedsKey && login.IdentityFile == "" && noFile < 0 {
			noFile = n
		}
		needs[login.IdentityFile] = needs[login.IdentityFile] || change.NeedsKey
		if login.Jump != nil {
			needs[login.Jump.IdentityFile] = needs[login.Jump.IdentityFile] || change.NeedsJump
		}
	}
	var problems spec.Problems
	add := func(to *spec.SSHKey, file spec.Text, path string) error {
		if file == "" {
			return nil
		}
		read := i.read(ctx, string(file), needs[string(file)])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case read.err == nil:
		case needs[string(file)]:
			problems = append(problems, newIdentityProblem(path, string(file), read.err))
		default:
			note := fmt.Sprintf("%s: %v; the server uses the key that it has", file, read.err)
			if !slices.Contains(i.notes, note) {
				i.notes = append(i.notes, note)
			}
		}
		if read.key != "" {
			*to = spec.NewSentSSHKey(read.key)
		}
		return nil
	}
	errs := []error{add(&machines.Key, machines.IdentityFile, "ssh_config.identity_file")}
	if p := machines.ProxyJump; p != nil {
		errs = append(errs, add(&p.Key, p.IdentityFile, "ssh_config.proxy_jump.identity_file"))
	}
	for n := range machines.Hosts {
		h, path := &machines.Hosts[n], fmt.Sprintf("ssh_config.hosts.%d", n)
		errs = append(errs, add(&h.Key, h.IdentityFile, path+".identity_file"))
		if h.ProxyJump != nil {
			errs = append(errs, add(&h.ProxyJump.Key, h.ProxyJump.IdentityFile, path+".proxy_jump.identity_file"))
		}
	}
	if noFile >= 0 {
		problems = append(problems, i.newNoIdentityProblem(noFile, logins[noFile].Name))
	}
	return problems, errors.Join(errs...)
}

func newIdentityProblem(path, file string, err error) spec.Problem {
	problem := spec.Problem{Path: path, Message: fmt.Sprintf("%s: %s", file, err.Error())}
	if known, ok := errors.AsType[*dstack.Error](err); ok {
		problem.Hint = known.Hint
	}
	return problem
}

func (i *identities) newNoIdentityProblem(num int, host string) spec.Problem {
	problem := spec.Problem{Path: fmt.Sprintf("ssh_config.hosts.%d", num), Message: "there is no private key for host " + host,
		Hint: "write identity_file: followed by its path, or make one: ssh-keygen -t ed25519"}
	if i.isSet("SSH_AUTH_SOCK") {
		problem.Hint = "keys of ssh-agent stay in it, and the server needs one: write identity_file: followed by the path of a private key"
	}
	return problem
}

// read returns the private key in a file. It asks for a passphrase only if the key is needed.
func (i *identities) read(ctx context.Context, file string, isNeeded bool) readIdentity {
	if known, ok := i.known[file]; ok {
		return known
	}
	read := i.readFile(ctx, file, isNeeded)
	if i.known == nil {
		i.known = map[string]readIdentity{}
	}
	i.known[file] = read
	return read
}

func (i *identities) readFile(ctx context.Context, file string, isNeeded bool) readIdentity {
	text, err := i.app.readFile(i.resolveHome(file))
	if err != nil {
		return readIdentity{err: &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "cannot be read: " + human.DescribeFailure(err),
			Hint: "check the path; the file is on the machine from which you apply"}}
	}
	key, err := sshclient.DecryptKey(text, "")
	for try := 0; errors.Is(err, sshclient.ErrPassphrase) && isNeeded && try < maxPassphraseTries; try++ {
		if !i.isInteractive() {
			return readIdentity{err: withHint(err, "apply from a terminal, which asks for the passphrase; or use a key of its own without one: "+
				"ssh-keygen -t ed25519 -N '' -f KEY")}
		}
		if try > 0 {
			i.printInfo(" %s", cleanLine(err.Error()))
		}
		passphrase, promptErr := i.readSecret(ctx, "passphrase of "+cleanLine(file)+": ")
		if promptErr != nil {
			return readIdentity{err: promptErr}
		}
		key, err = sshclient.DecryptKey(text, passphrase)
	}
	return readIdentity{key: string(key), err: err}
}

// withHint returns an error with another hint.
func withHint(err error, hint string) error {
	known, ok := errors.AsType[*dstack.Error](err)
	if !ok {
		return err
	}
	changed := *known
	changed.Hint = hint
	return &changed
}
