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

// readSeedExample returns an example of the documentation page that the product was
// specified by, unchanged.
func readSeedExample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "seed", name+".dstack.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// waitForPort waits until a port of this machine is free. The examples use port
// 8000, and processes share the machine's ports.
func waitForPort(t *testing.T, engine string, address string) {
	t.Helper()
	if engine == "docker" {
		return
	}
	err := retryFor(20*time.Second, func() error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		return l.Close()
	})
	if err != nil {
		t.Fatalf("the example needs the port at %s, and another program uses it: %v", address, err)
	}
}

// TestSeedExamples runs the examples that serve a folder. They have the same port
// and name, so they run one after the other.
func TestSeedExamples(t *testing.T) {
	runParallelWith(t, &examplePort)
	forEachEngine(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		for _, name := range []string{"python", "plain", "auth", "nvcc", "image"} {
			if engine == "process" && (name == "nvcc" || name == "image") {
				continue // the process engine has no images
			}
			t.Run(name, func(t *testing.T) {
				h := h.withT(t)
				waitForPort(t, engine, ":8000")
				if name == "nvcc" {
					createImageOnce(t, baseImage+"-devel", func() { runDocker(t, "tag", baseImage, baseImage+"-devel") })
				}
				dir := h.newFolder(readSeedExample(t, name))
				h.writeFile(filepath.Join(dir, "notes.txt"), "what a page says")
				h.applyAndWait(dir)
				h.expectStatus(h.serviceURL("http-server-service", "/"), 200, "Directory listing", "notes.txt")
				h.expectStatus(h.servicePathURL("http-server-service", "/notes.txt"), 200, "what a page says")
				h.expectResponse("GET", h.serviceURL("http-server-service", "/service.dstack.yml"), h.token, "", 404) // the configuration is not uploaded
				if name == "auth" {
					h.expectResponse("GET", h.serviceURL("http-server-service", "/"), "", "", 200)
				} else {
					h.expectUnauthorized(h.serviceURL("http-server-service", "/"))
					h.expectUnauthorized(h.servicePathURL("http-server-service", "/"))
				}
				h.stopRun("http-server-service")
			})
		}
	})
}

// TestHTTPServerExample runs the example of this repository.
func TestHTTPServerExample(t *testing.T) {
	runParallelWith(t, &examplePort)
	forEachEngine(t, func(t *testing.T, engine string) {
		waitForPort(t, engine, ":8000")
		h := newHarness(t, engine)
		h.applyAndWait(h.copyFolder("../examples/http-server"))
		h.expectStatus(h.serviceURL("http-server-service", "/"), 200, "It works")
		h.expectUnauthorized(h.serviceURL("http-server-service", "/"))
	})
}

// TestPrivateRegistry pulls an image with the right password, and is refused with a
// wrong one.
func TestPrivateRegistry(t *testing.T) {
	runParallel(t)
	needBaseImage(t)
	registry := needPiece(t, "registry", "DSTACK_TEST_REGISTRY")
	user, password := os.Getenv("DSTACK_TEST_REGISTRY_USER"), os.Getenv("DSTACK_TEST_REGISTRY_PASSWORD")
	image := registry + "/" + baseImage
	config := t.TempDir() // of the docker command: the test must not change the user's login
	runDocker(t, "tag", baseImage, image)
	runDocker(t, "--config", config, "login", "-u", user, "-p", password, registry)
	runDocker(t, "--config", config, "push", "-q", image)
	runDocker(t, "rmi", image)

	h := newHarness(t, "docker")
	text := strings.Replace(readSeedExample(t, "registry"), baseImage, image, 1)
	with := func(user, password string) string {
		return h.newFolder(strings.NewReplacer("peterschmidt85", user, "<token>", password).Replace(text))
	}

	refused := h.runCLIIn(with(user, "wrong-password"), "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	refused.expectError(1, image, "registry_auth")
	refused.expectNoText("wrong-password")
	if v := h.findRun("http-server-service"); !v.Status.IsFinished() {
		t.Errorf("the run is %s after its image could not be pulled, want failed", v.Status)
	}
	h.waitUntil(10*time.Second, "nothing is left of the run", h.checkNothingLeft)

	h.applyAndWait(with(user, password))
	h.expectStatus(h.serviceURL("http-server-service", "/"), 200, "Directory listing")
	h.stopRun("http-server-service")
	runDocker(t, "rmi", image)
}

// TestEnvironment sets variables in every possible way, and leaves a required one
// out.
func TestEnvironment(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		dir := h.newFolder(h.workloadConfig("variables", "- HUGGING_FACE_HUB_TOKEN", "- MODEL=NousResearch/Llama-2-7b-chat-hf"))

		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").
			expectError(2, "HUGGING_FACE_HUB_TOKEN", "-e HUGGING_FACE_HUB_TOKEN=")
		if all := h.listRuns(); len(all) > 0 {
			t.Errorf("a run was submitted without its variables: %+v", all)
		}

		h.applyAndWait(dir, "-e", "HUGGING_FACE_HUB_TOKEN=hf_1", "-e", "MODEL=mine")
		a := h.fetchInfo("variables")
		for name, want := range map[string]string{
			"HUGGING_FACE_HUB_TOKEN": "hf_1", "MODEL": "mine",
			"DSTACK_RUN_NAME": "variables", "DSTACK_GPUS_NUM": "0", "DSTACK_REPLICA_NUM": "0",
		} {
			if got, _ := a.lookUpEnv(name); got != want {
				t.Errorf("the replica has %s=%q, want %q", name, got, want)
			}
		}
		if id, _ := a.lookUpEnv("DSTACK_REPO_ID"); id == "" {
			t.Error("DSTACK_REPO_ID is empty in the replica")
		}
		if home, _ := a.lookUpEnv("HOME"); engine == "docker" && home != "/root" {
			t.Errorf("HOME is %q in the container, want /root", home)
		}
		if strings.Contains(strings.Join(a.Env, "\n"), h.token) {
			t.Error("the replica's environment has the user's token")
		}

		h.extraEnv = append(h.extraEnv, "HUGGING_FACE_HUB_TOKEN=hf_2") // of the dstack command
		h.applyAndWait(dir)
		a = h.fetchInfo("variables")
		if got, _ := a.lookUpEnv("HUGGING_FACE_HUB_TOKEN"); got != "hf_2" {
			t.Errorf("HUGGING_FACE_HUB_TOKEN is %q, want the value of the command's environment", got)
		}
		if got, _ := a.lookUpEnv("MODEL"); got != "NousResearch/Llama-2-7b-chat-hf" {
			t.Errorf("MODEL is %q, want the value of the file", got)
		}
	})
}

// TestExampleWithoutGPU checks that apply ends with the reason and exit status 4 if
// no machine has the GPU.
func TestExampleWithoutGPU(t *testing.T) {
	runParallel(t)
	if _, err := os.Stat("/dev/nvidia0"); !errors.Is(err, os.ErrNotExist) {
		t.Log("this machine has a GPU, but not one of 1 TB")
	}
	h := newHarness(t, "process")
	dir := h.newFolder(strings.Replace(readSeedExample(t, "env"), "gpu: 24GB", "gpu: 1TB", 1))
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-e", "HUGGING_FACE_HUB_TOKEN=x").expectError(4, "no machine suits", "GPU")
	if all := h.listRuns(); len(all) > 0 {
		t.Errorf("a run was submitted although no machine suits: %+v", all)
	}
}
