package gateway

import (
	"net/url"
	"slices"
	"strings"
)

// addPathPrefix adds the prefix base to a redirect of an application that does not
// know it. Redirects that have the prefix, are relative, or lead to another host
// stay unchanged. hosts are those by which the client and the application know this
// one.
func addPathPrefix(base string, hosts []string, to string) string {
	origin, path := "", to
	if at := strings.Index(to, "//"); at == 0 || (at > 0 && to[0] != '/' && to[at-1] == ':') {
		u, err := url.Parse(to)
		isOwn := func(host string) bool { return err == nil && strings.EqualFold(u.Host, host) }
		if !slices.ContainsFunc(hosts, isOwn) || (u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https") {
			return to
		}
		rest := to[at+2:]
		slash := strings.IndexAny(rest, "/?#")
		if slash < 0 {
			slash = len(rest)
		}
		origin, path = to[:at+2+slash], rest[slash:]
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
	}
	if !strings.HasPrefix(path, "/") || hasPathPrefix(base, path) {
		return to
	}
	return origin + base + path
}

// hasPathPrefix reports whether a path is base itself or below it.
func hasPathPrefix(base, path string) bool {
	rest, ok := strings.CutPrefix(path, base)
	return ok && (rest == "" || rest[0] == '/' || rest[0] == '?' || rest[0] == '#')
}

// scopeCookie limits a cookie to the service that sets it: it removes the domain,
// which services share, and puts the path below base where they share a host.
func scopeCookie(cookie, base string) string {
	parts := strings.Split(cookie, ";")
	kept := parts[:1]
	pathed := false
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case strings.EqualFold(name, "domain"):
			continue
		case strings.EqualFold(name, "path") && base != "":
			pathed = true
			if value = strings.TrimSpace(value); !hasPathPrefix(base, value) {
				part = " Path=" + base + "/" + strings.TrimPrefix(value, "/")
			}
		}
		kept = append(kept, part)
	}
	if base != "" && !pathed {
		kept = append(kept, " Path="+base+"/")
	}
	return strings.Join(kept, ";")
}
