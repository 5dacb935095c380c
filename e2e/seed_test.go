package e2e

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// seed is an example of the page that the product was built from, as it
// stands there.
func seed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "seed", name+".dstack.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// needPort waits for a port of this machine that an example wants: examples
// as they stand use 8000, and processes of the process engine share it with
// everybody.
func needPort(t *testing.T, engine string, address string) {
	t.Helper()
	if engine == "docker" {
		return
	}
	err := within(20*time.Second, func() error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		return l.Close()
	})
	if err != nil {
		t.Fatalf("this example needs the port at %s, and something else on this machine has it: %v", address, err)
	}
}

// TestSeedExamples runs the examples that serve a folder. They share a port
// and a name, so one comes after the other.
func TestSeedExamples(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		h := newHouse(t, engine)
		for _, name := range []string{"python", "plain", "auth", "nvcc", "image"} {
			if engine == "process" && (name == "nvcc" || name == "image") {
				continue // no image there; TestProcessIgnoresNothing has what is said instead
			}
			t.Run(name, func(t *testing.T) {
				h := h.in(t)
				needPort(t, engine, ":8000")
				if name == "nvcc" {
					makeImage(t, baseImage+"-devel", func() { docker(t, "tag", baseImage, baseImage+"-devel") })
				}
				dir := h.folder(seed(t, name))
				h.write(filepath.Join(dir, "notes.txt"), "what a page says")
				h.apply(dir)
				h.answers(h.service("http-server-service", "/"), 200, "Directory listing", "notes.txt")
				h.answers(h.byPath("http-server-service", "/notes.txt"), 200, "what a page says")
				h.expect("GET", h.service("http-server-service", "/service.dstack.yml"), h.token, "", 404) // the file is no code
				if name == "auth" {
					h.expect("GET", h.service("http-server-service", "/"), "", "", 200)
				} else {
					h.refused(h.service("http-server-service", "/"))
					h.refused(h.byPath("http-server-service", "/"))
				}
				h.stopped("http-server-service")
			})
		}
	})
}

// TestHTTPServerExample runs the example of this repository.
func TestHTTPServerExample(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		needPort(t, engine, ":8000")
		h := newHouse(t, engine)
		h.apply(h.copyOf("../examples/http-server"))
		h.answers(h.service("http-server-service", "/"), 200, "It works")
		h.refused(h.service("http-server-service", "/"))
	})
}

// TestPrivateRegistry pulls with the right password, and does not with a wrong one.
func TestPrivateRegistry(t *testing.T) {
	needBase(t)
	registry := need(t, "registry", "DSTACK_TEST_REGISTRY")
	user, password := os.Getenv("DSTACK_TEST_REGISTRY_USER"), os.Getenv("DSTACK_TEST_REGISTRY_PASSWORD")
	image := registry + "/" + baseImage
	config := t.TempDir() // of the Docker client: the test's login is not the user's
	docker(t, "tag", baseImage, image)
	docker(t, "--config", config, "login", "-u", user, "-p", password, registry)
	docker(t, "--config", config, "push", "-q", image)
	docker(t, "rmi", image)

	h := newHouse(t, "docker")
	text := strings.Replace(seed(t, "registry"), baseImage, image, 1)
	with := func(user, password string) string {
		return h.folder(strings.NewReplacer("peterschmidt85", user, "<token>", password).Replace(text))
	}

	refused := h.cliIn(with(user, "wrong-password"), "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	refused.refuses(1, image, "registry_auth")
	refused.saysNot("wrong-password")
	if v := h.run("http-server-service"); !v.Status.IsFinished() {
		t.Errorf("the run is %s after its image could not be pulled, want failed", v.Status)
	}
	h.eventually(10*time.Second, "nothing is left of it", h.nothingLeft)

	h.apply(with(user, password))
	h.answers(h.service("http-server-service", "/"), 200, "Directory listing")
	h.stopped("http-server-service")
	docker(t, "rmi", image)
}

// TestEnvironment gives values in every way there is, and no way at all.
func TestEnvironment(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		dir := h.folder(h.workload("variables", "- HUGGING_FACE_HUB_TOKEN", "- MODEL=NousResearch/Llama-2-7b-chat-hf"))

		h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").
			refuses(2, "HUGGING_FACE_HUB_TOKEN", "-e HUGGING_FACE_HUB_TOKEN=")
		if all := h.psAll(); len(all) > 0 {
			t.Errorf("there is a run although its environment was not complete: %+v", all)
		}

		h.apply(dir, "-e", "HUGGING_FACE_HUB_TOKEN=hf_1", "-e", "MODEL=mine")
		a := h.about("variables")
		for name, want := range map[string]string{
			"HUGGING_FACE_HUB_TOKEN": "hf_1", "MODEL": "mine",
			"DSTACK_RUN_NAME": "variables", "DSTACK_GPUS_NUM": "0", "DSTACK_REPLICA_NUM": "0",
		} {
			if got, _ := a.env(name); got != want {
				t.Errorf("%s is %q in the replica, want %q", name, got, want)
			}
		}
		if id, _ := a.env("DSTACK_REPO_ID"); id == "" {
			t.Error("DSTACK_REPO_ID is empty in the replica")
		}
		if home, _ := a.env("HOME"); engine == "docker" && home != "/root" {
			t.Errorf("HOME is %q in the container, want /root", home)
		}
		if strings.Contains(strings.Join(a.Env, "\n"), h.token) {
			t.Error("the platform's token is in the replica's environment")
		}

		h.extra = append(h.extra, "HUGGING_FACE_HUB_TOKEN=hf_2") // the user's own environment
		h.apply(dir)
		a = h.about("variables")
		if got, _ := a.env("HUGGING_FACE_HUB_TOKEN"); got != "hf_2" {
			t.Errorf("HUGGING_FACE_HUB_TOKEN is %q, want the one of the user's environment", got)
		}
		if got, _ := a.env("MODEL"); got != "NousResearch/Llama-2-7b-chat-hf" {
			t.Errorf("MODEL is %q, want the file's", got)
		}
	})
}

// TestExampleWithoutItsGPU: the page's example with a GPU ends with the
// reason, and exit status 4, where there is none.
func TestExampleWithoutItsGPU(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/nvidia0"); !errors.Is(err, os.ErrNotExist) {
		t.Log("this machine has a GPU: another 1 TB of it is asked for")
	}
	h := newHouse(t, "process")
	dir := h.folder(strings.Replace(seed(t, "env"), "gpu: 24GB", "gpu: 1TB", 1))
	h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-e", "HUGGING_FACE_HUB_TOKEN=x").refuses(4, "no machine suits", "GPU")
	if all := h.psAll(); len(all) > 0 {
		t.Errorf("there is a run although no machine suits: %+v", all)
	}
}
