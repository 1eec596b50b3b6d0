package informerd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// door notes by what each stream was asked for, and lets in whom it is told to.
type door struct {
	lock sync.Mutex
	// Tokens, and after a colon the number of the client's certificate, if there was one.
	shown []string
	// lets says who is let in; everybody if it is nil.
	lets func(shown string) error
}

func (d *door) intercept(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	sent, _ := metadata.FromIncomingContext(stream.Context())
	shown := strings.Join(sent.Get("authorization"), ",")
	from, _ := peer.FromContext(stream.Context())
	if secured, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(secured.State.PeerCertificates) > 0 {
		shown += ":" + secured.State.PeerCertificates[0].SerialNumber.String()
	}
	d.lock.Lock()
	d.shown = append(d.shown, shown)
	d.lock.Unlock()
	if d.lets != nil {
		if err := d.lets(shown); err != nil {
			return err
		}
	}
	return next(server, stream)
}

func (d *door) seen() []string {
	d.lock.Lock()
	defer d.lock.Unlock()
	return slices.Clone(d.shown)
}

// authority signs certificates for tests, and writes them to files.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.certificate = a.make(&x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		Subject: pkix.Name{CommonName: "tests"}, NotAfter: time.Now().Add(1000 * time.Hour),
	})
	return a
}

func (a *authority) make(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.serial++
	template.SerialNumber, template.NotBefore = big.NewInt(a.serial), time.Now().Add(-time.Minute)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, certificate
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ca writes its own certificate.
func (a *authority) ca(file string) {
	a.t.Helper()
	write(a.t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})))
}

// client writes a certificate for a client and its key, and gives its number.
func (a *authority) client(folder string, lifetime time.Duration) string {
	a.t.Helper()
	key, certificate := a.make(&x509.Certificate{
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotAfter: time.Now().Add(lifetime),
	})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	write(a.t, filepath.Join(folder, "client.key"), text("PRIVATE KEY", der))
	write(a.t, filepath.Join(folder, "client.crt"), text("CERTIFICATE", certificate.Raw))
	return certificate.SerialNumber.String()
}

// server is what a server of the name "fake" takes, which believes clients of this authority.
func (a *authority) server() grpc.ServerOption {
	a.t.Helper()
	key, certificate := a.make(&x509.Certificate{
		DNSNames: []string{"fake"}, NotAfter: time.Now().Add(1000 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	clients := x509.NewCertPool()
	clients.AddCert(a.certificate)
	return grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: clients,
	}))
}

func optionsOf(t *testing.T, from Credentials) []grpc.DialOption {
	t.Helper()
	options, err := from.Options()
	if err != nil {
		t.Fatal(err)
	}
	return options
}

// secured is a fake behind a door and TLS, and a folder with ca.crt and a token "first".
func secured(t *testing.T, f *fake, d *door) (*authority, string) {
	t.Helper()
	authority, folder := newAuthority(t), t.TempDir()
	authority.ca(filepath.Join(folder, "ca.crt"))
	write(t, filepath.Join(folder, "token"), "first\n")
	f.served = []grpc.ServerOption{authority.server(), grpc.StreamInterceptor(d.intercept)}
	return authority, folder
}

func withToken(folder string) Credentials {
	return Credentials{CA: filepath.Join(folder, "ca.crt"), TokenFile: filepath.Join(folder, "token")}
}

// expired is how informerd ends a stream whose caller's credentials have ended.
func expired(t *testing.T) error {
	t.Helper()
	with, err := status.New(codes.Unauthenticated, "the credentials have expired").
		WithDetails(&errdetails.ErrorInfo{Reason: "CREDENTIALS_EXPIRED", Domain: "informerd"})
	if err != nil {
		t.Fatal(err)
	}
	return with.Err()
}

// endsExpired begins, and ends as informerd does it when the credentials have ended; before that, something else is done.
func endsExpired(before func()) script[pb.WatchObjectsResponse] {
	return func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
		for _, message := range initial() {
			send(message)
		}
		time.Sleep(5 * time.Second)
		before()
		end := marked(pb.MarkType_MARK_TYPE_END, 2)
		end.Mark.Reason = reasonExpired
		send(end)
		return expired(t)
	}
}

func TestAWatchGoesOnWithTheTokenThatTheFileHasByThen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, d := &fake{}, &door{}
		_, folder := secured(t, f, d)
		replaced := func() { write(t, filepath.Join(folder, "token"), "second\n") }
		f.objects = []script[pb.WatchObjectsResponse]{endsExpired(replaced), plays(upsert("a", "a1", 7), progress(7))}
		f.dialed = optionsOf(t, withToken(folder))
		events, mirror := follow(t, f, "7")
		expect(t, "shown", d.seen(), "Bearer first", "Bearer second")
		expect(t, "resumed from", f.seen(), "", "2")
		expect(t, "held", versions(mirror), "a a1 7", "b b1 2")
		if cuts := cuts(events); len(cuts) != 1 || Reason(cuts[0].Err) != reasonExpired {
			t.Errorf("cuts: %v", cuts)
		}
		if IsPermanent(expired(t)) {
			t.Error("with new credentials it goes on")
		}
	})
}

// refusing lets nobody in who shows this, as informerd does it.
func refusing(what string) func(string) error {
	first := true
	return func(shown string) error {
		if shown == what && !first {
			return status.Error(codes.Unauthenticated, "the token has expired")
		}
		first = false
		return nil
	}
}

func TestATokenThatIsReplacedLateIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, d := &fake{}, &door{lets: refusing("Bearer first")}
		_, folder := secured(t, f, d)
		late := func() {
			time.AfterFunc(20*time.Second, func() { write(t, filepath.Join(folder, "token"), "second") })
		}
		f.objects = []script[pb.WatchObjectsResponse]{endsExpired(late), plays(progress(7))}
		f.dialed = optionsOf(t, withToken(folder))
		events, _ := follow(t, f, "7")
		expect(t, "resumed from", f.seen(), "", "2")
		if shown := d.seen(); len(shown) < 4 || shown[len(shown)-1] != "Bearer second" {
			t.Errorf("shown: %v", shown)
		}
		if cuts := cuts(events); code(cuts[1].Err) != codes.Unauthenticated {
			t.Errorf("cuts: %v", cuts)
		}
	})
}

func TestATokenThatIsNeverReplacedEndsTheWatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, d := &fake{}, &door{lets: refusing("Bearer first")}
		_, folder := secured(t, f, d)
		f.objects = []script[pb.WatchObjectsResponse]{endsExpired(func() {})}
		f.dialed = optionsOf(t, withToken(folder))
		began := time.Now()
		var last error
		for _, err := range serve(t, f).Watch(t.Context(), pods) {
			last = err
		}
		if code(last) != codes.Unauthenticated {
			t.Errorf("ended by %v", last)
		}
		if took := time.Since(began); took < renewal || took > 2*renewal {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestWhoeverWasNeverLetInIsToldAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &fake{}
		d := &door{lets: func(string) error { return status.Error(codes.Unauthenticated, "who is that?") }}
		_, folder := secured(t, f, d)
		f.dialed = optionsOf(t, withToken(folder))
		for event, err := range serve(t, f).Watch(t.Context(), pods) {
			if code(err) != codes.Unauthenticated {
				t.Errorf("%v, %v", event, err)
			}
		}
		expect(t, "shown", d.seen(), "Bearer first")
	})
}

func TestATokenFileThatIsEmptyForAMomentIsReadAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, d := &fake{}, &door{}
		_, folder := secured(t, f, d)
		file := filepath.Join(folder, "token")
		f.objects = []script[pb.WatchObjectsResponse]{
			func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
				for _, message := range initial() {
					send(message)
				}
				time.Sleep(time.Second)
				write(t, file, "")
				time.AfterFunc(2*time.Second, func() { write(t, file, "second") })
				return errCut
			},
			plays(progress(7)),
		}
		f.dialed = optionsOf(t, withToken(folder))
		follow(t, f, "7")
		expect(t, "shown", d.seen(), "Bearer first", "Bearer second")
		expect(t, "resumed from", f.seen(), "", "2")
	})
}

func TestAConnectionEndsWithItsCertificateAndTheNextOneHasTheNew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, d := &fake{}, &door{}
		authority, folder := secured(t, f, d)
		first := authority.client(folder, 20*time.Second)
		second := ""
		f.objects = []script[pb.WatchObjectsResponse]{
			func(t *testing.T, send func(*pb.WatchObjectsResponse)) error {
				for _, message := range initial() {
					send(message)
				}
				time.Sleep(10 * time.Second)
				second = authority.client(folder, time.Hour)
				<-t.Context().Done()
				return nil
			},
			plays(progress(7)),
		}
		own := withToken(folder)
		own.Certificate, own.Key = filepath.Join(folder, "client.crt"), filepath.Join(folder, "client.key")
		own.TokenFile = ""
		f.dialed = optionsOf(t, own)
		began := time.Now()
		follow(t, f, "7")
		expect(t, "shown", d.seen(), ":"+first, ":"+second)
		expect(t, "resumed from", f.seen(), "", "2")
		if took := time.Since(began); took < 19*time.Second || took > 22*time.Second {
			t.Errorf("it went on after %v", took)
		}
	})
}

func TestAServerOfAnotherAuthorityIsNotBelieved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, d := &fake{}, &door{}
		_, folder := secured(t, f, d)
		newAuthority(t).ca(filepath.Join(folder, "ca.crt"))
		f.dialed = optionsOf(t, withToken(folder))
		_, err := serve(t, f).List(t.Context(), &pb.ListObjectsRequest{Scope: pods.GetScope()})
		if code(err) != codes.Unavailable || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
		expect(t, "shown", d.seen())
	})
}

// elsewhere is a connection to a machine that is not this one.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7443}
}

func TestWithoutTLSATokenIsSentToThisMachineOnly(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, "token"), "first")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, d := &fake{t: t, list: []*pb.ListObjectsResponse{{End: &pb.ListEnd{}}}}, &door{}
	server := grpc.NewServer(grpc.StreamInterceptor(d.intercept))
	pb.RegisterCacheServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	list := func(more ...grpc.DialOption) error {
		own := optionsOf(t, Credentials{TokenFile: filepath.Join(folder, "token")})
		client, err := New(listener.Addr().String(), append(own, more...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_, err = client.List(t.Context(), &pb.ListObjectsRequest{Scope: pods.GetScope()})
		return err
	}
	if err := list(); err != nil {
		t.Error(err)
	}
	expect(t, "shown", d.seen(), "Bearer first")
	err = list(grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return elsewhere{connection}, err
	}))
	if code(err) != codes.Unavailable {
		t.Errorf("sent elsewhere: %v", err)
	}
	expect(t, "shown", d.seen(), "Bearer first")
	// A transport of the caller's own might lead anywhere.
	if err := list(grpc.WithTransportCredentials(insecure.NewCredentials())); code(err) != codes.Unauthenticated {
		t.Errorf("sent in plain text: %v", err)
	}
	expect(t, "shown", d.seen(), "Bearer first")
}

func TestCredentialsThatAreOfNoUseAreRefusedAtOnce(t *testing.T) {
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	authority := newAuthority(t)
	authority.ca(at("ca.crt"))
	authority.client(folder, time.Hour)
	write(t, at("empty"), "\n")
	for what, wrong := range map[string]Credentials{
		"half a certificate":       {CA: at("ca.crt"), Certificate: at("client.crt")},
		"a certificate and no TLS": {Certificate: at("client.crt"), Key: at("client.key")},
		"no such authority":        {CA: at("none")},
		"no certificate":           {CA: at("empty")},
		"the key of another":       {CA: at("ca.crt"), Certificate: at("ca.crt"), Key: at("client.key")},
		"no such token":            {TokenFile: at("none")},
		"no token":                 {TokenFile: at("empty")},
	} {
		if _, err := wrong.Options(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if none, err := (Credentials{}).Options(); len(none) > 0 || err != nil {
		t.Errorf("%v, %v", none, err)
	}
}
