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
	"dstack/internal/human"
)

const (
	maxListing = 32 << 20 // some repositories have tens of thousands of files
	maxConfig  = 16 << 20 // some contain a vocabulary
)

var commitName = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// query reads the chat template of one model with one token.
type query struct {
	client *Client
	model  string
	token  string // empty for anonymous access
}

// modelListing is the hub's description of a repository.
type modelListing struct {
	ID       string          `json:"id"`
	SHA      string          `json:"sha"`
	Private  bool            `json:"private"`
	Gated    json.RawMessage `json:"gated"` // false, "auto" or "manual"
	Siblings []struct {
		Name string `json:"rfilename"`
	} `json:"siblings"`
}

// isOpen reports whether anonymous callers may read the files.
func (l modelListing) isOpen() bool {
	gated := len(l.Gated) > 0 && !bytes.Equal(l.Gated, []byte("false")) && !bytes.Equal(l.Gated, []byte("null"))
	return !gated && !l.Private
}

// askAndCache reads the template from the hub and stores it in the cache. A
// refusal removes the caller's access to the cached copy.
func (q query) askAndCache(ctx context.Context) (cacheEntry, *hubError) {
	e, failure := q.readModel(ctx)
	switch {
	case failure == nil:
		return q.client.cache.storeEntry(e, q.token, q.client.opts.Log), nil
	case failure.kind.isRefusal():
		q.client.cache.revokeCaller(q.model, q.token, q.client.opts.Log)
	}
	return cacheEntry{}, failure
}

func (q query) readModel(ctx context.Context) (cacheEntry, *hubError) {
	list, failure := q.readListing(ctx)
	if failure != nil {
		return cacheEntry{}, failure
	}
	// A gated model's file list is public, but its files are not.
	if known, ok := q.client.cache.loadEntry(q.model); ok && q.token == "" && known.Public && list.isOpen() && known.Commit == list.SHA {
		known.ID, known.Asked = list.ID, time.Now().UTC()
		return known, nil
	}
	repo := repository{query: q, id: list.ID, commit: list.SHA}
	for _, file := range list.Siblings {
		repo.files = append(repo.files, file.Name)
	}
	template, failure := repo.readTemplate(ctx)
	if failure != nil {
		return cacheEntry{}, failure
	}
	return cacheEntry{
		Model: q.model, ID: list.ID, Commit: list.SHA, Public: q.token == "", Asked: time.Now().UTC(), Template: template,
	}, nil
}

// readListing reads the listing of the branch main.
func (q query) readListing(ctx context.Context) (modelListing, *hubError) {
	got, err := q.client.fetchPage(ctx, "api/models/"+q.model+"/revision/main", q.token, maxListing)
	if errors.Is(err, errTooLarge) {
		return modelListing{}, q.unusableError(dstack.TooLarge, "its list of files is larger than "+human.Bytes(maxListing), err)
	}
	if err != nil {
		return modelListing{}, connectionError(ctx, err)
	}
	if got.status != http.StatusOK {
		return modelListing{}, q.errorOfStatus(got, "main")
	}
	var list modelListing
	if err := json.Unmarshal(got.body, &list); err != nil || !commitName.MatchString(list.SHA) {
		return modelListing{}, &hubError{kind: kindUnavailable, reason: "did not respond like a model hub", Cause: err}
	}
	if checkModel(list.ID) != nil { // some mirrors leave it out
		list.ID = q.model
	}
	return list, nil
}

// errorOfStatus returns the error for a response whose status is not 200.
func (q query) errorOfStatus(got response, revision string) *hubError {
	failure := statusError(got.status, got.header, q.token)
	if got.header.Get("X-Error-Code") == "RevisionNotFound" {
		return q.unusableError(dstack.NotFound, fmt.Sprintf("it has no revision %s on %s", revision, q.client.base.Host), failure.Cause)
	}
	return failure
}

// unusableError returns the error for a repository without a usable template.
// Another token would not help.
func (q query) unusableError(kind dstack.Kind, why string, cause error) *hubError {
	return &hubError{kind: kindUnusable, Cause: cause, userError: &dstack.Error{
		Kind: kind, Message: fmt.Sprintf("cannot read the chat template of %s: %s", q.model, why),
		Hint: "set model.chat_template", Cause: cause,
	}}
}

// repository is a model's repository at one commit, read with one token.
type repository struct {
	query
	id     string // the current name, which differs after a rename
	commit string
	files  []string // nil if the hub does not list them
}

// readFile reads a file of the repository. A missing file is not an error;
// found is false then.
func (r repository) readFile(ctx context.Context, file string, limit int64) (text []byte, found bool, failure *hubError) {
	if r.files != nil && !slices.Contains(r.files, file) {
		return nil, false, nil
	}
	got, err := r.client.fetchPage(ctx, r.id+"/resolve/"+r.commit+"/"+file, r.token, limit)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, false, r.unusableError(dstack.TooLarge, fmt.Sprintf("its %s is larger than %s", file, human.Bytes(limit)), err)
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
