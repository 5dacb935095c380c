package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"dstack/internal/gateway"
)

// The answer has the metrics of the gateway, of Go, and those of more collectors, as Prometheus reads them.
func TestMetricsHandler(t *testing.T) {
	own := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dstack_own", Help: "A test's own."})
	own.Set(7)
	h := newMetricsHandler(gateway.New(gateway.Options{Control: fixedPlane{}}), slog.New(slog.DiscardHandler), own)
	for range 2 { // the second answer has the buffer of the first
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if got := rec.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
			t.Error(got)
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(rec.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"dstack_own", "go_goroutines", "process_open_fds", "dstack_fast_path_requests_total"} {
			if families[name] == nil {
				t.Errorf("%s is missing", name)
			}
		}
	}
}
