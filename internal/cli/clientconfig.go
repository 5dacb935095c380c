package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v4"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
)

// clientConfig is ~/.dstack/config.yml: the projects, their servers and their
// tokens. Fields that this version does not know are kept.
type clientConfig struct {
	Projects []projectConfig `yaml:"projects"`
	Repos    []repoConfig    `yaml:"repos,omitempty"`
	Unknown  map[string]any  `yaml:",inline"`
}

// projectConfig is the address of a project and the token for it: an entry of the
// file. The fields that are not in YAML are in servers.yml; see serverRecord.
type projectConfig struct {
	Name    string         `yaml:"name"`
	URL     string         `yaml:"url"`
	Token   string         `yaml:"token"`
	Default bool           `yaml:"default,omitempty"`
	Unknown map[string]any `yaml:",inline"`

	Project      string `yaml:"-"` // the project's name on the server; empty: Name
	Installation string `yaml:"-"` // the installation whose server wrote the entry; empty: unknown

	MoreURLs []string `yaml:"-"` // other servers that share the database with that of URL
}

// serverURLs returns the URLs of all servers of the entry, for api.NewClient.
func (p projectConfig) serverURLs() string {
	return api.JoinURLs(append([]string{p.URL}, p.MoreURLs...)...)
}

// projectName returns the name of the project on the server.
func (p projectConfig) projectName() string {
	if p.Project != "" {
		return p.Project
	}
	return p.Name
}

// repoConfig is a folder that `dstack init` registered.
type repoConfig struct {
	Path     string         `yaml:"path"`
	RepoID   string         `yaml:"repo_id"`
	RepoType string         `yaml:"repo_type"`
	KeyPath  string         `yaml:"ssh_key_path"` // the published client refuses the file without it
	Unknown  map[string]any `yaml:",inline"`
}

const (
	maxConfigSize  = 1 << 20
	maxLockWait    = 10 * time.Second
	lockRetryDelay = 20 * time.Millisecond
)

// clientConfigPath returns the path of the file below a home folder.
func clientConfigPath(home string) string { return filepath.Join(home, ".dstack", "config.yml") }

// DefaultChoice says whether an entry becomes the default.
type DefaultChoice string

// The choices.
const (
	DefaultUnset DefaultChoice = ""    // only if it is the first entry
	DefaultYes   DefaultChoice = "yes" // it replaces the default
	DefaultNo    DefaultChoice = "no"  // never
)

// saveProject adds an entry to .dstack/config.yml in home or replaces the one of the
// same name. Calls may be repeated and may be concurrent, also from other processes.
func saveProject(home string, project projectConfig, choice DefaultChoice) error {
	return updateClientConfig(home, func(config *clientConfig) error {
		config.setProject(project, choice)
		return nil
	})
}

// setProject adds an entry or replaces the one of the same name. Fields that this
// version does not know are kept.
func (c *clientConfig) setProject(project projectConfig, choice DefaultChoice) {
	known := c.findProject(project.Name)
	if known == nil {
		if len(c.Projects) == 1 && choice != DefaultYes {
			c.Projects[0].Default = true // a single entry is used without being the default
		}
		c.Projects = append(c.Projects, projectConfig{})
		known = &c.Projects[len(c.Projects)-1]
	}
	project.Default, project.Unknown = known.Default, known.Unknown
	*known = project
	if choice == DefaultYes || choice == DefaultUnset && len(c.Projects) == 1 {
		c.setDefault(project.Name)
	}
}

// setDefault makes the entry of that name the only default.
func (c *clientConfig) setDefault(name string) {
	for i := range c.Projects {
		c.Projects[i].Default = strings.EqualFold(c.Projects[i].Name, name)
	}
}

// freeName returns the name, or the first free one of name-2, name-3 and so on.
func (c *clientConfig) freeName(name string) string {
	free := name
	for n := 2; c.findProject(free) != nil; n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}

// setRepo adds a folder or replaces it, but keeps its key.
func (c *clientConfig) setRepo(repo repoConfig) {
	at := slices.IndexFunc(c.Repos, func(r repoConfig) bool { return r.Path == repo.Path })
	if at < 0 {
		c.Repos = append(c.Repos, repo)
		return
	}
	if known := c.Repos[at]; known.KeyPath != "" {
		repo.KeyPath = known.KeyPath
	}
	repo.Unknown = c.Repos[at].Unknown
	c.Repos[at] = repo
}

// defaultProject returns the default project, or nil.
func (c *clientConfig) defaultProject() *projectConfig {
	for i := range c.Projects {
		if c.Projects[i].Default {
			return &c.Projects[i]
		}
	}
	return nil
}

// findProject returns the project of that name, regardless of case, or nil.
func (c *clientConfig) findProject(name string) *projectConfig {
	for i := range c.Projects {
		if strings.EqualFold(c.Projects[i].Name, name) {
			return &c.Projects[i]
		}
	}
	return nil
}

func (c *clientConfig) projectNames() []string {
	names := make([]string, 0, len(c.Projects))
	for _, p := range c.Projects {
		names = append(names, p.Name)
	}
	return names
}

// readClientConfig reads the file. A missing file is an empty configuration.
func readClientConfig(home string) (*clientConfig, error) {
	path := clientConfigPath(home)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &clientConfig{}, nil
	}
	if err == nil && len(content) > maxConfigSize {
		err = fmt.Errorf("it is larger than %d bytes", maxConfigSize)
	}
	var config clientConfig
	reason := human.DescribeFailure(err)
	if err == nil && len(strings.TrimSpace(string(content))) > 0 {
		err = yaml.Load(content, &config)
		reason = describeYAMLFailure(err)
	}
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("cannot read %s: %s", path, reason),
			Hint:    "fix that file, or move it and run: dstack config --project NAME --url URL"}
	}
	config.addRecords(readServerRecords(home))
	return &config, nil
}

// yamlLine finds the line in an error of the YAML library.
var yamlLine = regexp.MustCompile(`line (\d+)|L(\d+)\.C`)

// describeYAMLFailure says where a file is not as expected. The text of the library's error names
// Go types.
func describeYAMLFailure(err error) string {
	if err == nil {
		return ""
	}
	place := ""
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
		place = "line " + found[1] + found[2]
	}
	switch {
	case strings.Contains(err.Error(), "cannot construct") && place != "":
		return place + " has a value of another type than expected"
	case place != "":
		return "it is not valid YAML, at or before " + place
	}
	return "it is not valid YAML"
}

// updateClientConfig reads, changes and replaces the file under a lock that
// excludes other processes.
func updateClientConfig(home string, change func(*clientConfig) error) error {
	path := clientConfigPath(home)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return cannotWrite(path, err)
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return cannotWrite(path, err)
	}
	defer unlock()
	config, err := readClientConfig(home)
	if err != nil {
		return err
	}
	if err := change(config); err != nil {
		return err
	}
	content, err := yaml.Dump(config)
	if err != nil {
		return cannotWrite(path, err)
	}
	if err := writeServerRecords(home, config.serverRecords()); err != nil {
		return cannotWrite(serversPath(home), err)
	}
	if err := replaceFile(path, content); err != nil {
		return cannotWrite(path, err)
	}
	return nil
}

func cannotWrite(path string, err error) error {
	return &dstack.Error{Kind: dstack.Internal, Message: fmt.Sprintf("cannot write %s: %s", path, human.DescribeFailure(err)),
		Hint: "check that you own the folder and that the disk is not full", Cause: err}
}

// replaceFile writes a file atomically; only its owner can read it.
func replaceFile(path string, content []byte) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".config-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err = temp.Write(content); err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// lockFile locks the file at path and returns the function that unlocks it. It
// waits for at most maxLockWait.
func lockFile(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxLockWait)
	defer cancel()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil // closing it unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		if loop.Sleep(ctx, lockRetryDelay) != nil {
			f.Close()
			return nil, fmt.Errorf("another process has held %s for %s", path, maxLockWait)
		}
	}
}
