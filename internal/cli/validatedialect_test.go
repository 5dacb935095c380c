package cli

import (
	"strings"
	"testing"
)

// validate tells the dialect of a file: always in JSON, with -v in text, and as a note where a
// file mixes two.
func TestValidate_Dialect(t *testing.T) {
	u := newTestUser(t, nil)
	u.writeFile("old.dstack.yml", serviceFile+"pool_name: p\n")
	u.writeFile("new.dstack.yml", serviceFile+"probes: []\n")
	u.writeFile("mixed.dstack.yml", serviceFile+"pool_name: p\nprobes: []\n")
	const note = "mixed.dstack.yml:9:12: note: only dstack 0.18.10 has `pool_name`, and only later versions have `probes` as written here"
	u.run("validate", "old.dstack.yml", "-v").check(t, ExitDone, []string{"old.dstack.yml: valid\n"}, []string{"only dstack 0.18.10 has: pool_name"})
	u.run("validate", "new.dstack.yml", "-v").check(t, ExitDone, []string{"new.dstack.yml: valid\n"}, []string{"only later versions have: probes"})
	u.run("validate", "mixed.dstack.yml").check(t, ExitDone, []string{"mixed.dstack.yml: valid\n"}, []string{note})
	u.run("validate", "--json", "mixed.dstack.yml").check(t, ExitDone, []string{`"pool_name": "p"`}, []string{note})
	u.run("validate", "mixed.dstack.yml", "-o", "json").check(t, ExitDone,
		[]string{`"dialect": "mixed"`, "\"original\": [\n      \"pool_name\"", "\"later\": [\n      \"probes\"", `"message": "only dstack 0.18.10 has`}, nil)
	u.writeFile("common.dstack.yml", serviceFile)
	u.run("validate", "common.dstack.yml", "-v").check(t, ExitDone, nil, []string{"dialect: common to dstack 0.18.10 and later versions"})
	if got := u.run("validate", "old.dstack.yml"); got.err != "" {
		t.Errorf("a file of one dialect is told %s", got.err)
	}
	u.writeFile(".dstack/profiles.yml", "profiles:\n- name: a\n  pool_name: p\n- name: b\n  tags: {a: b}\n")
	u.run("validate", ".dstack/profiles.yml").check(t, ExitDone, nil, []string{".dstack/profiles.yml:3:14: note: only dstack 0.18.10 has `profiles.0.pool_name`"})
}

func TestValidate_Address(t *testing.T) {
	u := newTestUser(t, nil)
	for gateway, want := range map[string]string{
		"false": "address: <server>/proxy/services/<project>/web/", "on": "address: web.<domain of the default gateway, or of the server>",
		"front-door": "address: web.<domain of the gateway front-door>",
	} {
		u.writeFile("s.dstack.yml", serviceFile+"gateway: "+gateway+"\n")
		u.run("validate", "s.dstack.yml").check(t, ExitDone, []string{"s.dstack.yml: valid"}, []string{want})
	}
	u.writeFile("s.dstack.yml", serviceFile)
	if got := u.run("validate", "s.dstack.yml"); strings.Contains(got.err, "address") {
		t.Errorf("a file without `gateway` is told %s", got.err)
	}
}

// The plan names the address that the service will have.
func TestApply_PlanNamesTheAddress(t *testing.T) {
	f := newFakeServer(t)
	f.preview.URL = "http://127.0.0.1:3000/proxy/services/main/web/"
	u := newTestUser(t, f)
	u.writeFile(".dstack.yml", serviceFile+"gateway: false\npool_name: p\n")
	u.run("apply", "-e", "GREETING=a").check(t, ExitNoCapacity, nil,
		[]string{"address      http://127.0.0.1:3000/proxy/services/main/web/", "gateway      off: the address is by path",
			"only dstack 0.18.10 has `pool_name`, and only later versions have `gateway`"})
}
