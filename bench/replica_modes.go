package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"
)

// The program starts itself as these, so that the CPU of each is that of a process.
const (
	tokenSourceMode  = "serve-tokens"
	reverseProxyMode = "serve-reverse-proxy"
)

// runMode runs a part of the measurement as a process of its own, until it is ended. It returns false if args name none.
func runMode(args []string) (isMode bool, err error) {
	if len(args) < 2 {
		return false, nil
	}
	switch args[0] {
	case tokenSourceMode:
		return true, serveTokens("127.0.0.1:" + args[1])
	case reverseProxyMode:
		failed := make(chan error, 2)
		for i := 1; i+1 < len(args); i += 2 {
			go func() { failed <- serveReverseProxy("127.0.0.1:"+args[i], "http://127.0.0.1:"+args[i+1]) }()
		}
		return true, <-failed
	}
	return false, nil
}

// serveReverseProxy forwards by httputil.ReverseProxy with usual settings.
func serveReverseProxy(address, to string) error {
	target, err := url.Parse(to)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
			if n := r.In.ContentLength; n > 0 && n < 64<<10 { // otherwise it breaks responses that begin while it looks for the body's end
				body, err := io.ReadAll(r.In.Body)
				r.Out.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failingReader{err}))
			}
		},
		Transport:     &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // clients that leave at the end of a round
	}
	return http.ListenAndServe(address, proxy)
}

// failingReader ends with an error, or with the end of the input if that is nil.
type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, cmp.Or(f.err, io.EOF) }

// The fields of a body that the token source obeys.
const (
	piecesField = `"pieces":` // how many pieces a stream has
	paceField   = `"pace":`   // microseconds between them
	holdField   = `"hold":`   // one piece, and then nothing
	stampField  = `"stamp":`  // in each piece: when it was sent
)

const sourcePiece = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1721997296,"model":"tokens",` +
	`"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],` + stampField + `%d}` + "\n\n"

const sourceWhole = `{"id":"chatcmpl-1","object":"chat.completion","created":1721997296,"model":"tokens","choices":[{"index":0,` +
	`"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog, again and again, until it is tired of it."},` +
	`"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":64,"total_tokens":88}}`

// serveTokens answers chat requests: whole, as a stream whose pieces have the time when they were sent, or with a stream that is held.
func serveTokens(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			in := bufio.NewReaderSize(conn, 4096)
			for answerTokens(conn, in) == nil {
			}
		}()
	}
}

// answerTokens answers one request. Requests have a Content-Length, or no body.
func answerTokens(conn net.Conn, in *bufio.Reader) error {
	length := 0
	for line := "-"; line != "\r\n"; {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			return err
		}
		const field = "content-length:"
		if len(line) > len(field) && bytes.EqualFold([]byte(line[:len(field)]), []byte(field)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace([]byte(line[len(field):])))); err != nil {
				return err
			}
		}
	}
	begin, err := in.Peek(min(length, 256)) // it has the fields that are obeyed
	if err != nil {
		return err
	}
	begin = bytes.Clone(begin)
	if _, err := io.CopyN(io.Discard, in, int64(length)); err != nil {
		return err
	}
	pieces, pace := findNumber(begin, piecesField), time.Duration(findNumber(begin, paceField))*time.Microsecond
	if isHeld := bytes.Contains(begin, []byte(holdField)); isHeld || pieces > 0 {
		return sendTokens(conn, in, max(pieces, 1), pace, isHeld)
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(sourceWhole), sourceWhole)
	return err
}

func sendTokens(conn net.Conn, in *bufio.Reader, pieces int, pace time.Duration, isHeld bool) error {
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		return err
	}
	var text, chunk []byte
	begin := time.Now()
	for i := range pieces {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * pace)))
		text = fmt.Appendf(text[:0], sourcePiece, time.Now().UnixNano())
		chunk = fmt.Appendf(chunk[:0], "%x\r\n%s\r\n", len(text), text)
		if _, err := conn.Write(chunk); err != nil {
			return err
		}
	}
	if isHeld {
		_, err := in.ReadByte()
		return errors.Join(errors.New("the stream was held"), err)
	}
	_, err := io.WriteString(conn, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
	return err
}

// findNumber returns the number after a field; 0: there is none.
func findNumber(text []byte, field string) int {
	_, rest, _ := bytes.Cut(text, []byte(field))
	n := 0
	for _, c := range rest {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}
