package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v4"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// clientConfig is ~/.dstack/config.yml: the projects, their servers and their
// tokens. Fields that this version does not know are kept.
type clientConfig struct {
	Projects []projectConfig `yaml:"projects"`
	Repos    []repoConfig    `yaml:"repos,omitempty"`
	Unknown  map[string]any  `yaml:",inline"`
}

// projectConfig is the address of a project and the token for it.
type projectConfig struct {
	Name    string         `yaml:"name"`
	URL     string         `yaml:"url"`
	Token   string         `yaml:"token"`
	Default bool           `yaml:"default,omitempty"`
	Unknown map[string]any `yaml:",inline"`
}

// repoConfig is a folder that `dstack init` registered.
type repoConfig struct {
	Path     string         `yaml:"path"`
	RepoID   string         `yaml:"repo_id"`
	RepoType string         `yaml:"repo_type"`
	Unknown  map[string]any `yaml:",inline"`
}

const (
	maxConfigSize  = 1 << 20
	maxLockWait    = 10 * time.Second
	lockRetryDelay = 20 * time.Millisecond
)

// clientConfigPath returns the path of the file below a home folder.
func clientConfigPath(home string) string { return filepath.Join(home, ".dstack", "config.yml") }

// SaveProject writes the server's URL and the token of a project to
// .dstack/config.yml in home. With asDefault, or if there is no other project,
// the project becomes the default. Calls may be repeated and may be concurrent,
// also from other processes.
func SaveProject(home, project, url, token string, asDefault bool) error {
	return updateClientConfig(home, func(config *clientConfig) error {
		config.setProject(projectConfig{Name: project, URL: url, Token: token}, asDefault)
		return nil
	})
}

// setProject adds a project or replaces the one of the same name.
func (c *clientConfig) setProject(project projectConfig, asDefault bool) {
	asDefault = asDefault || c.defaultProject() == nil
	at := -1
	for i := range c.Projects {
		if strings.EqualFold(c.Projects[i].Name, project.Name) {
			at = i
		}
		if asDefault {
			c.Projects[i].Default = false
		}
	}
	if at < 0 {
		c.Projects, at = append(c.Projects, projectConfig{}), len(c.Projects)
	}
	known := &c.Projects[at]
	known.Name, known.URL, known.Token = project.Name, project.URL, project.Token
	known.Default = known.Default || asDefault
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
	if err == nil && len(strings.TrimSpace(string(content))) > 0 {
		err = yaml.Load(content, &config)
	}
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("cannot read %s: %v", path, err),
			Hint:    "fix that file, or move it and run: dstack config --project NAME --url URL"}
	}
	return &config, nil
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
	if err := replaceFile(path, content); err != nil {
		return cannotWrite(path, err)
	}
	return nil
}

func cannotWrite(path string, err error) error {
	return &dstack.Error{Kind: dstack.Internal, Message: fmt.Sprintf("cannot write %s: %v", path, err),
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

// newClient returns a client for the server of the selected project, and the
// project's name.
func (a *app) newClient() (*api.Client, string, error) {
	project, err := a.resolveProject()
	if err != nil {
		return nil, "", err
	}
	client, err := api.NewClient(project.URL, project.Token)
	return client, project.Name, err
}

// resolveProject selects a project: --project, else DSTACK_PROJECT, else the
// default. DSTACK_URL and DSTACK_TOKEN replace the configuration file.
func (a *app) resolveProject() (projectConfig, error) {
	name := a.project
	if name == "" {
		name, _ = a.env("DSTACK_PROJECT")
	}
	url, _ := a.env("DSTACK_URL")
	token, _ := a.env("DSTACK_TOKEN")
	if url != "" && token != "" {
		if name == "" {
			name = "main"
		}
		return projectConfig{Name: name, URL: url, Token: token}, nil
	}
	if url != "" {
		return projectConfig{}, invalidInput("set DSTACK_TOKEN too, or unset DSTACK_URL", "DSTACK_URL is set without DSTACK_TOKEN")
	}
	config, err := readClientConfig(a.home)
	if err != nil {
		return projectConfig{}, err
	}
	return config.chooseProject(name)
}

// chooseProject returns the named project or, without a name, the default one.
func (c *clientConfig) chooseProject(name string) (projectConfig, error) {
	if len(c.Projects) == 0 {
		return projectConfig{}, &dstack.Error{Kind: dstack.Invalid, Message: "no server is configured",
			Hint: "start one here: dstack server\nor use another: dstack config --project main --url URL"}
	}
	if name != "" {
		if found := c.findProject(name); found != nil {
			return *found, nil
		}
		names := c.projectNames()
		return projectConfig{}, invalidInput(didYouMean(name, names, "configured: "+strings.Join(names, ", ")),
			"project `%s` is not configured", name)
	}
	if found := c.defaultProject(); found != nil {
		return *found, nil
	}
	if len(c.Projects) == 1 {
		return c.Projects[0], nil
	}
	return projectConfig{}, invalidInput("name one: --project "+c.Projects[0].Name,
		"several projects are configured and none is the default")
}

// connect is newClient for commands: a canceled ctx is an error. The caller
// closes the client.
func (a *app) connect(ctx context.Context) (*api.Client, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", context.Cause(ctx)
	}
	return a.newClient()
}
