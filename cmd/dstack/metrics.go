package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// listenForMetrics serves /metrics on its own address until ctx ends: callers of
// services must not read it.
func (h *house) listenForMetrics(ctx context.Context) error {
	all := prometheus.NewRegistry()
	all.MustRegister(h.gateway.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{}))
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerWait, IdleTimeout: idleWait, WriteTimeout: shutdownWait, MaxHeaderBytes: headerBytes,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // Prometheus reads again
	err := srv.Serve(h.meters)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
