package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/loop"
)

// The models of the slow gateway. Both respond after several newlines, one of
// them with an error.
const (
	slowModel   = "slow"
	brokenModel = "broken"

	slowGatewayToken = "the-token-of-the-slow-gateway"
)

// startSlowGateway starts a gateway whose newlines come after a moment instead of
// four minutes, and returns its base URL. The server has no such setting, so the
// gateway runs in the test.
func startSlowGateway(t *testing.T) string {
	t.Helper()
	respond := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		time.Sleep(1500 * time.Millisecond)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.Contains(string(body), `"`+brokenModel+`"`):
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":{"message":"the model is broken","type":"invalid_request_error"}}`)
		case strings.HasSuffix(r.URL.Path, "/messages"):
			fmt.Fprintf(w, `{"id":"msg_1","type":"message","role":"assistant","model":"slow","content":[{"type":"text","text":%q}],`+
				`"stop_reason":"end_turn","usage":{"input_tokens":8,"output_tokens":5}}`, clientAnswer)
		default:
			fmt.Fprintf(w, `{"id":"chatcmpl-1","object":"chat.completion","created":1721997296,"model":"slow","choices":[{"index":0,`+
				`"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":5,"total_tokens":13}}`, clientAnswer)
		}
	}
	replica := httptest.NewServer(http.HandlerFunc(respond))
	t.Cleanup(replica.Close)
	table := route.Table{Version: 1, Tokens: map[string][]string{hashToken(slowGatewayToken): {"main"}}}
	for _, model := range []string{slowModel, brokenModel} {
		table.Routes = append(table.Routes, route.Route{Run: dstack.RunID(model), Project: "main", Name: model, Auth: true, Since: 1,
			Model: model, Prefix: "/v1", Ready: []route.Target{{Endpoint: dstack.Endpoint{Address: replica.Listener.Addr().String()}}}})
	}
	g := gateway.New(gateway.Options{Control: fixedTable{table}, Log: slog.New(slog.DiscardHandler),
		Limits: gateway.Limits{NewlineAfter: 300 * time.Millisecond, NewlineInterval: 200 * time.Millisecond}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx, g.Tasks()...) }()
	server := httptest.NewServer(g)
	t.Cleanup(func() {
		server.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return server.URL + "/v1"
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// fixedTable is a control plane with one table.
type fixedTable struct{ table route.Table }

func (f fixedTable) Table(ctx context.Context, since uint64) (route.Table, error) {
	if since != f.table.Version {
		return f.table, nil
	}
	<-ctx.Done()
	return route.Table{}, ctx.Err()
}

func (fixedTable) Report(context.Context, dstack.LoadReport) (dstack.LoadAnswer, error) {
	return dstack.LoadAnswer{}, nil
}
