package link

import (
	"crypto/ecdsa"
	"encoding/asn1"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// notAfter is beyond every clock that a host may have.
var notAfter = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// certificate is an X.509 certificate of a P-256 key (RFC 5280, RFC 5480) with no
// signature to speak of: whoever reads it looks at the public key alone, and to sign
// it, and check that, would cost each process of a launch more than a handshake.
func certificate(pub *ecdsa.PublicKey) ([]byte, error) {
	point, err := pub.Bytes()
	if err != nil {
		return nil, err
	}
	var (
		ecdsaWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
		ecPublicKey     = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
		prime256v1      = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
		commonName      = asn1.ObjectIdentifier{2, 5, 4, 3}
		subjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	)
	const name = "gangway"
	algorithm := func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(ecdsaWithSHA256) })
	}
	who := func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(commonName)
					b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
				})
			})
		})
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // version 3
			b.AddASN1Int64(1)                                                                                           // serial number
			algorithm(b)
			who(b) // issuer
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1UTCTime(time.Unix(0, 0).UTC())
				b.AddASN1GeneralizedTime(notAfter)
			})
			who(b) // subject
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(ecPublicKey)
					b.AddASN1ObjectIdentifier(prime256v1)
				})
				b.AddASN1BitString(point)
			})
			b.AddASN1(cbasn1.Tag(3).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(subjectAltName)
						b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
								b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) }) // a DNS name
							})
						})
					})
				})
			})
		})
		algorithm(b)
		b.AddASN1BitString([]byte{0})
	})
	return b.Bytes()
}
