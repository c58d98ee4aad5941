// Command gospiffe is a peer of svidecar that shares no code with it: go-spiffe on Go's own TLS.
//
// It tells what it sees as one JSON object a line on standard output, for the test that started it.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const usage = `usage:
  gospiffe client [flags]   mutual TLS to --connect, send lines, expect each back
  gospiffe server [flags]   mutual TLS on a free port of loopback, send each line back
  gospiffe watch  [flags]   tell every SVID and bundle that the Workload API sends
`

const maxLine = 64 << 10

type options struct {
	socket  string
	id      string
	connect string
	peer    string
	anyone  bool
	lines   int
	every   time.Duration
	patient time.Duration
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "", "the Workload API's address (unix:///path)")
	flags.StringVar(&o.id, "id", "", "which SVID to present when there are several; empty takes the default one")
	flags.StringVar(&o.connect, "connect", "", "client: where to")
	flags.StringVar(&o.peer, "peer", "", "the only SPIFFE ID to accept at the other end; empty accepts every verified one")
	flags.BoolVar(&o.anyone, "trust-anyone", false, "client: do not verify the other end, for tests of who is refused")
	flags.IntVar(&o.lines, "lines", 1, "client: how many lines to send")
	flags.DurationVar(&o.every, "every", 0, "client: the pause between lines")
	flags.DurationVar(&o.patient, "for", time.Minute, "how long to go on or to wait, at most")
	_ = flags.Parse(os.Args[2:])

	// Whatever the test forgets, this process ends.
	ctx, cancel := context.WithTimeout(context.Background(), o.patient)
	defer cancel()
	var err error
	switch os.Args[1] {
	case "client":
		err = client(ctx, o)
	case "server":
		err = server(ctx, o)
	case "watch":
		err = watch(ctx, o)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		tell("error", fields{"error": err.Error()})
		os.Exit(1)
	}
}

type fields map[string]any

var telling sync.Mutex

func tell(event string, f fields) {
	f["event"] = event
	line, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	telling.Lock()
	defer telling.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func source(ctx context.Context, o options) (*workloadapi.X509Source, error) {
	options := []workloadapi.X509SourceOption{workloadapi.WithClientOptions(workloadapi.WithAddr(o.socket))}
	if o.id != "" {
		options = append(options, workloadapi.WithDefaultX509SVIDPicker(func(svids []*x509svid.SVID) *x509svid.SVID {
			for _, svid := range svids {
				if svid.ID.String() == o.id {
					return svid
				}
			}
			return nil
		}))
	}
	return workloadapi.NewX509Source(ctx, options...)
}

func authorizer(o options) (tlsconfig.Authorizer, error) {
	if o.peer == "" {
		return tlsconfig.AuthorizeAny(), nil
	}
	id, err := spiffeid.FromString(o.peer)
	if err != nil {
		return nil, err
	}
	return tlsconfig.AuthorizeID(id), nil
}

func client(ctx context.Context, o options) error {
	x509Source, err := source(ctx, o)
	if err != nil {
		return err
	}
	defer x509Source.Close()
	authorize, err := authorizer(o)
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSClientConfig(x509Source, x509Source, authorize)
	if o.anyone {
		config.VerifyPeerCertificate = nil
	}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", o.connect)
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	tlsConn := conn.(*tls.Conn)
	state := tlsConn.ConnectionState()
	peer, err := x509svid.IDFromCert(state.PeerCertificates[0])
	if err != nil {
		return err
	}
	tell("connected", fields{
		"peer_id": peer.String(),
		"version": tls.VersionName(state.Version),
		"group":   state.CurveID.String(),
	})
	answers := bufio.NewReaderSize(conn, maxLine)
	for n := range o.lines {
		line := fmt.Sprintf("line %d\n", n)
		if _, err := conn.Write([]byte(line)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		answer, err := answers.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if string(answer) != line {
			return fmt.Errorf("sent %q, got back %q", line, answer)
		}
		tell("echoed", fields{"line": n})
		time.Sleep(o.every)
	}
	// TLS has its own end of a stream; who sees only TCP's must not take it for a clean one.
	if err := tlsConn.CloseWrite(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if _, err := answers.ReadByte(); err == nil {
		return errors.New("bytes nobody sent came after the last answer")
	}
	tell("done", fields{"lines": o.lines})
	return nil
}

func server(ctx context.Context, o options) error {
	x509Source, err := source(ctx, o)
	if err != nil {
		return err
	}
	defer x509Source.Close()
	authorize, err := authorizer(o)
	if err != nil {
		return err
	}
	listener, err := spiffetls.ListenWithMode(ctx, "tcp", "127.0.0.1:0",
		spiffetls.MTLSServerWithSource(authorize, x509Source))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	tell("listening", fields{"addr": listener.Addr().String()})
	slots := make(chan struct{}, 64)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil // the listener is closed when the time is over
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			if err := echo(ctx, conn); err != nil {
				tell("refused", fields{"error": err.Error()})
			}
		}()
	}
}

func echo(ctx context.Context, conn net.Conn) error {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(conn, maxLine)
	for first := true; ; first = false {
		line, err := lines.ReadSlice('\n')
		if err != nil && first {
			return err
		}
		if err != nil {
			tell("ended", fields{"error": err.Error()})
			return nil
		}
		if first {
			peer, err := spiffetls.PeerIDFromConn(conn)
			if err != nil {
				return err
			}
			tell("connection", fields{"peer_id": peer.String()})
		}
		if _, err := conn.Write(line); err != nil {
			return err
		}
	}
}

// Tells what the X509Source holds after each update, as an application that uses it would see it, and what the
// bundle stream says beside it.
func watch(ctx context.Context, o options) error {
	api, err := workloadapi.New(ctx, workloadapi.WithAddr(o.socket))
	if err != nil {
		return err
	}
	defer api.Close()
	x509Source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClient(api))
	if err != nil {
		return err
	}
	defer x509Source.Close()
	go func() { _ = api.WatchX509Bundles(ctx, bundleWatcher{}) }()
	for {
		svid, err := x509Source.GetX509SVID()
		if err != nil {
			return err
		}
		tellSVID(svid)
		select {
		case <-x509Source.Updated():
		case <-ctx.Done():
			return nil
		}
	}
}

func tellSVID(svid *x509svid.SVID) {
	leaf := svid.Certificates[0]
	tell("svid", fields{
		"id":        svid.ID.String(),
		"hint":      svid.Hint,
		"serial":    fmt.Sprintf("%x", leaf.SerialNumber),
		"not_after": leaf.NotAfter.UTC().Format(time.RFC3339),
	})
}

type bundleWatcher struct{}

func (bundleWatcher) OnX509BundlesUpdate(set *x509bundle.Set) {
	for _, bundle := range set.Bundles() {
		tell("bundle", fields{
			"trust_domain": bundle.TrustDomain().Name(),
			"authorities":  len(bundle.X509Authorities()),
		})
	}
}

func (bundleWatcher) OnX509BundlesWatchError(err error) {
	tell("bundle_error", fields{"error": err.Error()})
}
