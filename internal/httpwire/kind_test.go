package httpwire_test

import (
	"testing"

	"dstack/internal/httpwire"
)

func TestParseFindsKinds(t *testing.T) {
	for name, want := range map[string]httpwire.FieldKind{
		"Host": httpwire.Host, "hOST": httpwire.Host, "Content-Length": httpwire.ContentLength,
		"transfer-encoding": httpwire.TransferEncoding, "CONNECTION": httpwire.Connection, "Keep-Alive": httpwire.KeepAlive,
		"Proxy-Connection": httpwire.ProxyField, "Proxy-Authenticate": httpwire.ProxyField,
		"Proxy-Authorization": httpwire.ProxyField, "Upgrade": httpwire.Upgrade, "te": httpwire.TE, "Trailer": httpwire.Trailer,
		"Expect": httpwire.Expect, "authorization": httpwire.Authorization, "X-Api-Key": httpwire.APIKey,
		"Cookie": httpwire.Cookie, "Set-Cookie": httpwire.SetCookie, "Content-Type": httpwire.ContentType,
		"Content-Encoding": httpwire.ContentEncoding, "Accept": httpwire.Accept, "Accept-Encoding": httpwire.AcceptEncoding,
		"Origin": httpwire.Origin, "Location": httpwire.Location, "Content-Location": httpwire.Location,
		"x-request-id": httpwire.RequestID, "HTTP2-Settings": httpwire.HTTP2Setting, "Cache-Control": httpwire.CacheControl,
		"X-Accel-Redirect": httpwire.Accel, "x-accel-buffering": httpwire.Other, "Retry-After": httpwire.RetryAfter,
		"Server-Timing": httpwire.ServerTiming, "Date": httpwire.Date,
		// In any spelling that an application may take for them.
		"Forwarded": httpwire.Forwarded, "FORWARDED": httpwire.Forwarded, "X-Forwarded-For": httpwire.Forwarded,
		"X_Forwarded_For": httpwire.Forwarded, "x.forwarded~host": httpwire.Forwarded, "X-ForwardedFor": httpwire.Forwarded,
		"X-Forwarded": httpwire.Forwarded, "X-Real-IP": httpwire.Forwarded, "X_REAL_IP": httpwire.Forwarded,
		"X_Request_Id": httpwire.Forwarded, "x-request_id": httpwire.Forwarded, "X-Dstack-Anything": httpwire.Forwarded,
		"x_dstack_": httpwire.Forwarded,
		// Others.
		"X-Forward": httpwire.Other, "X-Real-Ip2": httpwire.Other, "XX-Forwarded-For": httpwire.Other, "Forwarded-For": httpwire.Other,
		"Content_Length": httpwire.Other, "X-Accel": httpwire.Other, "User-Agent": httpwire.Other, "X": httpwire.Other,
		"Fforwarded": httpwire.Other, "X-Dstack": httpwire.Other,
	} {
		var h httpwire.RequestHead
		text := "GET / HTTP/1.0\r\n" + name + ": 1\r\n\r\n"
		if name == "transfer-encoding" {
			text = "GET / HTTP/1.1\r\nHost: a\r\n" + name + ": chunked\r\n\r\n"
		}
		n, err := h.Parse([]byte(text))
		if n == 0 || err != nil || h.Fields[len(h.Fields)-1].Kind != want {
			t.Errorf("%s: %v, want kind %d: %+v", name, err, want, h.Fields)
		}
	}
}
