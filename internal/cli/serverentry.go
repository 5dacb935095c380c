package cli

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
)

// Server is a server on this machine as it describes itself to the command line.
type Server struct {
	URL          string
	Project      string // the main project
	Installation string // the name of the server's database
	Token        string // the admin's new token; empty: unchanged, and the server does not know it
	// IsValid reports whether the server accepts a token now. It is called often.
	IsValid func(token string) bool
	// WasAdmins reports whether a token was the admin's until Token replaced it.
	WasAdmins func(token string) bool
	Default   DefaultChoice // DefaultUnset: the default changes only if there is no entry
}

// SavedServer is the result of SaveServer.
type SavedServer struct {
	Path      string   // of config.yml
	Entry     string   // the name of the server's entry; empty: there is none
	IsDefault bool     // the entry is used without --project
	HasAccess bool     // some entry has a token that the server accepts
	Changes   []string // one sentence for each change that the user should know about
}

// probeTimeout limits the question whether the URL of an entry still works.
const probeTimeout = 1500 * time.Millisecond

// SaveServer makes .dstack/config.yml in home right for a server: entries of the same
// installation get its URL unless theirs still works, and its new token if theirs has
// ended. Without such an entry, a new token gets a new one. An entry of another
// installation is never changed except for its name: if it has the URL of this server,
// where its token cannot work any more, this server's entry takes over its name.
// Nothing is written if nothing changes.
func SaveServer(ctx context.Context, home string, s Server) (SavedServer, error) {
	result := SavedServer{Path: clientConfigPath(home)}
	config, err := readClientConfig(home)
	if err != nil {
		return result, err
	}
	working := findWorkingURLs(ctx, config, s)
	planned := config.clone()
	result.Changes = planned.adoptServer(s, working)
	if !reflect.DeepEqual(planned, config) {
		err = updateClientConfig(home, func(config *clientConfig) error {
			result.Changes = config.adoptServer(s, working) // the file may have changed in the meantime
			planned = config
			return nil
		})
	}
	if err != nil {
		return result, err
	}
	for _, entry := range planned.Projects {
		result.HasAccess = result.HasAccess || s.IsValid(entry.Token) && !entry.isOfOther(s)
		if entry.Installation == s.Installation && (result.Entry == "" || entry.projectName() == s.Project) {
			result.Entry = entry.Name
			result.IsDefault = entry.Default || len(planned.Projects) == 1
		}
	}
	return result, nil
}

// clone returns a copy that shares no entry with c.
func (c *clientConfig) clone() *clientConfig {
	copied := *c
	copied.Projects = slices.Clone(c.Projects)
	return &copied
}

// isOfOther reports whether the entry is known to belong to another installation.
func (p projectConfig) isOfOther(s Server) bool {
	return p.Installation != "" && p.Installation != s.Installation
}

// isOf reports whether the entry belongs to the server: it has the server's installation,
// or none and a token that is or was valid there. An entry without an installation is
// recognized only at the server's URL and at an address of this machine: any other
// address is one that the user chose.
func (p projectConfig) isOf(s Server) bool {
	if p.Installation != "" {
		return p.Installation == s.Installation
	}
	return (p.URL == s.URL || isLoopbackURL(p.URL)) && (s.IsValid(p.Token) || s.WasAdmins(p.Token))
}

// findWorkingURLs returns the URLs of the server's entries that differ from its own and
// still accept their token. Several servers may share one database.
func findWorkingURLs(ctx context.Context, config *clientConfig, s Server) map[string]bool {
	working := map[string]bool{}
	for _, entry := range config.Projects {
		if entry.URL == s.URL || !entry.isOf(s) || working[entry.URL] {
			continue
		}
		client, err := api.NewClient(entry.URL, entry.Token)
		if err != nil {
			continue
		}
		working[entry.URL] = client.IsAccepted(ctx, probeTimeout)
		client.Close()
	}
	return working
}

// adoptServer changes the entries as SaveServer says, and returns what the user should
// know. A second call changes nothing.
func (c *clientConfig) adoptServer(s Server, working map[string]bool) (changes []string) {
	found := ""
	for i := range c.Projects {
		entry := &c.Projects[i]
		if !entry.isOf(s) {
			continue
		}
		if entry.URL != s.URL && working[entry.URL] {
			if entry.Installation == s.Installation && s.IsValid(entry.Token) {
				found = entry.Name
			}
			continue
		}
		if entry.URL != s.URL {
			changes = append(changes, fmt.Sprintf("%s is now at %s, before at %s", entry.Name, s.URL, entry.URL))
			entry.URL = s.URL
		}
		entry.Installation = s.Installation
		if s.Token != "" && !s.IsValid(entry.Token) && (s.WasAdmins(entry.Token) || entry.projectName() == s.Project) {
			entry.Token = s.Token
		}
		if s.IsValid(entry.Token) && (found == "" || entry.projectName() == s.Project) {
			found = entry.Name
		}
	}
	if own := c.findProject(found); own != nil && own.projectName() == s.Project {
		name, more := c.takeName(found, s)
		found, changes = name, append(changes, more...)
	}
	if found == "" && s.Token != "" && !c.hasChosenEntry(s) {
		name, more := c.addServer(s)
		found, changes = name, append(changes, more...)
	}
	if found != "" && s.Default == DefaultYes {
		c.setDefault(found)
	}
	return changes
}

// hasChosenEntry reports whether the user wrote an entry that the server accepts.
func (c *clientConfig) hasChosenEntry(s Server) bool {
	return slices.ContainsFunc(c.Projects, func(p projectConfig) bool { return p.Installation == "" && s.IsValid(p.Token) })
}

// addServer adds an entry for the server and returns its name.
func (c *clientConfig) addServer(s Server) (name string, changes []string) {
	entry := projectConfig{Name: s.Project, URL: s.URL, Token: s.Token, Installation: s.Installation}
	previous := c.findProject(s.Project)
	switch {
	case previous == nil:
	case previous.isDisplacedBy(s):
		aside := c.freeName(previous.Name)
		changes = append(changes, fmt.Sprintf(
			"%s was the entry of another server at the same URL; that entry is now called %s", previous.Name, aside))
		moved := *previous
		moved.Project, moved.Name, moved.Default = moved.projectName(), aside, false
		previous.Project, previous.Unknown = "", nil
		c.Projects = append(c.Projects, moved)
	default:
		changes = append(changes, fmt.Sprintf("%s is the entry of another server, at %s, and stays as it is",
			previous.Name, previous.URL))
		entry.Project, entry.Name = s.Project, c.freeName(s.Project)
	}
	c.setProject(entry, s.Default)
	return entry.Name, changes
}

// isDisplacedBy reports whether the entry is of another server at the URL of s. Only one
// server can listen there, so the entry cannot work until its own server is back.
func (p projectConfig) isDisplacedBy(s Server) bool {
	return p.URL == s.URL && (isLoopbackURL(p.URL) || p.Installation != "") && !p.isOf(s) && !s.IsValid(p.Token)
}

// takeName gives the server's entry the name of the entry that it displaces, if there is
// one, and that entry its own. It returns the name of the server's entry.
func (c *clientConfig) takeName(name string, s Server) (string, []string) {
	own, other := c.findProject(name), c.findProject(s.Project)
	if other == nil || other == own || !other.isDisplacedBy(s) {
		return name, nil
	}
	other.Project, own.Project = other.projectName(), ""
	own.Name, other.Name = other.Name, own.Name
	own.Default, other.Default = other.Default, own.Default
	return own.Name, []string{fmt.Sprintf(
		"%s was the entry of another server at the same URL; that entry is now called %s, which was this server's name", own.Name, other.Name)}
}

// FindToken returns the first entry of .dstack/config.yml in home whose token is
// accepted, or ok false. An unreadable file is an error.
func FindToken(home string, isAccepted func(token string) bool) (entry, url, token string, ok bool, err error) {
	config, err := readClientConfig(home)
	if err != nil {
		return "", "", "", false, err
	}
	for _, p := range config.Projects {
		if isAccepted(p.Token) {
			return p.Name, p.URL, p.Token, true, nil
		}
	}
	return "", "", "", false, nil
}

// isLoopbackURL reports whether a URL leads to this machine.
func isLoopbackURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}
