package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/dstack"
)

const anotherToken = "another-token-0123456789-0123456789"

func TestBoot_LaterStarts(t *testing.T) {
	h := newTestServer(t)
	var config Config
	boot := func(token string) BootResult {
		t.Helper()
		b, err := Boot(t.Context(), BootOptions{Store: h.store, Dir: h.dir, Config: config, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := boot(""); b != (BootResult{}) {
		t.Errorf("a second start changed something: %+v", b)
	}
	if b := boot(h.admin); b.Token != "" {
		t.Errorf("the same token counts as new: %+v", b)
	}
	if b := boot(anotherToken); b.Token != anotherToken || b.FirstStart {
		t.Errorf("another token: %+v", b)
	}
	if a := h.callAs(h.admin, "/api/users/get_my_user", ""); a.errorKind() != dstack.Unauthorized {
		t.Errorf("the old token is still valid: %s", a.text)
	}
	if a := h.callAs(anotherToken, "/api/users/get_my_user", ""); a.status != 200 {
		t.Errorf("the new token is not valid: %s", a.text)
	}
	if _, err := Boot(t.Context(), BootOptions{Store: h.store, Dir: h.dir, Token: "with space 0123456789 0123456789 0123456789"}); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("a token with a space: %v", err)
	}
	config = Config{Projects: []ProjectConfig{{Name: "main"}, {Name: "Team"}}}
	boot("")
	if p, err := h.store.Project(t.Context(), "team"); err != nil || p.Name != "Team" {
		t.Errorf("the configured project: %+v, %v", p, err)
	}
}

func TestNewToken_IsNotStored(t *testing.T) {
	one, two := newToken(), newToken()
	if one == two || !strings.HasPrefix(one, "dst_") || len(one) < 4+43+6 || CheckToken("it", one) != nil {
		t.Errorf("%s, %s", one, two)
	}
	h := newTestServer(t)
	token := h.createUser("ann", dstack.RoleUser)
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), token) || strings.Contains(string(text), h.admin) {
			t.Errorf("%s contains a token", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(h.log.String(), token) {
		t.Error("the log contains a token")
	}
}

func TestBoot_RemovesSpoolFiles(t *testing.T) {
	h := newTestServer(t)
	file := filepath.Join(h.dir, "tmp", spoolPrefix+"1")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Boot(t.Context(), BootOptions{Store: h.store, Dir: h.dir}); err != nil {
		t.Fatal(err)
	}
	h.expectNoSpoolFiles()
}
