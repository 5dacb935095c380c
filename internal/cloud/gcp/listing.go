package gcp

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxPage is the most objects that the API puts on a page.
const maxPage = "500"

// listEverywhere reads the objects of all zones or regions. kind is as in the API's paths: instances. A place that does
// not answer makes the listing an error.
func listEverywhere[T any](ctx context.Context, p *Provider, project, kind, filter, fields, what string) ([]T, error) {
	query := url.Values{"maxResults": {maxPage}}
	if filter != "" {
		query.Set("filter", filter)
	}
	if fields != "" {
		query.Set("fields", "items/*/warning,items/*/"+kind+"("+fields+"),nextPageToken,unreachables,warning")
	}
	var found []T
	r := call{method: http.MethodGet, url: p.client.compute + "projects/" + project + "/aggregated/" + kind, query: query, what: what}
	err := p.client.listPages(ctx, r, func(answer []byte) (string, error) {
		var page struct {
			Items         map[string]map[string]json.RawMessage `json:"items"`
			NextPageToken string                                `json:"nextPageToken"`
			Unreachables  []string                              `json:"unreachables"`
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			return "", err
		}
		if len(page.Unreachables) > 0 {
			return "", fmt.Errorf("%s: %w", lastPart(page.Unreachables[0]), errIncomplete)
		}
		for _, scope := range slices.Sorted(maps.Keys(page.Items)) {
			items, err := readScope[T](page.Items[scope], kind)
			if err != nil {
				return "", fmt.Errorf("%s: %w", lastPart(scope), err)
			}
			found = append(found, items...)
		}
		return page.NextPageToken, nil
	})
	return found, err
}

// readScope reads the part of a listing that one zone or region answered.
func readScope[T any](scope map[string]json.RawMessage, kind string) ([]T, error) {
	var warning struct {
		Code string `json:"code"`
	}
	if raw := scope["warning"]; raw != nil {
		if err := json.Unmarshal(raw, &warning); err != nil {
			return nil, err
		}
	}
	if warning.Code == "UNREACHABLE" {
		return nil, errIncomplete
	}
	var items []T
	if raw := scope[kind]; raw != nil {
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// list reads the objects of one place. path is the end of the URL: zones/us-central1-a/machineTypes.
func list[T any](ctx context.Context, p *Provider, project, path, filter, fields, what string) ([]T, error) {
	query := url.Values{"maxResults": {maxPage}}
	if filter != "" {
		query.Set("filter", filter)
	}
	if fields != "" {
		query.Set("fields", "items("+fields+"),nextPageToken")
	}
	var found []T
	r := call{method: http.MethodGet, url: p.client.compute + "projects/" + project + "/" + path, query: query, what: what}
	err := p.client.listPages(ctx, r, func(answer []byte) (string, error) {
		var page struct {
			Items         []T    `json:"items"`
			NextPageToken string `json:"nextPageToken"`
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			return "", err
		}
		found = append(found, page.Items...)
		return page.NextPageToken, nil
	})
	return found, err
}

// read reads one object. path is the end of its URL; empty: the project itself.
func read[T any](ctx context.Context, p *Provider, project, path, fields, what string) (T, error) {
	var found T
	query := url.Values{}
	if fields != "" {
		query.Set("fields", fields)
	}
	target := strings.TrimSuffix(p.client.compute+"projects/"+project+"/"+path, "/")
	err := p.client.send(ctx, call{method: http.MethodGet, url: target, query: query, what: what}, &found)
	return found, err
}

// parseOperations reads a page of the operations of all places.
func parseOperations(answer []byte) (operations []operation, next string, err error) {
	var page struct {
		Items map[string]struct {
			Operations []operation `json:"operations"`
		} `json:"items"`
		NextPageToken string `json:"nextPageToken"`
	}
	if err := json.Unmarshal(answer, &page); err != nil {
		return nil, "", err
	}
	for _, scope := range slices.Sorted(maps.Keys(page.Items)) {
		operations = append(operations, page.Items[scope].Operations...)
	}
	return operations, page.NextPageToken, nil
}

// zoneOf returns the zone in a URL or path of an object; empty: it has none.
func zoneOf(url string) string {
	_, rest, _ := strings.Cut(url, "/zones/")
	zone, _, _ := strings.Cut(rest, "/")
	return zone
}
