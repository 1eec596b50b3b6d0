package main

import (
	"context"
	"net"
	"time"
)

// dialer is another one each time, so that client-go, which shares transports between configurations that look
// alike, gives each informer a connection of its own.
func dialer() func(context.Context, string, string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}
}
