package hub

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
)

const (
	cacheFormat  = 2
	maxEntry     = 80 << 20 // bytes of one file: 33 templates of 1 MB, with JSON escapes
	maxMarks     = 64       // tokens stored for one model
	tempLifetime = time.Hour
	tempPrefix   = ".entry-"
	entrySuffix  = ".json"
)

// cacheEntry is the last result of the hub for a model, with the tokens that
// may read it.
type cacheEntry struct {
	Format int    `json:"format"`
	Base   string `json:"base"`
	Model  string `json:"model"` // the requested name
	ID     string `json:"id"`    // the current name
	Commit string `json:"commit"`
	// Public says that anonymous callers may read the model.
	Public bool `json:"public"`
	// Asked is the last time at which the hub confirmed that main is at
	// Commit.
	Asked time.Time `json:"asked"`
	// Accepted maps the marks of the tokens that have read the model to the
	// time of the last read.
	Accepted map[string]time.Time `json:"accepted,omitempty"`
	Template dstack.ChatTemplate  `json:"template"`
}

// toTemplate returns a copy of the template with its source for people.
func (e cacheEntry) toTemplate(host string, offline bool) dstack.ChatTemplate {
	t := e.Template // callers share the entry and may change their copy
	t.Named, t.Tokens = slices.Clone(t.Named), maps.Clone(t.Tokens)
	t.Source = fmt.Sprintf("%s at %s on %s", e.ID, e.Commit[:7], host)
	if offline {
		t.Source += fmt.Sprintf(" (offline copy of %s)", e.Asked.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return t
}

// isAllowedFor reports whether the hub has allowed one of the callers to read
// the entry since a time.
func (e cacheEntry) isAllowedFor(callers []string, since time.Time) bool {
	if e.Public && !e.Asked.Before(since) {
		return true
	}
	for _, token := range callers {
		at, ok := e.Accepted[tokenMark(e.Model, token)]
		if ok && token != "" && !at.Before(since) {
			return true
		}
	}
	return false
}

// diskCache stores entries in a directory, one file per model.
type diskCache struct {
	dir, base  string
	maxEntries int
	mu         sync.Mutex // held during read-modify-write of a file
}

func openCache(dir, base string, entries int) (*diskCache, error) {
	err := errors.New("no directory is given")
	if dir != "" {
		err = errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700))
	}
	if err != nil {
		return nil, &dstack.Error{
			Kind: dstack.Internal, Message: "cannot create the cache of model hubs: " + err.Error(),
			Hint: "let the server write to its directory", Cause: err,
		}
	}
	return &diskCache{dir: dir, base: base, maxEntries: entries}, nil
}

// filePath returns the path of a model's file. It begins with the model's name
// for people who look into the directory.
func (c *diskCache) filePath(model string) string {
	sum := sha256.Sum256([]byte(c.base + "\x00" + model))
	return filepath.Join(c.dir, strings.ReplaceAll(model, "/", "--")+"-"+hex.EncodeToString(sum[:8])+entrySuffix)
}

// loadEntry reads an entry. It returns false for an entry that is missing or
// invalid.
func (c *diskCache) loadEntry(model string) (cacheEntry, bool) {
	file, err := os.Open(c.filePath(model))
	if err != nil {
		return cacheEntry{}, false
	}
	defer file.Close()
	var e cacheEntry
	text, err := io.ReadAll(io.LimitReader(file, maxEntry))
	if err != nil || json.Unmarshal(text, &e) != nil {
		return cacheEntry{}, false
	}
	hasTemplate := e.Template.Default != "" || len(e.Template.Named) > 0
	matches := e.Format == cacheFormat && e.Base == c.base && e.Model == model
	valid := commitName.MatchString(e.Commit) && checkModel(e.ID) == nil && hasTemplate
	return e, matches && valid
}

// findEntry returns the entry if the hub has allowed one of the callers to
// read it since a time. The zero time accepts an entry of any age.
func (c *diskCache) findEntry(model string, callers []string, since time.Time) (cacheEntry, bool) {
	e, ok := c.loadEntry(model)
	return e, ok && e.isAllowedFor(callers, since)
}

// storeEntry stores what the hub has returned for a token; an empty token
// stands for anonymous access.
func (c *diskCache) storeEntry(e cacheEntry, token string, log *slog.Logger) cacheEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.Format, e.Base = cacheFormat, c.base
	before, _ := c.loadEntry(e.Model)
	e.Accepted = before.Accepted
	if token != "" {
		if e.Accepted == nil {
			e.Accepted = map[string]time.Time{}
		}
		e.Accepted[tokenMark(e.Model, token)] = e.Asked
		dropOldest(e.Accepted, maxMarks)
	}
	c.saveEntry(e, log)
	return e
}

// revokeCaller removes a caller's access to an entry after the hub has refused
// it.
func (c *diskCache) revokeCaller(model, token string, log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.loadEntry(model)
	mark := tokenMark(model, token)
	_, accepted := e.Accepted[mark]
	switch {
	case !ok:
		return
	case token == "" && e.Public:
		e.Public = false
	case accepted:
		delete(e.Accepted, mark)
	default:
		return
	}
	c.saveEntry(e, log)
}

// saveEntry writes an entry atomically. A write error is logged only, because
// the template itself has been read.
func (c *diskCache) saveEntry(e cacheEntry, log *slog.Logger) {
	text, err := json.Marshal(e)
	if err == nil {
		err = writeAtomically(c.filePath(e.Model), text)
	}
	if err == nil {
		err = c.pruneEntries(time.Now())
	}
	if err != nil {
		log.Warn("cannot store a chat template in the cache", "model", e.Model, "dir", c.dir, "err", err)
	}
}

func writeAtomically(file string, text []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(file), tempPrefix) // with mode 0600
	if err != nil {
		return err
	}
	_, err = temp.Write(text)
	err = errors.Join(err, temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// pruneEntries removes the oldest entries over the limit, and old temporary
// files that a killed server has left.
func (c *diskCache) pruneEntries(now time.Time) error {
	all, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var entries []fs.FileInfo
	for _, file := range all {
		info, err := file.Info()
		switch {
		case err != nil || !info.Mode().IsRegular():
		case strings.HasPrefix(info.Name(), tempPrefix) && now.Sub(info.ModTime()) > tempLifetime:
			_ = os.Remove(filepath.Join(c.dir, info.Name()))
		case strings.HasSuffix(info.Name(), entrySuffix):
			entries = append(entries, info)
		}
	}
	slices.SortFunc(entries, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, old := range entries[min(len(entries), c.maxEntries):] {
		err = cmp.Or(err, os.Remove(filepath.Join(c.dir, old.Name())))
	}
	return err
}

func dropOldest(marks map[string]time.Time, max int) {
	for len(marks) > max {
		oldest := ""
		for mark, at := range marks {
			if oldest == "" || at.Before(marks[oldest]) {
				oldest = mark
			}
		}
		delete(marks, oldest)
	}
}
