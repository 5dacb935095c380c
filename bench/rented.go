package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/cloud"
	"dstack/internal/cloud/aws"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

const (
	rentedMachines = 200                   // that are asked for at once
	rentedAtOnce   = 32                    // steps of the instance pass at the same time
	rentedLatency  = 50 * time.Millisecond // of each answer of the cloud
)

// measureRented measures how long it takes to ask a cloud for many machines, each recorded before, and how many calls that
// needs. The cloud is a stand-in for EC2; the database is SQLite.
func (b *benchmark) measureRented(rounds int) error {
	var times []float64
	calls := 0
	for i := range rounds {
		took, n, err := b.rentMachines(i)
		if err != nil {
			return err
		}
		times, calls = append(times, toMilliseconds(took)), n
	}
	fmt.Printf("%d machines of a cloud with %s latency, asked for at once: %.0f ms (%.0f to %.0f), %d calls\n", rentedMachines, rentedLatency,
		median(times), slices.Min(times), slices.Max(times), calls)
	return nil
}

// rentMachines asks an empty account for machines. It returns how long that took, and the number of calls.
func (b *benchmark) rentMachines(round int) (took time.Duration, calls int, err error) {
	ctx := context.Background()
	ec2, err := ec2test.Start(ec2test.Options{Latency: rentedLatency})
	if err != nil {
		return 0, 0, err
	}
	defer ec2.Close()
	ec2.SetQuota("us-east-1", "L-1216C47A", 10*rentedMachines)
	sealer, err := store.NewSealer(filepath.Join(b.dir, "rented.key"))
	if err != nil {
		return 0, 0, err
	}
	database, err := store.Open(ctx, "sqlite://"+filepath.Join(b.dir, fmt.Sprintf("rented-%d.db", round)), sealer)
	if err != nil {
		return 0, 0, err
	}
	defer database.Close()
	account := aws.Open(aws.Settings{
		Credentials: aws.Credentials{AccessKey: ec2test.AccessKey, SecretKey: ec2test.SecretKey}, Regions: []string{"us-east-1"},
		DefaultVPCs: true, PublicIPs: true, Endpoint: ec2.URL,
	}, "bench")
	rented := cloud.New(cloud.Options{Key: "aws", Type: "aws", Provider: account, Regions: []string{"us-east-1"}, Store: database, Installation: "bench"})
	defer rented.Close()

	work, failures := make(chan int), make([]error, rentedMachines)
	var workers sync.WaitGroup
	began := time.Now()
	for range rentedAtOnce {
		workers.Go(func() {
			for i := range work {
				id := fmt.Sprintf("instance-%d-%d", round, i)
				failures[i] = rented.Create(ctx, backend.CreateRequest{
					Instance: dstack.InstanceID(id), Labels: map[string]string{backend.LabelInstance: id},
					Offer: dstack.Offer{Backend: "aws", Key: "aws", Region: "us-east-1", Type: "m7i.large", Hardware: dstack.Hardware{CPUs: 2, MemoryMiB: 8 << 10, DiskMiB: 100 << 10}},
				})
			}
		})
	}
	for i := range rentedMachines {
		work <- i
	}
	close(work)
	workers.Wait()
	took = time.Since(began)
	if n := len(ec2.Alive()); n != rentedMachines {
		err = fmt.Errorf("%d machines were rented, want %d", n, rentedMachines)
	}
	failures = slices.DeleteFunc(failures, func(err error) bool { return err == nil })
	if len(failures) > 0 {
		err = fmt.Errorf("%d requests failed: %w", len(failures), failures[0])
	}
	return took, len(ec2.Calls()), err
}
