package ec2test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxSkew is how far the clock of a client may be off.
const maxSkew = 15 * time.Minute

// parseScope returns the parts of the Credential of a signature: key, date, region, service, aws4_request.
func parseScope(hr *http.Request) []string {
	_, rest, _ := strings.Cut(hr.Header.Get("Authorization"), "Credential=")
	credential, _, _ := strings.Cut(rest, ",")
	return strings.Split(strings.TrimSpace(credential), "/")
}

// authorize checks the signature, the clock and the rights of a request.
func (s *Server) authorize(hr *http.Request, body []byte, r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, known := s.options.Keys[r.key]
	date := hr.Header.Get("X-Amz-Date")
	sent, err := time.Parse("20060102T150405Z", date)
	switch {
	case !known && r.service == "sts":
		return &apiError{403, "InvalidClientTokenId", "The security token included in the request is invalid."}
	case !known && r.service == "ec2" || !known && r.service == "":
		return &apiError{401, "AuthFailure", "AWS was not able to validate the provided access credentials"}
	case !known:
		return &apiError{400, "UnrecognizedClientException", "The security token included in the request is invalid."}
	case key.IsExpired && r.service == "sts":
		return &apiError{403, "ExpiredToken", "The security token included in the request is expired"}
	case key.IsExpired: // EC2 has one code for old credentials and for clocks that are off
		return &apiError{400, "RequestExpired", "Request has expired."}
	case err != nil || s.options.Now().Sub(sent).Abs() > maxSkew:
		return &apiError{400, "RequestExpired", "Request has expired. Timestamp date is " + date}
	case !isSigned(hr, body, key.Secret):
		if r.service == "ec2" {
			return &apiError{401, "AuthFailure", "AWS was not able to validate the provided access credentials"}
		}
		return &apiError{403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."}
	case isDenied(key, r):
		return s.denied(r)
	case s.regions[r.region] == nil && r.service == "ec2":
		return &apiError{401, "AuthFailure", "AWS was not able to validate the provided access credentials"} // a region that is not enabled
	}
	return nil
}

func isDenied(key Key, r *request) bool {
	return slices.ContainsFunc(key.Denied, func(pattern string) bool { return matchPattern(pattern, r.service+":"+r.action) })
}

func (s *Server) denied(r *request) error {
	user := fmt.Sprintf("User: arn:aws:iam::%s:user/dstack is not authorized to perform: %s:%s", s.options.Account, r.service, r.action)
	why := " because no identity-based policy allows the " + r.service + ":" + r.action + " action"
	if r.service != "ec2" {
		return &apiError{400, "AccessDeniedException", user + why}
	}
	return &apiError{403, "UnauthorizedOperation", "You are not authorized to perform this operation. " + user + why +
		". Encoded authorization failure message: ec2test"}
}

// isSigned checks a signature of version 4.
func isSigned(hr *http.Request, body []byte, secret string) bool {
	header := hr.Header.Get("Authorization")
	_, rest, _ := strings.Cut(header, "SignedHeaders=")
	names, _, _ := strings.Cut(rest, ",")
	_, signature, _ := strings.Cut(header, "Signature=")
	scope := parseScope(hr)
	if len(scope) != 5 {
		return false
	}
	canonical := []string{hr.Method, hr.URL.EscapedPath(), strings.ReplaceAll(hr.URL.Query().Encode(), "+", "%20")}
	for _, name := range strings.Split(names, ";") {
		value := hr.Header.Get(name)
		switch name {
		case "host":
			value = hr.Host
		case "content-length":
			value = fmt.Sprint(hr.ContentLength)
		}
		canonical = append(canonical, name+":"+strings.Join(strings.Fields(value), " "))
	}
	canonical = append(canonical, "", names, hexSum(body))
	toSign := strings.Join([]string{
		"AWS4-HMAC-SHA256", hr.Header.Get("X-Amz-Date"), strings.Join(scope[1:], "/"), hexSum([]byte(strings.Join(canonical, "\n"))),
	}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range append(scope[1:], toSign) {
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(part)) // never fails
		key = mac.Sum(nil)
	}
	return hmac.Equal([]byte(hex.EncodeToString(key)), []byte(strings.TrimSpace(signature)))
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
