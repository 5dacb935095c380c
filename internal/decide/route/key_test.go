package route_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"dstack/internal/decide/route"
)

func TestIndex_Key(t *testing.T) {
	digest := sha256.Sum256([]byte("secret"))
	x := route.NewIndex(route.Table{Keys: []route.Key{
		{Digest: hex.EncodeToString(digest[:]), ID: "1", Project: "Main", Name: "ci"}, {Digest: "00", ID: "2", Project: "main"},
	}})
	if k := x.Key(digest); k == nil || k.ID != "1" || k.Project != "main" {
		t.Errorf("got %+v", k)
	}
	if x.Key(sha256.Sum256([]byte("other"))) != nil || x.Key(route.Digest{}) != nil || x.Grant(digest) != nil {
		t.Error("an unknown key is found, or a key is a token")
	}
	if !x.HasKey("1") || x.HasKey("2") || x.HasKey("3") {
		t.Error("the IDs are wrong; a malformed digest is no key")
	}
}

func TestKey_Scope(t *testing.T) {
	all := route.Key{Project: "main"}
	service := route.Key{Project: "main", Services: []string{"web"}}
	model := route.Key{Project: "main", Models: []string{"smol"}}
	both := route.Key{Project: "main", Services: []string{"web"}, Models: []string{"smol"}}
	for _, c := range []struct {
		name      string
		key       route.Key
		project   string
		run, call bool // web's address, and the model smol
	}{
		{"a key without a list opens its project", all, "main", true, true},
		{"a key opens no other project", all, "team", false, false},
		{"a key for a service opens no model", service, "main", true, false},
		{"a key for a model opens no address", model, "main", false, true},
		{"a key for both", both, "main", true, true},
		{"both of another project", both, "team", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.key.AllowsRun(c.project, "web"); got != c.run {
				t.Errorf("the service: %t", got)
			}
			if got := c.key.AllowsModel(c.project, "smol"); got != c.call {
				t.Errorf("the model: %t", got)
			}
			if len(c.key.Services)+len(c.key.Models) > 0 && (c.key.AllowsRun(c.project, "web2") || c.key.AllowsModel(c.project, "smo")) {
				t.Error("it opens what it does not list")
			}
		})
	}
}

func TestKey_Expiry(t *testing.T) {
	now := time.Unix(1_000, 0)
	for expires, want := range map[int64]bool{0: false, 999: true, 1_000: true, 1_001: false} {
		k := route.Key{Expires: expires}
		if k.IsExpired(now) != want {
			t.Errorf("%d: want %t", expires, want)
		}
		if expires == 0 != k.ExpiresAt().IsZero() {
			t.Errorf("%d ends at %s", expires, k.ExpiresAt())
		}
	}
}
