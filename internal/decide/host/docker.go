package host

import (
	"fmt"
	"strings"

	"dstack/internal/dstack"
)

// minDockerRelease is the oldest release of Docker that works.
const minDockerRelease = "19.03"

// DockerAttempts is what the ways to a Docker Engine answered, when none worked.
type DockerAttempts struct {
	User       string // who logged in
	HasCommand bool   // docker is in the user's PATH
	HasSocket  bool   // one of the usual sockets exists
	Socket     string // what the socket answered; empty: it was not tried
	Stdio      string // what `docker system dial-stdio` printed; empty: it was not tried
	Sudo       string // what `sudo -n docker system dial-stdio` printed; empty: it was not tried
}

// ExplainDocker says why no way leads to a Docker Engine, and what to do about it.
func ExplainDocker(a DockerAttempts) Failure {
	f := Failure{Step: dstack.HostStepDocker, Kind: dstack.Forbidden}
	said := a.Stdio
	if said == "" {
		said = a.Socket
	}
	has := func(text, words string) bool { return strings.Contains(strings.ToLower(text), words) }
	switch {
	case !a.HasCommand && !a.HasSocket:
		f.Kind = dstack.Unsupported
		f.Message = fmt.Sprintf("Docker is not installed, or not in the PATH of %s", a.User)
		f.Hint = "install Docker on it, such as with `sudo apt-get install docker.io`; the host is checked again by itself"
	case has(a.Stdio, "permission denied") || a.Stdio == "" && has(a.Socket, "permission denied"):
		f.Message = fmt.Sprintf("%s may not use Docker, and may not use sudo without a password", a.User)
		if has(a.Sudo, "must have a tty") {
			f.Message = fmt.Sprintf("%s may not use Docker, and sudo asks for a terminal (requiretty in /etc/sudoers)", a.User)
		}
		f.Hint = fmt.Sprintf("run on it: sudo usermod -aG docker %s; the host is checked again by itself", a.User)
	case has(said, "cannot connect to the docker daemon"), has(said, "no such file"), has(said, "connection refused"), !a.HasSocket:
		f.Kind = dstack.Unavailable
		f.Message = "Docker is installed, but its engine does not run"
		f.Hint = "run on it: sudo systemctl enable --now docker; the host is checked again by itself"
	case has(said, "is not a docker command"), has(said, "unknown command"), has(said, "accepts no argument"):
		f.Kind = dstack.Unsupported
		f.Message = fmt.Sprintf("its docker command is older than %s, and its SSH server does not forward sockets", minDockerRelease)
		f.Hint = "update Docker on it, or set AllowTcpForwarding yes and AllowStreamLocalForwarding yes in /etc/ssh/sshd_config"
	default:
		f.Kind = dstack.Unavailable
		f.Message = "Docker does not answer: " + shorten(said)
		f.Hint = fmt.Sprintf("see what `docker version` says there as %s", a.User)
	}
	return f
}

// shorten returns the last line of what a command printed, within limits.
func shorten(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	if line == "" {
		return "it printed nothing"
	}
	return line
}
