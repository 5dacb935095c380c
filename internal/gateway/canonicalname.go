package gateway

import (
	"net/http"
	"strings"
)

// canonicalNames has the canonical form of common response fields by the names that replicas write. Looking it up takes
// no memory.
var canonicalNames = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{"Accept-Ranges", "Access-Control-Allow-Origin", "Age", "Allow", "Cache-Control", "Content-Disposition",
		"Content-Encoding", "Content-Language", "Content-Length", "Content-Location", "Content-Range", "Content-Security-Policy",
		"Content-Type", "Date", "Etag", "Expires", "Last-Modified", "Link", "Location", "Pragma", "Referrer-Policy", "Retry-After",
		"Server", "Set-Cookie", "Strict-Transport-Security", "Vary", "Via", "X-Accel-Buffering", "X-Content-Type-Options",
		"X-Frame-Options", "X-Powered-By", "X-Process-Time"} {
		names[name], names[strings.ToLower(name)] = name, name
	}
	names["ETag"] = "Etag"
	return names
}()

// canonicalName returns http.CanonicalHeaderKey of a name.
func canonicalName(name []byte) string {
	if known, ok := canonicalNames[string(name)]; ok {
		return known
	}
	return http.CanonicalHeaderKey(string(name))
}
