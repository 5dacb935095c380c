package aws

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// TestProvider_KeepsTheProgramSmall tests that no interface reaches the client of EC2, for which the linker would keep all
// 830 actions, 30 MB: see Provider.client.
func TestProvider_KeepsTheProgramSmall(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(at string, of reflect.Type)
	walk = func(at string, of reflect.Type) {
		if seen[of] {
			return
		}
		seen[of] = true
		if of == reflect.TypeFor[ec2.Client]() {
			t.Errorf("%s has the client", at)
		}
		switch of.Kind() {
		case reflect.Struct:
			for i := range of.NumField() {
				walk(at+"."+of.Field(i).Name, of.Field(i).Type)
			}
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
			walk(at, of.Elem())
		case reflect.Map:
			walk(at, of.Key())
			walk(at, of.Elem())
		case reflect.Func:
			for i := range of.NumIn() {
				walk(at, of.In(i))
			}
			for i := range of.NumOut() {
				walk(at, of.Out(i))
			}
		default:
		}
	}
	walk("Provider", reflect.TypeFor[Provider]())
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") && strings.Contains(string(content), "Paginator(") {
			t.Errorf("%s uses a paginator of the SDK", name)
		}
	}
}
