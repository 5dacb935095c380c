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

// addressBook is ~/.dstack/config.yml: which projects there are, where their
// servers are, and with which token. What we do not know in it is kept.
type addressBook struct {
	Projects []address      `yaml:"projects"`
	Repos    []folder       `yaml:"repos,omitempty"`
	Rest     map[string]any `yaml:",inline"`
}

// address is how one project is reached.
type address struct {
	Name    string         `yaml:"name"`
	URL     string         `yaml:"url"`
	Token   string         `yaml:"token"`
	Default bool           `yaml:"default,omitempty"`
	Rest    map[string]any `yaml:",inline"`
}

// folder is a folder that was registered.
type folder struct {
	Path     string         `yaml:"path"`
	RepoID   string         `yaml:"repo_id"`
	RepoType string         `yaml:"repo_type"`
	Rest     map[string]any `yaml:",inline"`
}

const (
	bookLimit = 1 << 20
	lockLimit = 10 * time.Second
	lockRetry = 20 * time.Millisecond
)

func bookPath(home string) string { return filepath.Join(home, ".dstack", "config.yml") }

// Configure notes in home's .dstack/config.yml how project is reached. With
// asDefault it becomes the default; the first project always does. It may be
// repeated, and others may write the file meanwhile.
func Configure(home, project, url, token string, asDefault bool) error {
	return changeBook(home, func(book *addressBook) error {
		book.put(address{Name: project, URL: url, Token: token}, asDefault)
		return nil
	})
}

func (b *addressBook) put(new address, asDefault bool) {
	asDefault = asDefault || b.byDefault() == nil
	at := -1
	for i := range b.Projects {
		if strings.EqualFold(b.Projects[i].Name, new.Name) {
			at = i
		}
		if asDefault {
			b.Projects[i].Default = false
		}
	}
	if at < 0 {
		b.Projects, at = append(b.Projects, address{}), len(b.Projects)
	}
	old := &b.Projects[at]
	old.Name, old.URL, old.Token = new.Name, new.URL, new.Token
	old.Default = old.Default || asDefault
}

func (b *addressBook) byDefault() *address {
	for i := range b.Projects {
		if b.Projects[i].Default {
			return &b.Projects[i]
		}
	}
	return nil
}

func (b *addressBook) find(name string) *address {
	for i := range b.Projects {
		if strings.EqualFold(b.Projects[i].Name, name) {
			return &b.Projects[i]
		}
	}
	return nil
}

func (b *addressBook) names() []string {
	names := make([]string, 0, len(b.Projects))
	for _, p := range b.Projects {
		names = append(names, p.Name)
	}
	return names
}

// readBook reads the file; where there is none, the book is empty.
func readBook(home string) (*addressBook, error) {
	path := bookPath(home)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &addressBook{}, nil
	}
	if err == nil && len(text) > bookLimit {
		err = fmt.Errorf("it is larger than %d bytes", bookLimit)
	}
	var book addressBook
	if err == nil && len(strings.TrimSpace(string(text))) > 0 {
		err = yaml.Load(text, &book)
	}
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("cannot read %s: %v", path, err),
			Hint:    "mend that file, or move it away and run: dstack config --project NAME --url URL"}
	}
	return &book, nil
}

// changeBook changes the file in one piece, while no other process does.
func changeBook(home string, change func(*addressBook) error) error {
	path := bookPath(home)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return cannotWrite(path, err)
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return cannotWrite(path, err)
	}
	defer unlock()
	book, err := readBook(home)
	if err != nil {
		return err
	}
	if err := change(book); err != nil {
		return err
	}
	text, err := yaml.Dump(book)
	if err != nil {
		return cannotWrite(path, err)
	}
	if err := replaceFile(path, text); err != nil {
		return cannotWrite(path, err)
	}
	return nil
}

func cannotWrite(path string, err error) error {
	return &dstack.Error{Kind: dstack.Internal, Message: fmt.Sprintf("cannot write %s: %v", path, err),
		Hint: "check that the folder is yours, and the disk not full", Cause: err}
}

// replaceFile leaves either the old file or the whole new one, readable by
// its owner alone.
func replaceFile(path string, text []byte) (err error) {
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
	if _, err = temp.Write(text); err == nil {
		err = temp.Sync()
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// lock waits until no other process holds the file at path.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockLimit)
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
		if loop.Sleep(ctx, lockRetry) != nil {
			f.Close()
			return nil, fmt.Errorf("another process has held %s for %s", path, lockLimit)
		}
	}
}

// connect finds the project that is meant and makes a client for its server.
func (a *app) connect() (*api.Client, string, error) {
	place, err := a.address()
	if err != nil {
		return nil, "", err
	}
	client, err := api.NewClient(place.URL, place.Token)
	return client, place.Name, err
}

// address is where the meant project is: DSTACK_URL and DSTACK_TOKEN before
// the file, --project before DSTACK_PROJECT before the default.
func (a *app) address() (address, error) {
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
		return address{Name: name, URL: url, Token: token}, nil
	}
	if url != "" {
		return address{}, invalid("set DSTACK_TOKEN too, or unset DSTACK_URL", "DSTACK_URL is set without DSTACK_TOKEN")
	}
	book, err := readBook(a.home)
	if err != nil {
		return address{}, err
	}
	return book.choose(name)
}

func (b *addressBook) choose(name string) (address, error) {
	if len(b.Projects) == 0 {
		return address{}, &dstack.Error{Kind: dstack.Invalid, Message: "no server is configured",
			Hint: "start one here: dstack server\nor use another: dstack config --project main --url URL"}
	}
	if name != "" {
		if found := b.find(name); found != nil {
			return *found, nil
		}
		return address{}, invalid(didYouMean(name, b.names(), "configured are: "+strings.Join(b.names(), ", ")),
			"project `%s` is not configured", name)
	}
	if found := b.byDefault(); found != nil {
		return *found, nil
	}
	if len(b.Projects) == 1 {
		return b.Projects[0], nil
	}
	return address{}, invalid("name one: --project "+b.Projects[0].Name, "several projects are configured and none is the default")
}

// remote is what most commands begin with: a client and the project's name.
// The caller closes the client.
func (a *app) remote(ctx context.Context) (*api.Client, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", context.Cause(ctx)
	}
	return a.connect()
}
