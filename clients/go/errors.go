package informerd

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrIncomplete says that an answer stopped before its end.
	ErrIncomplete = errors.New("informerd's answer ended too early")
	// ErrSilent says that a watch received nothing, not even a bookmark: the connection or the server is stuck.
	ErrSilent = errors.New("heard nothing from informerd")
	// ErrDiffers says that what a watch has told does not come to what informerd says that it holds: something was
	// lost on the way. The watch begins anew by itself, unless it was to leave nothing out (DELIVERY_EVERY, ON_GAP_FAIL).
	ErrDiffers = errors.New("what was told is not what informerd holds")
	// ErrContract says that informerd sent what this client cannot understand: their versions do not fit.
	ErrContract = errors.New("cannot understand informerd")
)

// reasonExpired is informerd's reason for the end of a stream whose caller's token or certificate has ended.
const reasonExpired = "CREDENTIALS_EXPIRED"

// EndedError says that informerd ended a stream in good order.
type EndedError struct {
	// One word: DRAINING, KIND_REMOVED, ...
	Reason string
	// The same for a person.
	Message string
	// How long it asks to wait; 0 where it does not.
	RetryAfter time.Duration
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("informerd ended the stream: %s: %s", e.Reason, e.Message)
}

// Reason is informerd's reason for an error in one word, such as KIND_NOT_CONFIGURED; empty where it gave none.
func Reason(err error) string {
	var ended *EndedError
	if errors.As(err, &ended) {
		return ended.Reason
	}
	if info := detail[*errdetails.ErrorInfo](err); info != nil {
		return info.GetReason()
	}
	return ""
}

// RetryDelay is how long informerd asks to wait before another try; 0 where it does not.
func RetryDelay(err error) time.Duration {
	var ended *EndedError
	if errors.As(err, &ended) && ended.RetryAfter > 0 {
		return ended.RetryAfter
	}
	if info := detail[*errdetails.RetryInfo](err); info != nil {
		return info.GetRetryDelay().AsDuration()
	}
	return 0
}

// IsPermanent reports whether another try of the same request is bound to fail as well.
func IsPermanent(err error) bool {
	if errors.Is(err, ErrContract) {
		return true
	}
	if Reason(err) == reasonExpired {
		// With new credentials it goes on.
		return false
	}
	switch code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
		codes.OutOfRange, codes.Unimplemented, codes.DataLoss, codes.Unauthenticated:
		return true
	}
	return false
}

// IsNotFound reports whether the object that was asked for does not exist. A kind that informerd does not watch is
// another thing.
func IsNotFound(err error) bool {
	return code(err) == codes.NotFound && Reason(err) == "OBJECT_NOT_FOUND"
}

// code is OK for what is not an answer of informerd or of gRPC.
func code(err error) codes.Code {
	if answer, ok := status.FromError(err); ok {
		return answer.Code()
	}
	return codes.OK
}

// detail is the first of a status's details that is a D, or nil.
func detail[D any](err error) (none D) {
	answer, ok := status.FromError(err)
	if !ok {
		return none
	}
	for _, any := range answer.Details() {
		if it, ok := any.(D); ok {
			return it
		}
	}
	return none
}
