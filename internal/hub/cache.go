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
	cacheFormat  = 1
	maxEntry     = 80 << 20 // what one file may be: 33 templates of 1 MB, escaped
	maxMarks     = 64       // tokens remembered for one model
	tempLifetime = time.Hour
	tempPrefix   = ".entry-"
	entrySuffix  = ".json"
)

// cacheEntry is what the hub last said of a model, and to whom.
type cacheEntry struct {
	Format int    `json:"format"`
	Base   string `json:"base"`
	Model  string `json:"model"` // as asked for
	ID     string `json:"id"`    // as it is called now
	Commit string `json:"commit"`
	// Public tells that it was read without a token.
	Public bool `json:"public"`
	// Asked is when main was last known to be Commit.
	Asked time.Time `json:"asked"`
	// Accepted are the marks of the tokens that it was read with, and when.
	Accepted map[string]time.Time `json:"accepted,omitempty"`
	Template dstack.ChatTemplate  `json:"template"`
}

// toTemplate is the template for people.
func (e cacheEntry) toTemplate(host string, offline bool) dstack.ChatTemplate {
	t := e.Template // several callers may get this entry
	t.Named, t.Tokens = slices.Clone(t.Named), maps.Clone(t.Tokens)
	t.Source = fmt.Sprintf("%s at %s on %s", e.ID, e.Commit[:7], host)
	if offline {
		t.Source += fmt.Sprintf(" (offline copy of %s)", e.Asked.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return t
}

// isAllowedFor tells whether one of these callers may have the entry, and the hub
// has said so since then.
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

// diskCache keeps entries in a folder, one file for each model.
type diskCache struct {
	dir, base  string
	maxEntries int
	mu         sync.Mutex // held while a file is read to be changed
}

func openCache(dir, base string, entries int) (*diskCache, error) {
	err := errors.New("no folder is given")
	if dir != "" {
		err = errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700))
	}
	if err != nil {
		return nil, &dstack.Error{
			Kind: dstack.Internal, Message: "cannot keep what model hubs say: " + err.Error(),
			Hint: "let the server write below its folder", Cause: err,
		}
	}
	return &diskCache{dir: dir, base: base, maxEntries: entries}, nil
}

// filePath is a model's file. Its beginning is for people.
func (c *diskCache) filePath(model string) string {
	sum := sha256.Sum256([]byte(c.base + "\x00" + model))
	return filepath.Join(c.dir, strings.ReplaceAll(model, "/", "--")+"-"+hex.EncodeToString(sum[:8])+entrySuffix)
}

// loadEntry reads an entry. One that is not in order is as good as none.
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
	whole := e.Template.Default != "" || len(e.Template.Named) > 0
	ok := e.Format == cacheFormat && e.Base == c.base && e.Model == model && commitName.MatchString(e.Commit) && checkModel(e.ID) == nil && whole
	return e, ok
}

// findEntry is the entry that one of these callers may have, if the hub has said
// so since then; the zero time: ever.
func (c *diskCache) findEntry(model string, callers []string, since time.Time) (cacheEntry, bool) {
	e, ok := c.loadEntry(model)
	return e, ok && e.isAllowedFor(callers, since)
}

// storeEntry writes what the hub has said to a token, or to nobody.
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

// revokeCaller takes back what a caller may have, when the hub refuses it.
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

// saveEntry writes an entry whole or not at all. A cache that cannot be written is
// no reason to refuse what has been read.
func (c *diskCache) saveEntry(e cacheEntry, log *slog.Logger) {
	text, err := json.Marshal(e)
	if err == nil {
		err = writeAtomically(c.filePath(e.Model), text)
	}
	if err == nil {
		err = c.pruneEntries(time.Now())
	}
	if err != nil {
		log.Warn("what a model hub has said cannot be kept", "model", e.Model, "dir", c.dir, "err", err)
	}
}

func writeAtomically(file string, text []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(file), tempPrefix) // of mode 0600
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

// pruneEntries removes the entries written longest ago, when there are too many, and
// what a server that was killed has left.
func (c *diskCache) pruneEntries(now time.Time) error {
	all, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var kept []fs.FileInfo
	for _, one := range all {
		info, err := one.Info()
		switch {
		case err != nil || !info.Mode().IsRegular():
		case strings.HasPrefix(info.Name(), tempPrefix) && now.Sub(info.ModTime()) > tempLifetime:
			_ = os.Remove(filepath.Join(c.dir, info.Name()))
		case strings.HasSuffix(info.Name(), entrySuffix):
			kept = append(kept, info)
		}
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, old := range kept[min(len(kept), c.maxEntries):] {
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
