package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"charm.land/lipgloss/v2"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestCleanOutput(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain\ttext", "plain\ttext"},
		{"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[m"},
		{"\x1b[1;38:5:208mx", "\x1b[1;38:5:208mx\x1b[m"},
		{"a\x1b[2Jb\x1b[10;10Hc", "abc"},
		{"\x1b]0;title\abell\a", "bell"},
		{"\x1b]52;c;ZXZpbA==\x1b\\clip", "clip"},
		{"\x1bP1$r\x1b\\dcs", "dcs"},
		{"\x1b(0set\x1b=mode\x1bc", "setmode"},
		{"c1 \u009b2Jcsi \u009d0;t\u009cosc \u0085", "c1 csi osc "},
		{"10%\r20%\r30%\r", "30%"},
		{"cut \x1b[3", "cut "},
		{"cut \x1b", "cut "},
		{"cut \x1b]0;never ends", "cut "},
		{"bad \xff\xfe utf8", "bad \uFFFD utf8"},
		{"abc\u202Edef\u2066ghi\u200F", "abcdefghi"},
		{"null\x00 back\b", "null back"},
		{"\x1b[>4;2mhidden", "hidden"},
		{"\x1b[", ""},
	} {
		if got := cleanOutput([]byte(c.in)); got != c.want {
			t.Errorf("%q became %q, want %q", c.in, got, c.want)
		}
	}
}

func TestCleanLine(t *testing.T) {
	if got := cleanLine(" a\r\nb\x1b[31mc\x1b[m\u202Ed\x00 "); got != "a  bcd" {
		t.Errorf("got %q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31mred\x1b]0;x\a\u009b1m\r\x1bP\x1b\\")
	f.Fuzz(func(t *testing.T, in string) {
		got := cleanOutput([]byte(in))
		rest := got
		for _, sequence := range strings.Split(got, "\x1b")[1:] {
			if end := strings.IndexByte(sequence, 'm'); end < 1 || strings.Trim(sequence[1:end], "0123456789;:") != "" {
				t.Fatalf("%q left %q", in, got)
			}
		}
		rest = strings.ReplaceAll(rest, "\x1b", "")
		if strings.ContainsFunc(rest, func(r rune) bool { return r != '\t' && isHidden(r) }) || strings.Contains(cleanLine(in), "\x1b") {
			t.Fatalf("%q left %q", in, got)
		}
	})
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{formatPrice(0), "$0"}, {formatPrice(0.24), "$0.24"}, {formatPrice(0.8), "$0.80"}, {formatPrice(3), "$3"}, {formatPrice(0.0312), "$0.0312"},
		{shellQuote("http://a.b/c"), "http://a.b/c"}, {shellQuote(`it's`), `'it'\''s'`},
		{truncate("abcdef", 4), "abc…"}, {truncate("日本語", 5), "日本…"}, {truncate("abc", 0), "abc"},
		{formatHardware(api.Resources{CPUs: 1, MemoryMiB: 1024, GPUs: []api.GPU{{Name: "A", MemoryMiB: 1024}, {Name: "A", MemoryMiB: 1024}, {Name: "B", MemoryMiB: 2048}}}), "1 cpu, 1GB, 2×A 1GB, 1×B 2GB"},
		{formatHardware(api.Resources{}), "-"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// newTerminalScreen returns a screen that writes to a terminal of that width.
func newTerminalScreen(width int) (*screen, *bytes.Buffer) {
	var out bytes.Buffer
	s := newScreen(strings.NewReader(""), &out, &out)
	for _, stream := range []*stream{s.out, s.err} {
		stream.terminal, stream.width = true, func() int { return width }
	}
	return s, &out
}

func TestTable_FitsTheTerminal(t *testing.T) {
	s, out := newTerminalScreen(40)
	tab := &table{head: []string{"NAME", "URL", "AGE"}, movable: []int{1}}
	tab.rows = [][]string{{"web", "http://a-rather-long-name.localhost:3000/", "2h"}, {"replica 1 waits for capacity, and has done so for long"}}
	tab.writeTo(s.out)
	want := " NAME  AGE\n" +
		" web   2h\n" +
		"http://a-rather-long-name.localhost:3000/\n" + // can be copied
		"   replica 1 waits for capacity, and has\n" +
		"   done so for long\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestTable_WrapsItsLastColumn(t *testing.T) {
	why := "the machine has 2 cpus, 8GB of memory and no GPU, and the service asks for 1 GPU with 24GB"
	for width, want := range map[int]string{
		0: " #  WHY\n 1  " + why + "\n",
		50: " #  WHY\n" +
			" 1  the machine has 2 cpus, 8GB of memory and no\n" +
			"    GPU, and the service asks for 1 GPU with 24GB\n",
		24: " #\n 1\n" +
			"   the machine has 2\n" +
			"   cpus, 8GB of memory\n" +
			"   and no GPU, and the\n" +
			"   service asks for 1\n" +
			"   GPU with 24GB\n",
	} {
		s, out := newTerminalScreen(width)
		(&table{head: []string{"#", "WHY"}, wrapsLast: true, rows: [][]string{{"1", why}}}).writeTo(s.out)
		if out.String() != want {
			t.Errorf("width %d: got\n%s\nwant\n%s", width, out, want)
		}
	}
}

// A column that is the last one left is wrapped, and so needs no note with the whole cell.
func TestTable_WritesTheLastColumnOnce(t *testing.T) {
	s, out := newTerminalScreen(30)
	(&table{head: []string{"WHAT", "CHANGE", "WHY"}, wrapsLast: true, shrinkable: []int{1},
		rows: [][]string{{"replica 0", "terminating → terminated", "stopped by its user"}}}).writeTo(s.out)
	if n := strings.Count(out.String(), "terminated"); n != 1 || !strings.Contains(out.String(), "stopped by its user") {
		t.Errorf("got\n%s", out)
	}
}

func TestRunsTable_FitsEightyColumnsAndCutsNothing(t *testing.T) {
	now := time.Now()
	view := api.RunView{Name: "a-service-with-a-long-name", Status: api.StatusFailing, DesiredReplicas: 1, SubmittedAt: now,
		URL: "https://a-service-with-a-long-name.models.example.com:8443",
		Replicas: []api.ReplicaView{{Since: now, Status: dstack.ReplicaRestarting, Backend: "local", Instance: "a-machine-of-the-office", Restarts: 7,
			Resources: "16 cpus, 64GB, 2×A100 80GB",
			Reason:    "replica 0 exited with code 1: the model needs 40GB of GPU memory, and this GPU has 24GB; give it a larger one"}}}
	for _, width := range []int{20, 40, 60, 80, 120, 200} {
		s, out := newTerminalScreen(width)
		runsTable([]api.RunView{view}, nil, true, now).writeTo(s.out)
		words := strings.Join(strings.Fields(out.String()), "")
		for _, want := range []string{view.Name, view.URL, "2×A100 80GB", "7 restarts", "a-machine-of-the-office", view.Replicas[0].Reason} {
			if !strings.Contains(words, strings.Join(strings.Fields(want), "")) {
				t.Errorf("width %d: %q is missing in\n%s", width, want, out)
			}
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if width >= 40 && lipgloss.Width(line) > width && line != view.URL {
				t.Errorf("width %d: this line is longer: %s", width, line)
			}
		}
	}
}

func TestStatusBoard_RedrawsOneRegion(t *testing.T) {
	s, out := newTerminalScreen(60)
	began := time.Unix(1700000000, 0)
	views := runViews(startingView("pulling image 62% of 8.1GB"), readyView)
	b := newStatusBoard(s, views[0], began)
	b.draw(began.Add(48 * time.Second))
	first := out.String()
	if want := " web is starting                                        48s\n   replica 0  pulling image 62% of 8.1GB      local box\n"; first != want {
		t.Errorf("got\n%q\nwant\n%q", first, want)
	}
	out.Reset()
	b.draw(began.Add(49 * time.Second))
	if got := out.String(); !strings.HasPrefix(got, "\x1b[2A\r\x1b[J web is starting") || !strings.Contains(got, "49s") {
		t.Errorf("got %q", got)
	}
	out.Reset()
	crashed := views[0]
	retry := began.Add(60 * time.Second)
	crashed.Replicas = []api.ReplicaView{{Status: dstack.ReplicaRestarting, Reason: "exited with code 1", LastOutput: []string{"boom"}, RetryAt: &retry}}
	b.update(crashed, began.Add(50*time.Second))
	if got := out.String(); !strings.HasPrefix(got, "\x1b[2A\r\x1b[J replica 0 exited with code 1, next try in 10s\n     boom\n web is starting") {
		t.Errorf("got %q", got)
	}
	out.Reset()
	b.showUnreachable(&dstack.Error{Message: "cannot reach the server"}, began.Add(51*time.Second))
	if got := out.String(); !strings.Contains(got, "cannot reach the server; trying again\n") {
		t.Errorf("got %q", got)
	}
	b.clear()
	if !strings.HasSuffix(out.String(), "\x1b[3A\r\x1b[J") {
		t.Errorf("got %q", out)
	}
}

// In an update, an old and a new replica have the same number: the lines and the
// crashes of one are not taken for those of the other.
func TestStatusBoard_TellsReplicasOfTwoRevisionsApart(t *testing.T) {
	var out, errOut bytes.Buffer
	s := newScreen(strings.NewReader(""), &out, &errOut)
	began := time.Unix(1700000000, 0)
	view := runViews(readyView)[0]
	view.Status, view.Revision = api.StatusUpdating, 2
	view.Replicas = []api.ReplicaView{
		{Num: 0, Revision: 1, Status: dstack.ReplicaReady, Reason: "listens on 0.0.0.0:20001", Restarts: 2, LastOutput: []string{"boom"}},
		{Num: 0, Revision: 2, Status: dstack.ReplicaStarting, Reason: "running"},
	}
	b := newStatusBoard(s, view, began)
	for i := range 5 {
		b.update(view, began.Add(time.Duration(i)*time.Second))
	}
	want := " web is updating to revision 2 (0s)\n   replica 0 of revision 1  ready: listens on 0.0.0.0:20001\n   replica 0  running\n"
	if got := errOut.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLogPrinter_CleansOutputForATerminal(t *testing.T) {
	s, out := newTerminalScreen(80)
	p := newLogPrinter(s, logStyle{showReplica: true})
	entry := logEntry(1, "a\x1b[2Jb")
	entry.Replica = 1
	if err := p.printEntry(entry); err != nil || out.String() != "1 | ab\n" {
		t.Errorf("got %q (%v)", out, err)
	}
}

func TestWithProgress_ShowsLongSteps(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(strings.NewReader(""), &out, &out)
	if err := s.withProgress(func() string { return "packing" }, func() error { return nil }); err != nil || out.Len() > 0 {
		t.Errorf("got %q (%v)", out.String(), err)
	}
	synctest.Test(t, func(t *testing.T) {
		err := s.withProgress(func() string { return "packing" }, func() error {
			time.Sleep(3500 * time.Millisecond)
			return &dstack.Error{Message: "no"}
		})
		if err == nil || out.String() != " packing 1s\n" {
			t.Errorf("got %q (%v)", out.String(), err)
		}
	})
	out.Reset()
	synctest.Test(t, func(t *testing.T) { // a step that waits for something else says so, at most every 5 s
		began := time.Now()
		describe := func() string { return fmt.Sprintf("step %d", min(2, int(time.Since(began)/(1500*time.Millisecond)))) }
		err := s.withProgress(describe, func() error {
			time.Sleep(13500 * time.Millisecond)
			return nil
		})
		if err != nil || out.String() != " step 0 1s\n step 2 6s\n" {
			t.Errorf("got %q (%v)", out.String(), err)
		}
	})
}

func TestProblemLines_FoldsEqualReasons(t *testing.T) {
	view := api.RunView{Status: api.StatusFailing}
	for num := range 3 {
		view.Replicas = append(view.Replicas, api.ReplicaView{Num: num, Status: dstack.ReplicaRestarting,
			Reason: fmt.Sprintf("replica %d exited with code 1", num)})
	}
	view.Replicas[1].Reason = "replica 1 exited with code 2"
	got := strings.Join(problemLines(view, false, time.Now()), "\n")
	if want := "2 replicas (0, 2): exited with code 1\nreplica 1 exited with code 2"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
