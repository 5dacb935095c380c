package gateway_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// grpcChat is a method with streams in both directions: it returns every message, and ends with an error that a
// message asks for.
var grpcChat = grpc.ServiceDesc{ServiceName: "test.Chat", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
	StreamName: "Chat", ServerStreams: true, ClientStreams: true,
	Handler: func(_ any, stream grpc.ServerStream) error {
		if err := stream.SetHeader(metadata.Pairs("x-first", "early")); err != nil {
			return err
		}
		stream.SetTrailer(metadata.Pairs("x-last", "late"))
		for {
			var in healthpb.HealthCheckRequest
			if err := stream.RecvMsg(&in); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if in.Service == "fail" {
				return status.Error(codes.ResourceExhausted, "enough")
			}
			if err := stream.SendMsg(&in); err != nil {
				return err
			}
		}
	}}}}

// startGRPCReplica starts a replica that speaks gRPC without TLS, and returns its address.
func startGRPCReplica(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	checks := health.NewServer()
	checks.SetServingStatus("web", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, checks)
	server.RegisterService(&grpcChat, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().String()
}

// grpcToken is the token that gRPC clients send.
type grpcToken string

func (w grpcToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(w)}, nil
}

func (grpcToken) RequireTransportSecurity() bool { return false }

func TestGRPC_PassesThrough(t *testing.T) {
	replica := route.Target{Replica: "replica", Endpoint: dstack.Endpoint{Address: startGRPCReplica(t)}}
	r := startGateway(t, gateway.Limits{StallTimeout: 300 * time.Millisecond}, serviceRoute("web", replica))
	secure := httptest.NewUnstartedServer(r.gateway)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewUnstartedServer(r.gateway)
	plain.Config.Protocols = &http.Protocols{}
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	plain.Start()
	defer plain.Close()
	for name, way := range map[string]struct {
		address     string
		credentials credentials.TransportCredentials
	}{
		"TLS":         {secure.Listener.Addr().String(), credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})},
		"without TLS": {plain.Listener.Addr().String(), insecure.NewCredentials()},
	} {
		t.Run(name, func(t *testing.T) {
			dial := func(token string) *grpc.ClientConn {
				conn, err := grpc.NewClient(way.address, grpc.WithTransportCredentials(way.credentials), grpc.WithAuthority("web.localhost"),
					grpc.WithPerRPCCredentials(grpcToken(token)))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				return conn
			}
			conn := dial(member)
			checkUnary(t, conn)
			checkChat(t, conn)
			_, err := healthpb.NewHealthClient(dial("wrong")).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "web"})
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("with a wrong token: %v", err)
			}
		})
	}
}

func checkUnary(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	client := healthpb.NewHealthClient(conn)
	res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "web"})
	if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", res, err)
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Errorf("the error of a replica: %v", err)
	}
}

// checkChat checks a stream in both directions, which is silent for longer than other bodies may be.
func checkChat(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpcChat.Streams[0], "/test.Chat/Chat")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two"} {
		var out healthpb.HealthCheckRequest
		if err := stream.SendMsg(&healthpb.HealthCheckRequest{Service: word}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&out); err != nil || out.Service != word {
			t.Fatalf("%q, %v", out.Service, err)
		}
		time.Sleep(400 * time.Millisecond)
	}
	if header, err := stream.Header(); err != nil || len(header.Get("x-first")) != 1 {
		t.Errorf("%v, %v", header, err)
	}
	if err := stream.SendMsg(&healthpb.HealthCheckRequest{Service: "fail"}); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&healthpb.HealthCheckRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the end of the stream: %v", err)
	}
	if got := stream.Trailer().Get("x-last"); len(got) != 1 {
		t.Errorf("trailer: %v", stream.Trailer())
	}
}
