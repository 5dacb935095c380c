// Package main is one program with the parts of Kubernetes, chosen by the first argument. Tests run clusters of it.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

type part struct {
	name string // as the program of its own is called, whose name messages and metrics have
	make func() *cobra.Command
}

var parts = map[string]part{
	"apiserver":          {"kube-apiserver", apiserver.NewAPIServerCommand},
	"controller-manager": {"kube-controller-manager", controllers.NewControllerManagerCommand},
	"scheduler":          {"kube-scheduler", func() *cobra.Command { return scheduler.NewSchedulerCommand() }},
	"proxy":              {"kube-proxy", proxy.NewProxyCommand},
	"kubelet":            {"kubelet", func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }},
	"kubectl":            {"kubectl", kubectl.NewDefaultKubectlCommand},
}

func main() {
	var chosen part
	if filepath.Base(os.Args[0]) == "kubectl" { // by a symbolic link
		os.Args = append([]string{"kubebox", "kubectl"}, os.Args[1:]...)
	}
	if len(os.Args) > 1 {
		chosen = parts[os.Args[1]]
	}
	if chosen.make == nil {
		fmt.Fprintln(os.Stderr, "usage: kubebox apiserver|controller-manager|scheduler|proxy|kubelet|kubectl FLAGS")
		os.Exit(2)
	}
	os.Args = append([]string{chosen.name}, os.Args[2:]...)
	os.Exit(cli.Run(chosen.make()))
}
