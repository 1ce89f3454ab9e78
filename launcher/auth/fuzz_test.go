package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzToken: what is taken for a token is written in one way only, and what is not
// is a refusal.
func FuzzToken(f *testing.F) {
	f.Add("gangway_001122334455_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("gangway_001122334455_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_\n")
	f.Add("gangway_")
	f.Fuzz(func(t *testing.T, s string) {
		id, secret, err := parseToken(s)
		if err != nil {
			if !errors.Is(err, ErrDenied) {
				t.Errorf("%v is not a refusal", err)
			}
			return
		}
		if again := tokenPrefix + id + "_" + secret; again != s {
			t.Errorf("%q was read as %q", s, again)
		}
	})
}

func FuzzJoinToken(f *testing.F) {
	f.Add(joinToken{id: "001122334455"}.text())
	f.Add(joinPrefix)
	f.Add("\n" + joinPrefix + "AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := parseJoin(s)
		if err != nil {
			if !errors.Is(err, ErrDenied) || len(s) > 40 && strings.Contains(err.Error(), s) {
				t.Errorf("%v", err)
			}
			return
		}
		if tok.text() != s {
			t.Errorf("%q was read as %q", s, tok.text())
		}
	})
}

// FuzzKeyring: what can be read is written and read as the same.
func FuzzKeyring(f *testing.F) {
	dir, c := f.TempDir()+"/data", newClock()
	k := openKeyring(f, dir, c)
	must2(k.AddAccount(Principal{Name: "team", Role: Admin}))(f)
	if _, _, err := k.AddToken(Principal{Name: "alice", Role: Submitter, NodeUser: "alice"}, 1e12); err != nil {
		f.Fatal(err)
	}
	f.Add(must2(os.ReadFile(filepath.Join(dir, keyringName)))(f))
	f.Add([]byte(`{"version":1,"localUsersOff":true}`))
	f.Add([]byte(`{"version":1,"tokens":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip(t, data, decodeKeys, encodeKeys, cmp.AllowUnexported(keys{}, accountEntry{}, tokenEntry{}), cmpopts.IgnoreFields(keys{}, "Version"))
	})
}

func FuzzMembers(f *testing.F) {
	dir, c := f.TempDir()+"/data", newClock()
	ca := openCA(f, dir, c)
	token := joinTokenOf(f, ca, JoinSpec{Uses: 3})
	key := must2(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(f)
	csr := must2(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(f)
	must2(ca.Join(JoinRequest{Token: token, Node: "n1", CSR: csr}))(f)
	if err := ca.RevokeNode("n1"); err != nil {
		f.Fatal(err)
	}
	f.Add(must2(os.ReadFile(filepath.Join(dir, membersName)))(f))
	f.Add([]byte(`{"version":1,"certificates":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip(t, data, decodeMembers, encodeMembers, cmp.AllowUnexported(members{}), cmpopts.IgnoreFields(members{}, "Version"))
	})
}

func roundTrip[T any](t *testing.T, data []byte, decode func([]byte) (*T, error), encode func(*T) ([]byte, error), opts ...cmp.Option) {
	t.Helper()
	v, err := decode(data)
	if err != nil {
		return
	}
	out, err := encode(v)
	if err != nil {
		t.Fatalf("read %q and can't write it: %v", data, err)
	}
	again, err := decode(out)
	if err != nil {
		t.Fatalf("can't read %q: %v", out, err)
	}
	if d := cmp.Diff(v, again, append(opts, cmpopts.EquateEmpty())...); d != "" {
		t.Errorf("%q: %s", data, d)
	}
}

func FuzzIdentity(f *testing.F) {
	key := must2(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(f)
	dir := f.TempDir() + "/agent"
	must2(0, openDir(dir))(f)
	id := identityFile{URL: "https://x:1", Node: "n1", Token: "001122334455", Key: must2(x509.MarshalPKCS8PrivateKey(key))(f)}
	must2(0, id.save(dir, joiningName))(f)
	f.Add(must2(os.ReadFile(filepath.Join(dir, joiningName)))(f))
	ca := openCA(f, f.TempDir()+"/data", newClock())
	csr := must2(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(f)
	r := must2(ca.Join(JoinRequest{Token: joinTokenOf(f, ca, JoinSpec{}), Node: "n1", CSR: csr}))(f)
	id.Cert, id.CA = r.Certificate, r.CA
	must2(0, id.save(dir, identityName))(f)
	f.Add(must2(os.ReadFile(filepath.Join(dir, identityName)))(f))
	f.Add([]byte(`{"version":1,"node":"n1","key":"AAAA"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, key, cert, ca, err := decodeIdentity(data)
		if err == nil && (key == nil || (cert == nil) != (ca == nil)) {
			t.Errorf("half an identity from %q", data)
		}
	})
}

func FuzzPair(f *testing.F) {
	ca := must2(newCA(newClock().now()))(f)
	f.Add(ca)
	f.Add(bytes.Repeat(ca[:100], 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, key, err := decodePair(data)
		if err == nil && !key.PublicKey.Equal(cert.PublicKey) {
			t.Error("a key that is not its certificate's")
		}
	})
}

func FuzzCSR(f *testing.F) {
	key := must2(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(f)
	f.Add(must2(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		pub, text, err := parseCSR(data)
		if err == nil && (pub.Curve != elliptic.P256() || !isHex(text, 32)) {
			t.Errorf("a key that nodes don't have: %s", text)
		}
	})
}

func FuzzPasswd(f *testing.F) {
	f.Add("alice:x:1000:1000:Alice:/home/alice:/bin/sh")
	f.Add("::::::")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parsePasswd(s)
		if err == nil && (checkLogin(u.Name) != nil || u.UID < 0 || u.GID < 0) {
			t.Errorf("%q is user %+v", s, u)
		}
	})
}
