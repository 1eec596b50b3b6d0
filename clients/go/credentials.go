package informerd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/status"
)

// Credentials are files that a client proves itself with, and knows informerd by. They are read when they are used, the
// token for each call and certificates for each connection, so that it goes on with whatever replaces them.
type Credentials struct {
	// CA has the authorities that sign informerd's certificate (PEM). With it all goes over TLS. The certificate is to
	// name the target's host, or else what grpc.WithAuthority says.
	CA string
	// Certificate and Key are the client's own (PEM); they go together, and with CA.
	Certificate, Key string
	// TokenFile has a Kubernetes token for the audience that informerd asks for. Without CA it is sent to this machine
	// only.
	TokenFile string
}

// Options are what [New] takes to use them. It is an error if they are of no use as they are.
func (c Credentials) Options() ([]grpc.DialOption, error) {
	var options []grpc.DialOption
	switch {
	case (c.Certificate == "") != (c.Key == ""):
		return nil, errors.New("a client certificate goes with its key: give both")
	case c.Certificate != "" && c.CA == "":
		return nil, errors.New("a client certificate goes over TLS: give the authority of informerd's own, too")
	case c.CA != "":
		config, err := c.tls()
		if err != nil {
			return nil, err
		}
		transport := &certificates{credentials.NewTLS(config), c}
		options = append(options, grpc.WithTransportCredentials(transport))
	case c.TokenFile != "":
		// A proxy on this machine would be one to it, and take the token elsewhere.
		options = append(options, grpc.WithTransportCredentials(local.NewCredentials()), grpc.WithNoProxy())
	}
	if c.TokenFile != "" {
		bearer := bearer{file: c.TokenFile, secured: c.CA != ""}
		if _, err := bearer.read(); err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer))
	}
	return options, nil
}

// tls is a configuration by what the files have now.
func (c Credentials) tls() (*tls.Config, error) {
	authorities, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("cannot read the authorities: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("%s has no certificate in PEM", c.CA)
	}
	if c.Certificate != "" {
		own, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return nil, fmt.Errorf("cannot use the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

// certificates is TLS by files that are read for each connection.
type certificates struct {
	// What says of itself what any TLS does.
	credentials.TransportCredentials
	files Credentials
}

func (c *certificates) Clone() credentials.TransportCredentials {
	return &certificates{c.TransportCredentials.Clone(), c.files}
}

func (c *certificates) ClientHandshake(
	ctx context.Context, authority string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	config, err := c.files.tls()
	if err != nil {
		return nil, nil, err
	}
	connection, info, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
	if err != nil || len(config.Certificates) == 0 {
		return connection, info, err
	}
	// A connection has the certificate that it began with, and nobody is let in by one that has ended.
	ends := time.AfterFunc(time.Until(config.Certificates[0].Leaf.NotAfter), func() { connection.Close() })
	return ending{connection, ends}, info, nil
}

// ending is a connection that is closed at some time.
type ending struct {
	net.Conn
	at *time.Timer
}

func (e ending) Close() error {
	e.at.Stop()
	return e.Conn.Close()
}

// bearer adds a token to each call.
type bearer struct {
	file    string
	secured bool
}

func (b bearer) read() (string, error) {
	text, err := os.ReadFile(b.file)
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("there is no token in %s", b.file)
	}
	if strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("what is in %s is no token", b.file)
	}
	return token, nil
}

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	// Whoever put another transport in the place of ours gets no token for it.
	info, _ := credentials.RequestInfoFromContext(ctx)
	if !b.secured && (info.AuthInfo == nil || info.AuthInfo.AuthType() != "local") {
		return nil, status.Error(codes.Unauthenticated, "a token is not sent to another machine in plain text: give its CA")
	}
	token, err := b.read()
	if err != nil {
		// Perhaps it is being replaced.
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is false where the transport does not leave this machine.
func (b bearer) RequireTransportSecurity() bool {
	return b.secured
}
