package informerd

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// maxMessageBytes is more than informerd sends in one message: one object alone may exceed its batches' 4 MiB.
const maxMessageBytes = 64 << 20

// Client is a connection to one informerd, safe for use by many goroutines. It connects when first used, and again
// whenever it must.
//
// The calls of one Client share one HTTP/2 connection and its flow control: a watch that is not read holds up the
// others. Give a slow consumer a Client of its own.
type Client struct {
	cache         pb.CacheServiceClient
	readiness     pb.ReadinessServiceClient
	introspection pb.IntrospectionServiceClient
	close         func() error
}

// New prepares a connection to target, a gRPC name such as "127.0.0.1:7443" or "dns:///informerd.informerd:7443"; it
// does not wait for it. Close it at the end.
//
// Options come after the client's own and win over them. Without one for transport credentials it speaks plaintext; see
// [Credentials].
func New(target string, options ...grpc.DialOption) (*Client, error) {
	own := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("informerd-go"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		// Finds a dead connection before a watch's patience ends.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
		// More than one flush in flight on a long round trip.
		grpc.WithInitialWindowSize(4 << 20),
		grpc.WithInitialConnWindowSize(16 << 20),
		// gRPC's own would come back up to two minutes after informerd does.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstDelay, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	connection, err := grpc.NewClient(target, append(own, options...)...)
	if err != nil {
		return nil, err
	}
	client := NewForConn(connection)
	client.close = connection.Close
	return client, nil
}

// NewForConn uses a connection that the caller has made and closes.
func NewForConn(connection grpc.ClientConnInterface) *Client {
	return &Client{
		cache:         pb.NewCacheServiceClient(connection),
		readiness:     pb.NewReadinessServiceClient(connection),
		introspection: pb.NewIntrospectionServiceClient(connection),
		close:         func() error { return nil },
	}
}

// Close ends the connection and all that goes over it.
func (c *Client) Close() error {
	return c.close()
}

// Kinds tells which kinds informerd is configured to watch, and how well it knows them.
func (c *Client) Kinds(ctx context.Context) ([]*pb.KindStatus, error) {
	reply, err := c.introspection.ListKinds(ctx, &pb.ListKindsRequest{})
	return reply.GetKinds(), err
}
