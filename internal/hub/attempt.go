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
	listingLimit = 32 << 20 // repositories have up to tens of thousands of files
	configLimit  = 16 << 20 // some list a vocabulary
)

var commitName = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// asking is one caller's question for one model.
type asking struct {
	client *Client
	model  string
	token  string // empty: nobody's
}

// listing is what the hub says of a repository.
type listing struct {
	ID       string          `json:"id"`
	SHA      string          `json:"sha"`
	Private  bool            `json:"private"`
	Gated    json.RawMessage `json:"gated"` // false, or how it is: "auto", "manual"
	Siblings []struct {
		Name string `json:"rfilename"`
	} `json:"siblings"`
}

// open tells that everybody may read the files.
func (l listing) open() bool {
	gated := len(l.Gated) > 0 && !bytes.Equal(l.Gated, []byte("false")) && !bytes.Equal(l.Gated, []byte("null"))
	return !gated && !l.Private
}

// attempt asks the hub as one caller, and keeps what it says in the cache.
func (a asking) attempt(ctx context.Context) (entry, *trouble) {
	e, t := a.ask(ctx)
	switch {
	case t == nil:
		return a.client.cache.keep(e, a.token, a.client.opts.Log), nil
	case t.what.refuses():
		a.client.cache.forget(a.model, a.token, a.client.opts.Log)
	}
	return entry{}, t
}

func (a asking) ask(ctx context.Context) (entry, *trouble) {
	list, t := a.list(ctx)
	if t != nil {
		return entry{}, t
	}
	// The listing of a gated model is public. It alone lets nobody read.
	if known, ok := a.client.cache.load(a.model); ok && a.token == "" && known.Public && list.open() && known.Commit == list.SHA {
		known.ID, known.Asked = list.ID, time.Now().UTC()
		return known, nil
	}
	repo := repository{asking: a, id: list.ID, commit: list.SHA}
	for _, file := range list.Siblings {
		repo.files = append(repo.files, file.Name)
	}
	template, t := repo.template(ctx)
	if t != nil {
		return entry{}, t
	}
	return entry{
		Model: a.model, ID: list.ID, Commit: list.SHA, Public: a.token == "", Asked: time.Now().UTC(), Template: template,
	}, nil
}

// list asks what there is at main.
func (a asking) list(ctx context.Context) (listing, *trouble) {
	got, err := a.client.get(ctx, "api/models/"+a.model+"/revision/main", a.token, listingLimit)
	if errors.Is(err, errTooLarge) {
		return listing{}, a.unusable(dstack.TooLarge, fmt.Sprintf("its list of files is larger than %d MB", listingLimit>>20), err)
	}
	if err != nil {
		return listing{}, unreached(ctx, err)
	}
	if got.status != http.StatusOK {
		return listing{}, a.refused(got, "main")
	}
	var list listing
	if err := json.Unmarshal(got.body, &list); err != nil || !commitName.MatchString(list.SHA) {
		return listing{}, &trouble{what: away, why: "does not answer as a model hub does", Cause: err}
	}
	if checkModel(list.ID) != nil { // some mirrors say none
		list.ID = a.model
	}
	return list, nil
}

// refused is the trouble that an answer means.
func (a asking) refused(got answer, revision string) *trouble {
	t := refusal(got.status, got.header, a.token)
	if got.header.Get("X-Error-Code") == "RevisionNotFound" {
		return a.unusable(dstack.NotFound, fmt.Sprintf("it has no revision %s on %s (any more)", revision, a.client.base.Host), t.Cause)
	}
	return t
}

// unusable is the trouble of a repository that cannot give a template to
// anybody.
func (a asking) unusable(kind dstack.Kind, why string, cause error) *trouble {
	return &trouble{what: content, Cause: cause, told: &dstack.Error{
		Kind: kind, Message: fmt.Sprintf("cannot read the chat template of %s: %s", a.model, why),
		Hint: "set model.chat_template", Cause: cause,
	}}
}

// repository is a model's repository at one commit, for one caller.
type repository struct {
	asking
	id     string // its name now
	commit string
	files  []string // nil: the hub does not say
}

// read reads a file. None there is no trouble.
func (r repository) read(ctx context.Context, file string, limit int64) (text []byte, found bool, t *trouble) {
	if r.files != nil && !slices.Contains(r.files, file) {
		return nil, false, nil
	}
	got, err := r.client.get(ctx, r.id+"/resolve/"+r.commit+"/"+file, r.token, limit)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, false, r.unusable(dstack.TooLarge, fmt.Sprintf("its %s is larger than %d MB", file, limit>>20), err)
	case err != nil:
		return nil, false, unreached(ctx, err)
	case got.status == http.StatusOK:
		return got.body, true, nil
	}
	code := got.header.Get("X-Error-Code")
	if got.status == http.StatusNotFound && (code == "EntryNotFound" || code == "") {
		return nil, false, nil
	}
	return nil, false, r.refused(got, r.commit[:7])
}
