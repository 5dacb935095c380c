// Package dnstest is a name server for tests: it has records that tests set, and
// takes updates that are signed with a key.
package dnstest

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// The key with which updates are signed.
const (
	KeyName = "dstack-test"
	Key     = "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiBkc3RhY2s="
)

// Server is a name server with one zone. It answers over UDP and TCP.
type Server struct {
	Addr string // host:port

	zone    string
	mu      sync.Mutex
	addrs   map[string][]string // by name, or *.name for all names below
	texts   map[string][]string // by name
	updates int
}

// Start starts a server for a zone such as example.com. It ends with the test.
func Start(t testing.TB, zone string) *Server {
	t.Helper()
	s := &Server{zone: dns.CanonicalName(zone), addrs: map[string][]string{}, texts: map[string][]string{}}
	packets, listener := listenBoth(t)
	s.Addr = packets.LocalAddr().String()
	secrets := map[string]string{dns.CanonicalName(KeyName): Key}
	for _, server := range []*dns.Server{{PacketConn: packets}, {Listener: listener}} {
		server.Handler, server.TsigSecret, server.MsgAcceptFunc = s, secrets, acceptUpdates
		ready := make(chan struct{})
		server.NotifyStartedFunc = func() { close(ready) }
		go server.ActivateAndServe() //nolint:errcheck // it ends with the test
		<-ready
		t.Cleanup(func() { server.Shutdown() }) //nolint:errcheck // nothing follows
	}
	return s
}

// listenBoth opens a port for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", listener.Addr().String())
		if err == nil {
			return packets, listener
		}
		listener.Close() //nolint:errcheck,gosec // another port is tried
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

// acceptUpdates accepts updates, too, which are refused by default.
func acceptUpdates(header dns.Header) dns.MsgAcceptAction {
	if opcode := int(header.Bits>>11) & 0xF; opcode == dns.OpcodeUpdate {
		return dns.MsgAccept
	}
	return dns.DefaultMsgAcceptFunc(header)
}

// SetAddresses sets the addresses of a name; "*.example.com" is for all names
// below that have none of their own. Without addresses, the name has none.
func (s *Server) SetAddresses(name string, addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs[dns.CanonicalName(name)] = addresses
}

// Texts returns the TXT records of a name.
func (s *Server) Texts(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.texts[dns.CanonicalName(name)])
}

// SetTexts sets the TXT records of a name.
func (s *Server) SetTexts(name string, texts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts[dns.CanonicalName(name)] = texts
}

// Updates returns how many updates were made.
func (s *Server) Updates() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg).SetReply(question)
	answer.Authoritative = true
	s.mu.Lock()
	switch {
	case len(question.Question) != 1:
		answer.Rcode = dns.RcodeFormatError
	case question.Opcode == dns.OpcodeUpdate:
		answer.Rcode = s.update(w, question)
	default:
		s.answer(answer, question.Question[0])
	}
	s.mu.Unlock()
	if tsig := question.IsTsig(); tsig != nil && w.TsigStatus() == nil {
		answer.SetTsig(tsig.Hdr.Name, tsig.Algorithm, 300, int64(tsig.TimeSigned)) //nolint:gosec // a time
	}
	w.WriteMsg(answer) //nolint:errcheck,gosec // the client asks again
}

// update changes TXT records and returns the code of the answer. The caller holds the mutex.
func (s *Server) update(w dns.ResponseWriter, m *dns.Msg) int {
	if m.IsTsig() == nil || w.TsigStatus() != nil || dns.CanonicalName(m.Question[0].Name) != s.zone {
		return dns.RcodeNotAuth
	}
	for _, row := range m.Ns {
		text, ok := row.(*dns.TXT)
		if !ok || !dns.IsSubDomain(s.zone, text.Hdr.Name) {
			return dns.RcodeNotZone
		}
		name, value := dns.CanonicalName(text.Hdr.Name), strings.Join(text.Txt, "")
		if text.Hdr.Class == dns.ClassINET {
			s.texts[name] = append(s.texts[name], value)
		} else {
			s.texts[name] = slices.DeleteFunc(s.texts[name], func(t string) bool { return t == value })
		}
	}
	s.updates++
	return dns.RcodeSuccess
}

// answer fills in what the server knows of a name. The caller holds the mutex.
func (s *Server) answer(m *dns.Msg, q dns.Question) {
	name := dns.CanonicalName(q.Name)
	if !dns.IsSubDomain(s.zone, name) {
		m.Rcode = dns.RcodeRefused
		return
	}
	authority := &dns.SOA{Hdr: dns.RR_Header{Name: s.zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1},
		Ns: "ns." + s.zone, Mbox: "admin." + s.zone, Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: 1}
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	switch q.Qtype {
	case dns.TypeSOA:
		if name == s.zone {
			m.Answer = append(m.Answer, authority)
		}
	case dns.TypeNS:
		if name == s.zone {
			m.Answer = append(m.Answer, &dns.NS{Hdr: header, Ns: "ns." + s.zone})
		}
	case dns.TypeA:
		for _, address := range s.addresses(name) {
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: net.ParseIP(address)})
		}
	case dns.TypeTXT:
		for _, text := range s.texts[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header, Txt: []string{text}})
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, authority)
		if s.addresses(name) == nil && len(s.texts[name]) == 0 && name != s.zone {
			m.Rcode = dns.RcodeNameError
		}
	}
}

// addresses returns the addresses of a name. The caller holds the mutex.
func (s *Server) addresses(name string) []string {
	if own, ok := s.addrs[name]; ok {
		return own
	}
	for rest := name; rest != ""; {
		_, rest, _ = strings.Cut(rest, ".")
		if found, ok := s.addrs["*."+rest]; ok {
			return found
		}
	}
	return nil
}
