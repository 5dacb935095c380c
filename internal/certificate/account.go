package certificate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mholt/acmez/v3/acme"
)

// storedAccount is an account at an ACME server. Each domain has its own, so that a
// process of one gateway has no power over the names of another.
type storedAccount struct {
	Location string `json:"location"`
	Email    string `json:"email,omitempty"`
	Key      string `json:"key"` // PEM
}

func (k *Keeper) accountKey(domain string) string { return k.ordersPrefix(domain) + "account.json" }

// openAccount reads the account of a domain, or registers it.
func (k *Keeper) openAccount(ctx context.Context, client *acme.Client, domain, email string) (acme.Account, error) {
	var account acme.Account
	err := waitForLock(ctx, k.opts.Storage, k.accountKey(domain), func(ctx context.Context) error {
		stored, err := k.loadAccount(ctx, domain)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			account, err = k.register(ctx, client, domain, email)
			return err
		case err != nil:
			return err
		}
		if account, err = stored.open(); err != nil {
			return err
		}
		if stored.Email != email {
			return k.changeEmail(ctx, client, domain, account, email)
		}
		return nil
	})
	return account, err
}

func (k *Keeper) loadAccount(ctx context.Context, domain string) (stored storedAccount, err error) {
	text, err := k.opts.Storage.Load(ctx, k.accountKey(domain))
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	return stored, err
}

// open returns the account with its key.
func (s storedAccount) open() (acme.Account, error) {
	block, _ := pem.Decode([]byte(s.Key))
	if block == nil {
		return acme.Account{}, errors.New("the key of the ACME account is damaged")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	return acme.Account{Status: acme.StatusValid, Location: s.Location, PrivateKey: key}, err
}

// register makes an account at the server and stores it.
func (k *Keeper) register(ctx context.Context, client *acme.Client, domain, email string) (acme.Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, err
	}
	account := acme.Account{Contact: contactOf(email), TermsOfServiceAgreed: true, PrivateKey: key}
	if k.acme.Load().KeyID != "" {
		binding := acme.EAB{KeyID: k.acme.Load().KeyID, MACKey: k.acme.Load().HMACKey}
		if err := account.SetExternalAccountBinding(ctx, client, binding); err != nil {
			return acme.Account{}, fmt.Errorf("DSTACK_ACME_EAB_HMAC_KEY cannot be used: %w", err)
		}
	}
	if account, err = client.NewAccount(ctx, account); err != nil {
		return acme.Account{}, fmt.Errorf("registering an account: %w", err)
	}
	account.PrivateKey = key
	return account, k.storeAccount(ctx, domain, account, email)
}

// changeEmail changes the address of an account at the server.
func (k *Keeper) changeEmail(ctx context.Context, client *acme.Client, domain string, account acme.Account, email string) error {
	changed := account
	changed.Contact = contactOf(email)
	if _, err := client.UpdateAccount(ctx, changed); err != nil {
		return fmt.Errorf("changing the address of the account: %w", err)
	}
	return k.storeAccount(ctx, domain, account, email)
}

func (k *Keeper) storeAccount(ctx context.Context, domain string, account acme.Account, email string) error {
	raw, err := x509.MarshalECPrivateKey(account.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return err
	}
	text, err := json.Marshal(storedAccount{Location: account.Location, Email: email,
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))})
	if err != nil {
		return err
	}
	return k.opts.Storage.Store(ctx, k.accountKey(domain), text)
}

func contactOf(email string) []string {
	if email == "" {
		return nil
	}
	return []string{"mailto:" + email}
}
