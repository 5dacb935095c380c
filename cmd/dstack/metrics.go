package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

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
	all := prometheus.NewRegistry()
	all.MustRegister(g.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	all.MustRegister(more...)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{}))
	srv := frontend.NewServer(mux, frontend.ServerOptions{Log: log})
	srv.WriteTimeout = metricsTimeout
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // Prometheus reads again
	err := srv.Serve(listener)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
