package gitrepo

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// Source is a repository that a user registered: its address and what the server needs
// to read it. Token and PrivateKey are secrets, and the other fields are not. A source
// without URL has only the commits that were fetched before.
type Source struct {
	Project dstack.ProjectID
	Repo    string        // ID of the repo in the project
	User    dstack.UserID // whose credentials these are

	URL        string // in the form of ParseURL, without credentials
	Token      string // for http and https; empty: none
	PrivateKey string // for ssh, in the format of OpenSSH or PEM, without a passphrase

	// MayUseLoopback allows addresses of the server's own machine, where other
	// programs listen that trust every local user.
	MayUseLoopback bool
}

// Location is a repository's URL in parts.
type Location struct {
	URL    string // as git takes it, without a token
	Scheme string // https, http or ssh
	User   string // of ssh; empty: git
	Host   string
	Port   string
}

// scpPattern is the short form of an SSH URL: git@example.com:owner/name.git.
var scpPattern = regexp.MustCompile(`^(?:([A-Za-z0-9_][A-Za-z0-9_.-]*)@)?([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\]):([^/\\:-].*|/[^/].*)$`)

var (
	hostPattern = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|[0-9A-Fa-f:.]+)$`)
	userPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// ParseURL checks the URL of a repository, and returns its location and the token that
// the URL contains, if any. Nothing that it accepts can be taken for an option by git or
// ssh. Errors do not quote a token.
func ParseURL(text string) (at Location, token string, err error) {
	if text == "" || len(text) > 2000 {
		return at, "", newURLError("the URL of a repository has 1 to 2000 characters")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return at, "", newURLError("the URL of the repository contains spaces or control characters")
	}
	if !strings.Contains(text, "://") {
		return parseShortURL(text)
	}
	u, err := url.Parse(text)
	if err != nil { // the error quotes the URL
		return at, "", newURLError("the URL of the repository cannot be read")
	}
	at = Location{Scheme: strings.ToLower(u.Scheme), Host: u.Hostname(), Port: u.Port()}
	if !slices.Contains([]string{"https", "http", "ssh"}, at.Scheme) {
		return at, "", newURLError(fmt.Sprintf("repositories are read over https and ssh, not over %q", at.Scheme))
	}
	if u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") == "" || !hostPattern.MatchString(at.Host) {
		return at, "", newURLError("the URL of the repository is not of the form https://HOST/PATH or ssh://HOST/PATH")
	}
	if number, err := strconv.ParseUint(at.Port, 10, 16); at.Port != "" && (err != nil || number == 0) {
		return at, "", newURLError("the port in the URL of the repository is not between 1 and 65535")
	}
	switch at.Scheme {
	case "https", "http":
		if password, ok := u.User.Password(); ok && password != "" {
			token = password
		} else {
			token = u.User.Username()
		}
		u.User = nil
	default:
		if _, hasPassword := u.User.Password(); hasPassword {
			return at, "", newURLError("a repository cannot be read with a password over SSH; use a private key")
		}
		if at.User = u.User.Username(); at.User != "" && !userPattern.MatchString(at.User) {
			return at, "", newURLError("the user name in the URL of the repository has characters other than letters, digits, ., - and _")
		}
	}
	u.Scheme = at.Scheme
	at.URL = u.String()
	return at, token, nil
}

func parseShortURL(text string) (at Location, token string, err error) {
	found := scpPattern.FindStringSubmatch(text)
	if found == nil {
		return at, "", newURLError("the URL of the repository is not of the form https://HOST/PATH, ssh://HOST/PATH or USER@HOST:PATH")
	}
	host := strings.Trim(found[2], "[]")
	return Location{URL: text, Scheme: "ssh", User: found[1], Host: host}, "", nil
}

func newURLError(message string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: message,
		Hint: "check it: git remote get-url origin; or upload the folder instead: dstack init --local"}
}

// port returns the port of a location, or the default port of its scheme.
func (l Location) port() string {
	if l.Port != "" {
		return l.Port
	}
	return map[string]string{"https": "443", "http": "80", "ssh": "22"}[l.Scheme]
}

// Normalize returns the source with its URL in the form of ParseURL. A token in the URL
// moves to Token. It refuses credentials that do not fit the URL, or cannot be used.
func (s Source) Normalize() (Source, error) {
	at, token, err := ParseURL(s.URL)
	if err != nil {
		return s, err
	}
	s.URL = at.URL
	if s.Token == "" {
		s.Token = token
	}
	if at.Scheme == "ssh" {
		s.Token = ""
		if s.PrivateKey == "" {
			return s, &dstack.Error{Kind: dstack.Invalid, Message: "the repository is read over SSH, and there is no private key for it",
				Hint: "give one that can read it: dstack init --git-identity ~/.ssh/id_ed25519"}
		}
		_, err := parseKey(s.PrivateKey)
		return s, err
	}
	s.PrivateKey = ""
	if strings.ContainsFunc(s.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return s, &dstack.Error{Kind: dstack.Invalid, Message: "the token for the repository contains spaces or other characters that no token has",
			Hint: "copy it again, and pass it with dstack init --token"}
	}
	if len(s.Token) > maxTokenBytes {
		return s, newTokenError()
	}
	if s.Token != "" && at.Scheme == "http" && !s.MayUseLoopback {
		return s, &dstack.Error{Kind: dstack.Invalid, Message: "the token for the repository would be sent without encryption",
			Hint: "use the repository's https URL"}
	}
	return s, nil
}

// maxTokenBytes is more than any token has. The answer to git's question for a login fits
// into one page of a pipe with it.
const maxTokenBytes = 2000

func newTokenError() error {
	return &dstack.Error{Kind: dstack.Invalid, Message: "the token for the repository is longer than any token",
		Hint: fmt.Sprintf("copy it again, and pass it with dstack init --token; it has at most %d bytes", maxTokenBytes)}
}

// parseKey reads a private key. Its error does not quote the key.
func parseKey(text string) (any, error) {
	key, err := ssh.ParseRawPrivateKey([]byte(strings.TrimSpace(text) + "\n"))
	if err == nil {
		return key, nil
	}
	hint := "give a key file in the format of OpenSSH: dstack init --git-identity FILE"
	if _, isLocked := errors.AsType[*ssh.PassphraseMissingError](err); isLocked {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the private key for the repository has a passphrase",
			Hint: "give a key without one, such as a deploy key: dstack init --git-identity FILE"}
	}
	return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the private key for the repository cannot be read", Hint: hint}
}

// Commit is what a run checks out.
type Commit struct {
	Hash   string
	Branch string // the branch that the working folder is on
}

var hashPattern = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)

// Check returns an error if a hash or a branch is none, and could be taken for something
// else by git.
func (c Commit) Check() error {
	if !hashPattern.MatchString(c.Hash) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "the run does not say which commit of the repository it needs",
			Hint: "repo_data.repo_hash is the commit's hash, of 40 hexadecimal digits"}
	}
	if !isBranchName(c.Branch) {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q is not the name of a branch", c.Branch),
			Hint: "repo_data.repo_branch is the branch of the commit, such as main"}
	}
	return nil
}

// isBranchName follows git check-ref-format.
func isBranchName(name string) bool {
	if name == "" || len(name) > 255 || name == "@" || name == "HEAD" || strings.HasPrefix(name, "-") ||
		strings.HasSuffix(name, "/") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") ||
		strings.Contains(name, "//") || strings.Contains(name, "@{") {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
}
