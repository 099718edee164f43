//! Back ends, and clients, that are gone altogether while the other side says nothing.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;

use common::*;
use relay::{By, Why};

/// A unix socket tells when its peer is gone altogether, and of an end of one direction as of that alone.
#[test]
fn who_is_gone_altogether_ends_the_tunnel() {
    for by in [By::Client, By::Backend] {
        let (relay, _) = relay(1);
        let ((unix, inside), (mut tcp, other)) = (unix_pair(), tcp_pair());
        let (tunnel, ends) = match by {
            By::Client => tunnel(inside, other),
            _ => tunnel(other, inside),
        };
        relay.adopt(tunnel).expect("adopted");
        (&unix).write_all(b"last words").expect("write");
        unix.shutdown(Shutdown::Write).expect("shutdown");
        let mut got = [0; 10];
        tcp.read_exact(&mut got).expect("read");
        expect_end(&tcp);
        // That was half of it.
        tcp.write_all(&got).expect("write");
        (&unix).read_exact(&mut got).expect("read");
        assert_eq!((&got, relay.open()), (b"last words", 1));
        // The other side says nothing and does not end.
        drop(unix);
        let end = ends.wait();
        assert_eq!((end.by, &end.why), (by, &Why::Closed));
        assert_eq!((end.bytes_up, end.bytes_down), (10, 10));
    }
}
