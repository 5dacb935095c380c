package netplace

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/decide/traffic"
)

// Flags of routes in /proc/net.
const (
	routeUp     = 0x1
	routeReject = 0x200
)

// Routes returns the main routing table of the network of this process.
func Routes() ([]traffic.Route, error) {
	v4, err := readRoutes("/proc/net/route", parseRoute4)
	if err != nil {
		return nil, err
	}
	v6, err := readRoutes("/proc/net/ipv6_route", parseRoute6)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // it does not exist without IPv6
		return nil, err
	}
	return append(v4, v6...), nil
}

func readRoutes(path string, parse func(fields []string) (traffic.Route, bool)) ([]traffic.Route, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return parseRoutes(file, parse)
}

func parseRoutes(text io.Reader, parse func(fields []string) (traffic.Route, bool)) ([]traffic.Route, error) {
	var all []traffic.Route
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if r, ok := parse(strings.Fields(lines.Text())); ok {
			all = append(all, r)
		}
	}
	return all, lines.Err()
}

// parseRoute4 parses a line of /proc/net/route: interface, destination, gateway, flags, references, uses, metric, mask. Addresses are
// numbers in the order of the machine's bytes, which is taken as the little-endian one of all machines that Go builds for here.
func parseRoute4(fields []string) (r traffic.Route, ok bool) {
	if len(fields) < 8 {
		return r, false
	}
	to, toOK := parseAddress4(fields[1])
	gateway, gatewayOK := parseAddress4(fields[2])
	mask, maskOK := parseAddress4(fields[7])
	if !toOK || !gatewayOK || !maskOK || !isUsable(fields[3]) {
		return r, false
	}
	bits := 0
	for _, b := range mask.AsSlice() {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	r.To = netip.PrefixFrom(to, bits)
	if !gateway.IsUnspecified() {
		r.Gateway = gateway
	}
	r.Metric, _ = strconv.Atoi(fields[6]) // 0 is the metric of a route that has none
	return r, true
}

func parseAddress4(text string) (netip.Addr, bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 4 {
		return netip.Addr{}, false
	}
	slices.Reverse(raw)
	return netip.AddrFromSlice(raw)
}

// parseRoute6 parses a line of /proc/net/ipv6_route: destination, length of its prefix, source, length, next hop, metric, references, uses,
// flags, interface.
func parseRoute6(fields []string) (r traffic.Route, ok bool) {
	if len(fields) < 10 || !isUsable(fields[8]) {
		return r, false
	}
	to, toErr := hex.DecodeString(fields[0])
	hop, hopErr := hex.DecodeString(fields[4])
	bits, bitsErr := strconv.ParseUint(fields[1], 16, 8)
	if toErr != nil || hopErr != nil || bitsErr != nil || len(to) != 16 || len(hop) != 16 {
		return r, false
	}
	address, _ := netip.AddrFromSlice(to)
	r.To = netip.PrefixFrom(address, int(bits))
	if gateway, _ := netip.AddrFromSlice(hop); !gateway.IsUnspecified() {
		r.Gateway = gateway
	}
	metric, _ := strconv.ParseUint(fields[5], 16, 32)
	r.Metric = int(metric)
	return r, r.To.IsValid()
}

func isUsable(flags string) bool {
	value, err := strconv.ParseUint(flags, 16, 32)
	return err == nil && value&routeUp != 0 && value&routeReject == 0
}
