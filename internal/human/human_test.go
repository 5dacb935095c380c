package human_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/human"
)

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{human.Count(0, "replica"), "0 replicas"}, {human.Count(1, "replica"), "1 replica"}, {human.Count(3, "replica"), "3 replicas"},
		{human.CountOf(1, "was wanted", "were wanted"), "1 was wanted"}, {human.CountOf(2, "was wanted", "were wanted"), "2 were wanted"},
		{human.ShortNumber(950), "950"}, {human.ShortNumber(1234), "1.2k"}, {human.ShortNumber(12345), "12k"}, {human.ShortNumber(12345678), "12.3M"},

		{human.Duration(48 * time.Second), "48s"}, {human.Duration(112 * time.Second), "1m 52s"}, {human.Duration(2 * time.Minute), "2m"},
		{human.Duration(2*time.Hour + 5*time.Minute), "2h 5m"}, {human.Duration(76 * time.Hour), "3d 4h"}, {human.Duration(-time.Second), "0s"},
		{human.Age(112 * time.Second), "1m"}, {human.Age(49 * time.Hour), "2d"},
		{human.RoundDuration(300 * time.Millisecond), "0.3s"}, {human.RoundDuration(14400 * time.Millisecond), "14s"},
		{human.RoundDuration(119 * time.Second), "119s"}, {human.RoundDuration(170 * time.Second), "3m"}, {human.RoundDuration(130 * time.Minute), "2h"},
		{human.ExactDuration(59*time.Second + 1), "60s"}, {human.ExactDuration(120 * time.Second), "120s"}, {human.ExactDuration(173 * time.Second), "2m53s"},
		{human.ExactDuration(10 * time.Minute), "10m"}, {human.ExactDuration(2 * time.Hour), "2h"},
		{human.Latency(210 * time.Millisecond), "210ms"}, {human.Latency(1440 * time.Millisecond), "1.4s"},

		{human.CountEach(nil, "×"), ""}, {human.CountEach([]string{"L4"}, "×"), "1×L4"}, {human.CountEach([]string{"H100", "L4", "L4", "H100", "L4"}, "x"), "2xH100, 3xL4"},

		{human.Bytes(812), "812B"}, {human.Bytes(3 << 10), "3KB"}, {human.Bytes(3 << 19), "1.5MB"}, {human.Bytes(8 << 20), "8MB"}, {human.Bytes(10<<20 - 1), "9.9MB"}, {human.Bytes(64 << 20), "64MB"},
		{human.ImageBytes(0), "1kB"}, {human.ImageBytes(120_000), "120kB"}, {human.ImageBytes(999_000_000), "999MB"}, {human.ImageBytes(12_300_000), "12MB"}, {human.ImageBytes(8_100_000_000), "8.1GB"},
		{human.Gigabytes(24 << 10), "24GB"}, {human.Gigabytes(512), "0.5GB"}, {human.Gigabytes(15974), "16GB"}, {human.Gigabytes(1536), "1.5GB"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"port", "commands", "image", "env", "spot_policy", "größe"}
	for word, want := range map[string]string{
		"ports": "port", "comands": "commands", "commnads": "commands", "Image": "image", "evn": "env", "pt": "",
		"com": "commands", "größ": "größe", "zzz": "", "": "", "spot-policy": "spot_policy", strings.Repeat("p", 100): "",
	} {
		if got := human.Nearest(word, words); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
