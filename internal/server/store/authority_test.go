package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestAuthority_AllServersGetTheSame(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		if _, err := h.s.Authority(h.ctx(), func() ([]byte, error) { return nil, errors.New("no entropy") }); err == nil {
			t.Error("an authority that could not be made is stored")
		}
		var group errgroup.Group
		var made atomic.Int64
		got := make([][]byte, 4)
		for i := range got {
			group.Go(func() (err error) {
				got[i], err = h.s.Authority(h.ctx(), func() ([]byte, error) { return fmt.Appendf(nil, "canary-authority-%d", made.Add(1)), nil })
				return err
			})
		}
		h.noError(group.Wait())
		h.restart()
		again, err := h.s.Authority(h.ctx(), func() ([]byte, error) { return nil, errors.New("there is one") })
		h.noError(err)
		for _, one := range got {
			if !bytes.Equal(one, again) || len(one) == 0 {
				t.Errorf("%q instead of %q", one, again)
			}
		}
		var sealed string
		h.noError(h.openRaw().QueryRowContext(h.ctx(), "SELECT sealed FROM installation_authority").Scan(&sealed))
		if bytes.Contains([]byte(sealed), []byte("canary")) || bytes.Contains(h.everything(), []byte("canary-authority")) {
			t.Error("the authority's key is readable in the database")
		}
	})
}
