package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"dstack/internal/frontend"
	"dstack/internal/gateway"
)

// listenForMetrics serves /metrics on its own address until ctx ends: callers of
// services must not read it.
func (d *daemon) listenForMetrics(ctx context.Context) error {
	return serveMetrics(ctx, d.metricsListener, d.gateway, d.log, cloudCollector{d}, newCostCollector(d.store, d.log))
}

// serveMetrics serves /metrics of a gateway, and more, until ctx ends.
func serveMetrics(ctx context.Context, listener net.Listener, g *gateway.Gateway, log *slog.Logger, more ...prometheus.Collector) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", newMetricsHandler(g, log, more...))
	srv := frontend.NewServer(mux, frontend.ServerOptions{Log: log})
	srv.WriteTimeout = metricsTimeout
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // Prometheus reads again
	err := srv.Serve(listener)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// metricsHandler answers with metrics in the text format of Prometheus, which all of its versions read. A gateway writes its own
// lines: the registry of Prometheus' library would take most of the time for a thousand services. They are not compressed, which
// would take more time than all the rest.
type metricsHandler struct {
	gateway *gateway.Gateway
	others  *prometheus.Registry
	log     *slog.Logger
	buffers sync.Pool // of *bytes.Buffer
}

func newMetricsHandler(g *gateway.Gateway, log *slog.Logger, more ...prometheus.Collector) *metricsHandler {
	others := prometheus.NewRegistry()
	others.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	others.MustRegister(more...)
	return &metricsHandler{gateway: g, others: others, log: log, buffers: sync.Pool{New: func() any { return &bytes.Buffer{} }}}
}

func (h *metricsHandler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	buffer := h.buffers.Get().(*bytes.Buffer)
	defer h.buffers.Put(buffer)
	buffer.Reset()
	if err := h.writeOthers(buffer); err != nil {
		h.log.Warn("cannot collect metrics", "err", err)
		http.Error(w, "cannot collect metrics: "+err.Error(), http.StatusInternalServerError)
		return
	}
	text := h.gateway.AppendMetrics(buffer.Bytes())
	*buffer = *bytes.NewBuffer(text) // it may have moved
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // Prometheus reads again
}

// writeOthers writes the metrics that a registry collects.
func (h *metricsHandler) writeOthers(to *bytes.Buffer) error {
	families, err := h.others.Gather()
	if err != nil {
		return err
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(to, family); err != nil {
			return err
		}
	}
	return nil
}
