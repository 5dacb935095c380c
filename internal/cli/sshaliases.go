package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kevinburke/ssh_config"

	"dstack/internal/human"
	"dstack/internal/spec"
)

// sshAliases fills in what a fleet leaves out, as OpenSSH does: from the user's ~/.ssh/config, and from its defaults.
type sshAliases struct {
	*app
	config *ssh_config.Config // nil: there is none
}

// readSSHAliases reads ~/.ssh/config. A file that cannot be read gives a note.
func (a *app) readSSHAliases() sshAliases {
	name := filepath.Join(a.home, ".ssh", "config")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return sshAliases{app: a}
	}
	var config *ssh_config.Config
	if err == nil {
		config, err = ssh_config.DecodeBytes(text)
	}
	if err != nil {
		a.printLabeled("note: ", yellow, fmt.Sprintf("%s is not used: %s", "~/.ssh/config", strings.TrimPrefix(human.DescribeFailure(err), "ssh_config: ")))
		return sshAliases{app: a}
	}
	return sshAliases{app: a, config: config}
}

// find returns the value that the file has for a host; empty: none.
func (s sshAliases) find(host, key string) string {
	if s.config == nil {
		return ""
	}
	value, err := s.config.Get(host, key)
	if err != nil {
		return ""
	}
	return strings.Trim(value, `"`)
}

// expand replaces what OpenSSH replaces in names of hosts and files.
func (s sshAliases) expand(text, host, user string) string {
	return strings.NewReplacer("%%", "%", "%h", host, "%n", host, "%d", s.home, "%u", localUser(s.app), "%r", user).Replace(text)
}

// fillIn fills in the settings of each host and of the jump hosts. Its problems have paths.
func (s sshAliases) fillIn(machines *spec.SSHMachines) spec.Problems {
	var problems spec.Problems
	if machines.ProxyJump != nil {
		problems = append(problems, s.fillInProxy(machines.ProxyJump, "ssh_config.proxy_jump", false)...)
	}
	for i := range machines.Hosts {
		h := &machines.Hosts[i]
		path := fmt.Sprintf("ssh_config.hosts.%d", i)
		alias := h.Hostname
		if h.User == "" && machines.User == "" {
			h.User = spec.Text(cmp.Or(s.find(alias, "User"), localUser(s.app)))
		}
		if h.Port == nil && machines.Port == nil {
			h.Port = s.findPort(alias)
		}
		if h.IdentityFile == "" && machines.IdentityFile == "" {
			h.IdentityFile = spec.Text(s.findIdentity(alias, string(cmp.Or(h.User, machines.User))))
		}
		if h.ProxyJump == nil && machines.ProxyJump == nil {
			proxy, err := s.findProxy(alias)
			if err != "" {
				problems = append(problems, spec.Problem{Path: path, Message: err, Hint: "write proxy_jump: into the configuration"})
			}
			h.ProxyJump = proxy
		} else if h.ProxyJump != nil {
			problems = append(problems, s.fillInProxy(h.ProxyJump, path+".proxy_jump", false)...)
		}
		if name := s.expand(s.find(alias, "HostName"), alias, ""); name != "" && name != alias {
			if h.Name == "" {
				h.Name = spec.Text(alias)
			}
			h.Hostname = name
		}
	}
	return problems
}

// fillInProxy fills in the settings of a jump host.
func (s sshAliases) fillInProxy(p *spec.SSHProxy, path string, isFromConfig bool) (problems spec.Problems) {
	alias := p.Hostname
	if p.User == "" {
		p.User = spec.Text(s.find(alias, "User"))
	}
	if p.User == "" && isFromConfig {
		p.User = spec.Text(localUser(s.app))
	}
	if p.Port == nil {
		p.Port = s.findPort(alias)
	}
	if p.IdentityFile == "" && s.find(alias, "IdentityFile") != "" {
		p.IdentityFile = spec.Text(s.findIdentity(alias, string(p.User)))
	}
	if next := s.find(alias, "ProxyJump"); next != "" && next != "none" {
		problems = append(problems, spec.Problem{Path: path, Message: fmt.Sprintf("~/.ssh/config reaches the jump host %s through another one", alias),
			Hint: "dstack goes through one jump host: name one that this machine and the server can reach"})
	}
	if name := s.expand(s.find(alias, "HostName"), alias, ""); name != "" {
		p.Hostname = name
	}
	return problems
}

// findProxy returns the jump host that the file has for a host; nil: none. why says what stands against it.
func (s sshAliases) findProxy(host string) (proxy *spec.SSHProxy, why string) {
	jump := s.find(host, "ProxyJump")
	if command := s.find(host, "ProxyCommand"); (jump == "" || jump == "none") && command != "" && command != "none" {
		return nil, fmt.Sprintf("~/.ssh/config has a ProxyCommand for %s, which the server cannot run", host)
	}
	if jump == "" || jump == "none" {
		return nil, ""
	}
	if strings.Contains(jump, ",") {
		return nil, fmt.Sprintf("~/.ssh/config has several jump hosts for %s", host)
	}
	jump = strings.TrimPrefix(jump, "ssh://")
	name, at := jump, ""
	if before, after, found := strings.Cut(jump, "@"); found {
		at, name = before, after
	}
	proxy = &spec.SSHProxy{Hostname: name, User: spec.Text(at)}
	if hostname, port, err := net.SplitHostPort(name); err == nil {
		number, err := strconv.Atoi(port)
		if err != nil {
			return nil, fmt.Sprintf("~/.ssh/config has a jump host for %s whose port is not a number", host)
		}
		proxy.Hostname, proxy.Port = hostname, &number
	}
	if problems := s.fillInProxy(proxy, "", true); len(problems) > 0 {
		return nil, problems[0].Message
	}
	if proxy.IdentityFile == "" {
		proxy.IdentityFile = spec.Text(s.findIdentity(name, string(proxy.User)))
	}
	return proxy, ""
}

// findPort returns the port that the file has for a host; nil: none.
func (s sshAliases) findPort(host string) *int {
	port, err := strconv.Atoi(s.find(host, "Port"))
	if err != nil || port < 1 || port > 65535 {
		return nil
	}
	return &port
}

// defaultIdentities are the private keys that OpenSSH tries without being told, the best first. Those that need a touch
// of a security key are of no use to a server.
var defaultIdentities = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}

// findIdentity returns the private key for a host: the first existing file that ~/.ssh/config names, or of the default
// ones. Only this one is sent to the server. Empty: there is none.
func (s sshAliases) findIdentity(host, user string) string {
	var named []string
	if s.config != nil {
		found, err := s.config.GetAll(host, "IdentityFile")
		if err == nil {
			named = found
		}
	}
	for _, name := range append(named, defaultIdentities...) {
		name = s.expand(strings.Trim(name, `"`), host, user)
		if _, err := os.Stat(s.resolveHome(name)); err == nil {
			return name
		}
	}
	if len(named) > 0 {
		return s.expand(named[0], host, user) // the error names it
	}
	return ""
}

// resolveHome resolves a path that may begin with ~.
func (a *app) resolveHome(name string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return filepath.Join(a.home, rest)
	}
	return a.resolvePath(name)
}

// localUser returns the name of the user of this machine, as whom OpenSSH logs in without another name.
func localUser(a *app) string {
	if name, _ := a.env("USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
