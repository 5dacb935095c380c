package catalogue

import (
	"context"
	"errors"
	"time"

	"dstack/internal/loop"
)

// Tasks returns what keeps the tables up to date: a task for each cloud whose catalogue is downloaded, and one for each
// account whose cloud can be asked.
func (c *Catalogue) Tasks() (tasks []loop.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cloud, d := range c.downloaders {
		tasks = append(tasks, loop.Repeat("catalogue of "+cloud, loop.NewWake(), func(ctx context.Context) (time.Duration, error) {
			return c.download(ctx, d), nil
		}))
	}
	for _, p := range c.accounts {
		if p.account.ListTypes == nil || len(p.account.regionsToAsk()) == 0 {
			continue
		}
		tasks = append(tasks, loop.Repeat("prices of "+p.account.Key, loop.NewWake(), func(ctx context.Context) (time.Duration, error) {
			return c.askNext(ctx, p), nil
		}))
	}
	return tasks
}

// download looks for a newer catalogue of a cloud, and returns how long to wait until the next look.
func (c *Catalogue) download(ctx context.Context, d *downloader) (wait time.Duration) {
	started := time.Now()
	table, skipped, err := d.refresh(ctx, started)
	if ctx.Err() != nil {
		return 0
	}
	for _, p := range c.setDownloaded(d.cloud, table) {
		p.setProblem(d.url.String(), err)
		if table != nil {
			p.rebuild(table)
		}
	}
	if table != nil {
		c.settings.Log.Info("downloaded a catalogue", "cloud", d.cloud, "version", d.last.Version, "rows", table.Len(),
			"took", time.Since(started).Round(time.Millisecond))
	}
	if skipped != nil {
		c.settings.Log.Warn("a catalogue has rows that cannot be used", "cloud", d.cloud, "err", skipped)
	}
	if err == nil {
		c.failures.Forget(d.cloud)
		return refreshInterval
	}
	c.logFailure(d.cloud, "a newer catalogue could not be downloaded; the last good copy is used", "cloud", err)
	wait = retryInterval
	if answer, ok := errors.AsType[*statusError](err); ok {
		wait = max(wait, answer.retryAfter)
	}
	return wait
}

// setDownloaded remembers a downloaded table, if there is one, and returns the accounts of its cloud.
func (c *Catalogue) setDownloaded(cloud string, table *Table) (accounts []*Prices) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if table != nil {
		c.downloaded[cloud] = table
	}
	for _, p := range c.accounts {
		if p.account.Cloud == cloud {
			accounts = append(accounts, p)
		}
	}
	return accounts
}

func (c *Catalogue) getDownloaded(cloud string) *Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.downloaded[cloud]
}

// askNext asks the cloud of an account for the region that is due first, and returns how long to wait until the next is
// due. Regions that the downloaded catalogue has are not asked for.
func (c *Catalogue) askNext(ctx context.Context, p *Prices) (wait time.Duration) {
	started := time.Now()
	region, wait := p.findDueRegion(c.getDownloaded(p.account.Cloud), started)
	if wait > 0 {
		return wait
	}
	rows, err := p.asked.list(ctx, region)
	if ctx.Err() != nil {
		return 0
	}
	p.setProblem(region, err)
	saved := p.keepAsked(region, rows, err, time.Now())
	if err != nil {
		c.logFailure(p.account.Key+" "+region, "a cloud did not tell its prices; older ones are used", "backend", err)
		return 0
	}
	c.failures.Forget(p.account.Key + " " + region)
	if saved != nil {
		c.logFailure(p.account.Key, "the prices of a cloud cannot be kept on disk; the next start asks for them again", "backend", saved)
	}
	p.rebuild(c.getDownloaded(p.account.Cloud))
	c.settings.Log.Info("asked a cloud for its prices", "backend", p.account.Key, "region", region, "rows", len(rows),
		"took", time.Since(started).Round(time.Millisecond))
	return 0
}

// keepAsked keeps what the cloud said about a region, or when to ask again if that failed. An error says that it could not
// be written to disk.
func (p *Prices) keepAsked(region string, rows []Row, err error, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.retryAt[region] = now.Add(retryInterval)
		return nil
	}
	delete(p.retryAt, region)
	return p.asked.keep(region, rows, now)
}

// findDueRegion returns the region that was due first, or how long to wait if none is.
func (p *Prices) findDueRegion(downloaded *Table, now time.Time) (region string, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = refreshInterval
	for _, one := range p.account.regionsToAsk() {
		if downloaded != nil && containsFold(downloaded.regions, one) {
			delete(p.failed, one)
			continue
		}
		due := p.retryAt[one]
		if due.IsZero() {
			due = p.asked.Regions[one].At.Add(refreshInterval)
		}
		if d := max(due.Sub(now), 0); d < wait {
			region, wait = one, d
		}
	}
	return region, wait
}

func (c *Catalogue) logFailure(key, message, kind string, err error) {
	if skipped, ok := c.failures.Admit(key, err.Error(), time.Now()); ok {
		c.settings.Log.Warn(message, kind, key, "err", err, "not_logged", skipped)
	}
}
