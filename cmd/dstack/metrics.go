package main

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dstack/internal/frontend"
)

// listenForMetrics serves /metrics on its own address until ctx ends: callers of
// services must not read it.
func (d *daemon) listenForMetrics(ctx context.Context) error {
	all := prometheus.NewRegistry()
	all.MustRegister(d.gateway.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{}))
	srv := frontend.NewServer(mux, frontend.ServerOptions{Log: d.log})
	srv.WriteTimeout = metricsTimeout
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // Prometheus reads again
	err := srv.Serve(d.metricsListener)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
