package ec2test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// metadataSessions are the tokens of a machine's metadata service, with their ends.
type metadataSessions map[string]time.Time

// Warn announces that a spot machine is taken back, as its metadata service says from now on. Interrupt takes it back.
func (s *Server) Warn(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, i := s.findInstance(id); i != nil {
		i.noticeAt = at
	}
}

// Metadata returns the metadata service of a machine, in version 2: a request needs a token.
func (s *Server) Metadata(id string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, i := s.findInstance(id)
		if i == nil {
			http.NotFound(w, hr)
			return
		}
		if hr.URL.Path == "/latest/api/token" {
			s.writeMetadataToken(w, hr, i)
			return
		}
		end, known := i.metadata[hr.Header.Get("X-aws-ec2-metadata-token")]
		if !known || s.now().After(end) {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		if body := s.describeMetadata(i, strings.TrimPrefix(hr.URL.Path, "/latest/")); body != "" {
			_, _ = w.Write([]byte(body))
			return
		}
		http.NotFound(w, hr)
	})
}

func (s *Server) writeMetadataToken(w http.ResponseWriter, hr *http.Request, i *instance) {
	seconds, err := strconv.Atoi(hr.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
	if hr.Method != http.MethodPut || err != nil || seconds < 1 || seconds > 21600 || hr.Header.Get("X-Forwarded-For") != "" {
		http.Error(w, "Bad Request", http.StatusBadRequest)
		return
	}
	if i.metadata == nil {
		i.metadata = metadataSessions{}
	}
	token := s.newID("token")
	i.metadata[token] = s.now().Add(time.Duration(seconds) * time.Second)
	w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", strconv.Itoa(seconds))
	_, _ = w.Write([]byte(token))
}

func (s *Server) describeMetadata(i *instance, path string) string {
	switch path {
	case "meta-data/instance-id":
		return i.ID
	case "meta-data/instance-type":
		return i.Type
	case "meta-data/placement/availability-zone":
		return i.Zone
	case "meta-data/placement/region":
		return i.Region
	case "meta-data/instance-life-cycle":
		if i.Spot {
			return "spot"
		}
		return "on-demand"
	case "meta-data/spot/instance-action":
		if !i.noticeAt.IsZero() {
			text, _ := json.Marshal(map[string]string{"action": "terminate", "time": i.noticeAt.UTC().Format("2006-01-02T15:04:05Z")})
			return string(text)
		}
	case "meta-data/spot/termination-time":
		if !i.noticeAt.IsZero() {
			return i.noticeAt.UTC().Format("2006-01-02T15:04:05Z")
		}
	case "meta-data/iam/security-credentials/":
		return i.Profile
	case "user-data":
		return string(i.UserData)
	case "dynamic/instance-identity/document":
		return fmt.Sprintf(`{"instanceId":%q,"region":%q,"availabilityZone":%q}`, i.ID, i.Region, i.Zone)
	}
	return ""
}
