package httpwire

// knownNames are the names with a kind by their length, in lower case.
var knownNames = [20][]struct {
	name string
	kind FieldKind
}{
	2:  {{"te", TE}},
	4:  {{"host", Host}, {"date", Date}},
	6:  {{"accept", Accept}, {"cookie", Cookie}, {"expect", Expect}, {"origin", Origin}},
	7:  {{"upgrade", Upgrade}, {"trailer", Trailer}},
	8:  {{"location", Location}},
	9:  {{"x-api-key", APIKey}},
	10: {{"connection", Connection}, {"set-cookie", SetCookie}, {"keep-alive", KeepAlive}},
	11: {{"retry-after", RetryAfter}},
	12: {{"content-type", ContentType}, {"x-request-id", RequestID}},
	13: {{"authorization", Authorization}, {"cache-control", CacheControl}, {"server-timing", ServerTiming}},
	14: {{"content-length", ContentLength}, {"http2-settings", HTTP2Setting}},
	15: {{"accept-encoding", AcceptEncoding}},
	16: {{"content-encoding", ContentEncoding}, {"content-location", Location}, {"proxy-connection", ProxyField}},
	17: {{"transfer-encoding", TransferEncoding}},
	18: {{"proxy-authenticate", ProxyField}},
	19: {{"proxy-authorization", ProxyField}},
}

// findKind returns the kind of a field. The name is a token.
func findKind(name []byte) FieldKind {
	if len(name) < len(knownNames) {
		for _, known := range knownNames[len(name)] {
			if known.name[0] == name[0]|0x20 && equalFold(name, known.name) {
				return known.kind
			}
		}
	}
	switch name[0] | 0x20 {
	case 'f':
		if equalFold(name, "forwarded") {
			return Forwarded
		}
	case 'x':
		return findExtensionKind(name)
	}
	return Other
}

// findExtensionKind returns the kind of a field whose name begins with x. Many applications do not distinguish X-Real-IP
// from x_real_ip.
func findExtensionKind(name []byte) FieldKind {
	switch {
	case len(name) > 8 && equalFold(name[:8], "x-accel-"):
		if equalFold(name, "x-accel-buffering") {
			return Other
		}
		return Accel
	case hasNormalizedPrefix(name, "x-forwarded"), hasNormalizedPrefix(name, "x-dstack-"),
		len(name) == 9 && hasNormalizedPrefix(name, "x-real-ip"),
		len(name) == 12 && hasNormalizedPrefix(name, "x-request-id"):
		return Forwarded
	}
	return Other
}

// hasNormalizedPrefix reports whether a name begins with a prefix, where everything but letters and digits counts as a dash.
func hasNormalizedPrefix(name []byte, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case 'a' <= c && c <= 'z', isDigit(c):
		default:
			c = '-'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}
