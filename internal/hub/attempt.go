package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"dstack/internal/dstack"
)

const (
	maxListing = 32 << 20 // repositories have up to tens of thousands of files
	maxConfig  = 16 << 20 // some list a vocabulary
)

var commitName = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// query is one caller's question for one model.
type query struct {
	client *Client
	model  string
	token  string // empty: nobody's
}

// modelListing is what the hub says of a repository.
type modelListing struct {
	ID       string          `json:"id"`
	SHA      string          `json:"sha"`
	Private  bool            `json:"private"`
	Gated    json.RawMessage `json:"gated"` // false, or how it is: "auto", "manual"
	Siblings []struct {
		Name string `json:"rfilename"`
	} `json:"siblings"`
}

// isOpen tells that everybody may read the files.
func (l modelListing) isOpen() bool {
	gated := len(l.Gated) > 0 && !bytes.Equal(l.Gated, []byte("false")) && !bytes.Equal(l.Gated, []byte("null"))
	return !gated && !l.Private
}

// askAndCache asks the hub as one caller, and keeps what it says in the cache.
func (a query) askAndCache(ctx context.Context) (cacheEntry, *hubError) {
	e, t := a.readModel(ctx)
	switch {
	case t == nil:
		return a.client.cache.storeEntry(e, a.token, a.client.opts.Log), nil
	case t.kind.isRefusal():
		a.client.cache.revokeCaller(a.model, a.token, a.client.opts.Log)
	}
	return cacheEntry{}, t
}

func (a query) readModel(ctx context.Context) (cacheEntry, *hubError) {
	list, t := a.readListing(ctx)
	if t != nil {
		return cacheEntry{}, t
	}
	// The listing of a gated model is public. It alone lets nobody read.
	if known, ok := a.client.cache.loadEntry(a.model); ok && a.token == "" && known.Public && list.isOpen() && known.Commit == list.SHA {
		known.ID, known.Asked = list.ID, time.Now().UTC()
		return known, nil
	}
	repo := repository{query: a, id: list.ID, commit: list.SHA}
	for _, file := range list.Siblings {
		repo.files = append(repo.files, file.Name)
	}
	template, t := repo.readTemplate(ctx)
	if t != nil {
		return cacheEntry{}, t
	}
	return cacheEntry{
		Model: a.model, ID: list.ID, Commit: list.SHA, Public: a.token == "", Asked: time.Now().UTC(), Template: template,
	}, nil
}

// readListing asks what there is at main.
func (a query) readListing(ctx context.Context) (modelListing, *hubError) {
	got, err := a.client.fetchPage(ctx, "api/models/"+a.model+"/revision/main", a.token, maxListing)
	if errors.Is(err, errTooLarge) {
		return modelListing{}, a.unusableError(dstack.TooLarge, fmt.Sprintf("its list of files is larger than %d MB", maxListing>>20), err)
	}
	if err != nil {
		return modelListing{}, connectionError(ctx, err)
	}
	if got.status != http.StatusOK {
		return modelListing{}, a.errorOfStatus(got, "main")
	}
	var list modelListing
	if err := json.Unmarshal(got.body, &list); err != nil || !commitName.MatchString(list.SHA) {
		return modelListing{}, &hubError{kind: kindUnavailable, reason: "does not answer as a model hub does", Cause: err}
	}
	if checkModel(list.ID) != nil { // some mirrors say none
		list.ID = a.model
	}
	return list, nil
}

// errorOfStatus is the trouble that an answer means.
func (a query) errorOfStatus(got response, revision string) *hubError {
	t := statusError(got.status, got.header, a.token)
	if got.header.Get("X-Error-Code") == "RevisionNotFound" {
		return a.unusableError(dstack.NotFound, fmt.Sprintf("it has no revision %s on %s (any more)", revision, a.client.base.Host), t.Cause)
	}
	return t
}

// unusableError is the trouble of a repository that cannot give a template to
// anybody.
func (a query) unusableError(kind dstack.Kind, why string, cause error) *hubError {
	return &hubError{kind: kindUnusable, Cause: cause, userError: &dstack.Error{
		Kind: kind, Message: fmt.Sprintf("cannot read the chat template of %s: %s", a.model, why),
		Hint: "set model.chat_template", Cause: cause,
	}}
}

// repository is a model's repository at one commit, for one caller.
type repository struct {
	query
	id     string // its name now
	commit string
	files  []string // nil: the hub does not say
}

// readFile reads a file. None there is no trouble.
func (r repository) readFile(ctx context.Context, file string, limit int64) (text []byte, found bool, t *hubError) {
	if r.files != nil && !slices.Contains(r.files, file) {
		return nil, false, nil
	}
	got, err := r.client.fetchPage(ctx, r.id+"/resolve/"+r.commit+"/"+file, r.token, limit)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, false, r.unusableError(dstack.TooLarge, fmt.Sprintf("its %s is larger than %d MB", file, limit>>20), err)
	case err != nil:
		return nil, false, connectionError(ctx, err)
	case got.status == http.StatusOK:
		return got.body, true, nil
	}
	code := got.header.Get("X-Error-Code")
	if got.status == http.StatusNotFound && (code == "EntryNotFound" || code == "") {
		return nil, false, nil
	}
	return nil, false, r.errorOfStatus(got, r.commit[:7])
}
