package hubtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

func (h *Hub) serveRequest(w http.ResponseWriter, r *http.Request, storage bool) {
	h.mu.Lock()
	h.requests = append(h.requests, Request{
		Host: r.Host, Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone(), Store: storage,
	})
	fault := h.takeFault(r.URL.Path)
	h.mu.Unlock()
	if fault != nil && h.applyFault(w, r, fault) {
		return
	}
	path, under := strings.CutPrefix(r.URL.Path, h.opts.Prefix+"/")
	if !under {
		http.NotFound(w, r)
		return
	}
	if storage {
		h.serveStoredFile(w, path)
		return
	}
	h.routeRequest(w, r, path)
}

// routeRequest authenticates a request and calls the handler of its path.
func (h *Hub) routeRequest(w http.ResponseWriter, r *http.Request, path string) {
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if given && !h.isKnownToken(token) {
		writeError(w, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
		return
	}
	if rest, ok := strings.CutPrefix(path, "api/resolve-cache/models/"); ok {
		h.serveCachedFile(w, rest, token)
		return
	}
	if rest, ok := strings.CutPrefix(path, "api/models/"); ok {
		name, revision, _ := strings.Cut(rest, "/revision/")
		h.serveListing(w, r, name, revision, token)
		return
	}
	if name, rest, ok := strings.Cut(path, "/resolve/"); ok {
		revision, file, _ := strings.Cut(rest, "/")
		h.redirectToFile(w, r, name, revision, file, token)
		return
	}
	http.NotFound(w, r)
}

// authorizeRepo returns a repository that the token may list. Otherwise it
// writes the error and returns false.
func (h *Hub) authorizeRepo(w http.ResponseWriter, r *http.Request, name, revision, token string) (Repo, bool) {
	repo, renamed, found := h.findRepo(name)
	reads := slices.Contains(repo.Readers, token)
	switch {
	case (!found || repo.Private && !reads) && token == "":
		writeError(w, http.StatusUnauthorized, "", "Invalid username or password.")
	case !found || repo.Private && !reads:
		writeError(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	case renamed:
		w.Header().Set("Location", strings.Replace(r.URL.Path, name, repo.Name, 1))
		w.WriteHeader(http.StatusTemporaryRedirect)
	case revision != "" && revision != "main" && revision != repo.Commit:
		writeError(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
	default:
		return repo, true
	}
	return Repo{}, false
}

func (h *Hub) serveListing(w http.ResponseWriter, r *http.Request, name, revision, token string) {
	repo, ok := h.authorizeRepo(w, r, name, revision, token)
	if !ok {
		return
	}
	listing := map[string]any{"sha": repo.Commit, "private": repo.Private, "gated": false}
	if repo.Gated {
		listing["gated"] = "manual"
	}
	if !repo.Bare {
		siblings := []map[string]string{}
		for _, file := range slices.Sorted(maps.Keys(repo.Files)) {
			siblings = append(siblings, map[string]string{"rfilename": file})
		}
		listing["id"], listing["siblings"] = repo.Name, siblings
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(listing)
}

// redirectToFile redirects to the location of a file: below the hub or on the
// storage host.
func (h *Hub) redirectToFile(w http.ResponseWriter, r *http.Request, name, revision, file, token string) {
	repo, ok := h.authorizeRepo(w, r, name, revision, token)
	if !ok || !mayReadFiles(w, repo, token) {
		return
	}
	w.Header().Set("X-Repo-Commit", repo.Commit)
	if _, ok := repo.Files[file]; !ok {
		writeError(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	location := fmt.Sprintf("%s/api/resolve-cache/models/%s/%s/%s", h.opts.Prefix, repo.Name, repo.Commit, file)
	if slices.Contains(repo.Stored, file) {
		location = h.storage.URL + h.opts.Prefix + "/" + repo.Name + "/" + file + "?signature=canary-signature"
	}
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// serveCachedFile serves a file. rest is org/model/commit/path.
func (h *Hub) serveCachedFile(w http.ResponseWriter, rest, token string) {
	for _, n := range []int{2, 1} {
		parts := strings.SplitN(rest, "/", n+2)
		if len(parts) < n+2 {
			continue
		}
		repo, _, found := h.findRepo(strings.Join(parts[:n], "/"))
		if text, ok := repo.Files[parts[n+1]]; found && ok && parts[n] == repo.Commit {
			if mayReadFiles(w, repo, token) {
				w.Header().Set("X-Repo-Commit", repo.Commit)
				_, _ = io.WriteString(w, text)
			}
			return
		}
	}
	writeError(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
}

// serveStoredFile serves a file of the storage, without authentication.
func (h *Hub) serveStoredFile(w http.ResponseWriter, path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, repo := range h.repos {
		file, ok := strings.CutPrefix(path, repo.Name+"/")
		if ok && slices.Contains(repo.Stored, file) {
			_, _ = io.WriteString(w, repo.Files[file])
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

// mayReadFiles reports whether the token may read the files of a repository,
// and writes the error if not.
func mayReadFiles(w http.ResponseWriter, repo Repo, token string) bool {
	restricted := "Access to model " + repo.Name + " is restricted"
	switch {
	case !repo.Gated && !repo.Private || slices.Contains(repo.Readers, token):
		return true
	case token == "":
		writeError(w, http.StatusUnauthorized, "GatedRepo", restricted+
			". You must have access to it and be authenticated to access it. Please log in.")
	default:
		writeError(w, http.StatusForbidden, "GatedRepo", restricted+" and you are not in the authorized list.")
	}
	return false
}

func writeError(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}
