package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh/agent"

	"dstack/internal/dstack"
)

// access is how one git command reads a repository. Its secrets exist only in memory: git
// reads the token from a pipe, and ssh asks an agent in this process for signatures. They
// are in no file, argument or environment variable.
type access struct {
	dir   string   // holds the settings of git, and nothing secret
	env   []string // for git
	token string
	agent net.Listener // nil: none
	tasks sync.WaitGroup

	socketDir string // the folder of the agent's socket; empty: dir
}

// baseConfig keeps git from what a repository must not choose: other programs, other
// hosts, and waiting for a person.
const baseConfig = `[core]
	hooksPath = /dev/null
	fsmonitor = false
	autocrlf = false
	logAllRefUpdates = false
	askPass =
[credential]
	helper =
[http]
	followRedirects = false
	lowSpeedLimit = 500
	lowSpeedTime = 30
[protocol]
	version = 2
[fetch]
	unpackLimit = 1
[gc]
	auto = 0
[maintenance]
	auto = false
[submodule]
	recurse = false
[safe]
	directory = *
[advice]
	detachedHead = false
[init]
	defaultBranch = main
`

// tokenConfig makes git read the token from the pipe that runGit passes as file 3. The
// pipe has it once: a server that refuses the token is not asked again.
const tokenConfig = `[credential]
	helper = "!f() { test \"$1\" = get && cat <&3; }; f"
`

// passedVariables are the variables of the server that git needs, too.
var passedVariables = []string{"PATH", "TMPDIR"}

// openLocalAccess returns the access of commands that use no network.
func (c *Cache) openLocalAccess() (*access, error) {
	a, err := c.newAccess(baseConfig)
	if err == nil {
		a.env = append(a.env, "GIT_ALLOW_PROTOCOL=file")
	}
	return a, err
}

// openAccess resolves the host of a source and prepares its credentials. The caller
// closes the result.
func (c *Cache) openAccess(ctx context.Context, s Source) (*access, error) {
	at, _, err := ParseURL(s.URL)
	if err != nil {
		return nil, err
	}
	proxy, err := c.findProxy(at)
	if err != nil {
		return nil, err
	}
	address, err := findAddress(ctx, at.Host, s.MayUseLoopback)
	if dstack.KindOf(err) == dstack.Unavailable && proxy != "" {
		err = nil // the proxy resolves the name
	}
	if err != nil {
		return nil, err
	}
	if at.Scheme == "ssh" {
		return c.openKeyAccess(s, at, address)
	}
	config := baseConfig
	if _, err := netip.ParseAddr(at.Host); err != nil && address.IsValid() { // git resolves no addresses, and cannot read IPv6 ones here
		config += fmt.Sprintf("[http]\n\tcurloptResolve = %s\n", formatResolve(at, address))
	}
	if s.Token != "" {
		config += tokenConfig
	}
	a, err := c.newAccess(config)
	if err != nil {
		return nil, err
	}
	a.token = s.Token
	a.env = append(a.env, "GIT_ALLOW_PROTOCOL="+at.Scheme)
	if proxy != "" { // in the environment, because it may contain a password
		a.env = append(a.env, at.Scheme+"_proxy="+proxy)
	}
	for variable, setting := range map[string]string{"SSL_CERT_FILE": "GIT_SSL_CAINFO", "SSL_CERT_DIR": "GIT_SSL_CAPATH"} {
		if value := os.Getenv(variable); value != "" {
			a.env = append(a.env, setting+"="+value)
		}
	}
	return a, nil
}

// findProxy returns the URL of the proxy through which git reads a repository; "": none.
// git gets only this choice, because it chooses in other ways than Go: it would connect
// itself to a host whose address nobody has checked.
func (c *Cache) findProxy(at Location) (string, error) {
	if at.Scheme == "ssh" {
		return "", nil
	}
	proxy, err := c.opts.Proxy(&http.Request{URL: &url.URL{Scheme: at.Scheme, Host: net.JoinHostPort(at.Host, at.port())}})
	if err != nil {
		return "", &dstack.Error{Kind: dstack.Unavailable, Message: "the server's proxy cannot be used: its URL cannot be read",
			Hint: "correct HTTP_PROXY and HTTPS_PROXY in the server's environment"} // the cause may contain a password
	}
	if proxy == nil {
		return "", nil
	}
	return proxy.String(), nil
}

// openKeyAccess prepares a connection over SSH: an agent with the source's key, and the
// file of the hosts' keys, which records those of new hosts and refuses changed ones.
func (c *Cache) openKeyAccess(s Source, at Location, address netip.Addr) (*access, error) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Cause: err, Message: "the server's machine has no program ssh, which reads this repository",
			Hint: "install openssh-client on the server's machine, or use the repository's https URL"}
	}
	key, err := parseKey(s.PrivateKey)
	if err != nil {
		return nil, err
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "the private key for the repository is of a kind that cannot be used",
			Hint: "give an ed25519, ECDSA or RSA key"}
	}
	a, err := c.newAccess(baseConfig + "[ssh]\n\tvariant = ssh\n")
	if err != nil {
		return nil, err
	}
	socket, err := a.serveAgent(keys)
	if err != nil {
		a.close()
		return nil, err
	}
	command := []string{program, "-F", "/dev/null"}
	for _, option := range []string{
		"BatchMode=yes", "IdentityAgent=" + quotePath(socket), "PreferredAuthentications=publickey", "StrictHostKeyChecking=accept-new",
		"UserKnownHostsFile=" + quotePath(filepath.Join(c.dir, "known_hosts")), "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no",
		"ConnectTimeout=15", "ServerAliveInterval=15", "ClearAllForwardings=yes",
		"HostName=" + address.String(), "HostKeyAlias=[" + strings.ToLower(at.Host) + "]:" + at.port(),
	} {
		command = append(command, "-o", option)
	}
	a.env = append(a.env, "GIT_ALLOW_PROTOCOL=ssh", "GIT_SSH_COMMAND="+quoteShell(command))
	return a, nil
}

// quotePath returns a path as options of ssh take it: there, spaces separate paths, and %
// begins a variable.
func quotePath(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(path) + `"`
}

func quoteShell(words []string) string {
	quoted := make([]string, 0, len(words))
	for _, word := range words {
		quoted = append(quoted, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	return strings.Join(quoted, " ")
}

func (c *Cache) newAccess(config string) (*access, error) {
	dir, err := os.MkdirTemp(c.tempDir(), "access-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, ".gitconfig") // versions before 2.32 read it for its name
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	a := &access{dir: dir, env: []string{
		"HOME=" + dir, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + file,
		"GIT_TERMINAL_PROMPT=0", "GIT_LFS_SKIP_SMUDGE=1",
	}}
	for _, name := range passedVariables {
		if value, ok := os.LookupEnv(name); ok {
			a.env = append(a.env, name+"="+value)
		}
	}
	return a, nil
}

// maxSocketPath is how long the path of a socket may be on every system.
const maxSocketPath = 100

// serveAgent serves an SSH agent until close, and returns the path of its socket.
func (a *access) serveAgent(keys agent.Agent) (string, error) {
	socket := filepath.Join(a.dir, "agent")
	if len(socket) > maxSocketPath {
		dir, err := os.MkdirTemp("", "dstack-git-") // only its owner may enter it
		if err != nil {
			return "", err
		}
		a.socketDir = dir
		socket = filepath.Join(dir, "agent")
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", err
	}
	a.agent = listener
	a.tasks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			a.tasks.Go(func() {
				defer conn.Close()
				_ = agent.ServeAgent(keys, conn) // ends with the connection
			})
		}
	})
	return socket, nil
}

// close ends the agent and deletes the folder.
func (a *access) close() {
	if a.agent != nil {
		_ = a.agent.Close()
	}
	a.tasks.Wait()
	if a.socketDir != "" {
		_ = os.RemoveAll(a.socketDir)
	}
	_ = os.RemoveAll(a.dir)
}
