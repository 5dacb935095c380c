package computetest

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metadata returns the metadata service of a machine. A request needs the header Metadata-Flavor: Google.
func (s *Server) Metadata(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if hr.Header.Get("Metadata-Flavor") != "Google" || hr.Header.Get("X-Forwarded-For") != "" {
			http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
			return
		}
		s.mu.Lock()
		i := s.findInstance(name)
		s.mu.Unlock()
		if i == nil {
			http.NotFound(w, hr)
			return
		}
		switch path := strings.TrimPrefix(hr.URL.Path, "/computeMetadata/v1/"); path {
		case "instance/preempted":
			s.writePreempted(w, hr, i)
		case "instance/name":
			_, _ = w.Write([]byte(i.Name))
		case "instance/zone":
			_, _ = w.Write([]byte("projects/1/zones/" + i.Zone))
		case "instance/attributes/user-data":
			_, _ = w.Write(i.UserData)
		default:
			http.NotFound(w, hr)
		}
	})
}

// writePreempted answers whether the machine is taken back; with wait_for_change as soon as that changes.
func (s *Server) writePreempted(w http.ResponseWriter, hr *http.Request, i *instance) {
	if query := hr.URL.Query(); query.Get("wait_for_change") == "true" && query.Get("last_etag") != "1" {
		seconds, err := strconv.Atoi(query.Get("timeout_sec"))
		if err != nil {
			seconds = 300
		}
		select {
		case <-i.isPreempted:
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-hr.Context().Done():
		case <-s.ctx.Done():
		}
	}
	select {
	case <-i.isPreempted:
		w.Header().Set("ETag", "1")
		_, _ = w.Write([]byte("TRUE"))
	default:
		w.Header().Set("ETag", "0")
		_, _ = w.Write([]byte("FALSE"))
	}
}
