//! Whoever is refused what should have worked leaves the kernel alone for a moment: it would be asked
//! again at once.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use os::line_pipe::{self, Reader};
use os::{fdpass, packets};

/// A little less than the rest, as clocks differ.
const A_REST: Duration = Duration::from_millis(15);

/// How long that takes at least, of several times: the machine may be busy.
fn took(mut body: impl FnMut()) -> Duration {
    let once = |_| {
        let since = Instant::now();
        body();
        since.elapsed()
    };
    (0..20).map(once).min().unwrap_or_default()
}

#[test]
fn what_is_no_socket_is_asked_again_after_a_rest() {
    let file = File::open("/dev/null").expect("it is there");
    type Receive = fn(BorrowedFd<'_>, &mut [u8]) -> io::Result<usize>;
    let receive: [Receive; 2] = [
        |fd, buffer| fdpass::receive(fd, buffer).map(|(length, _)| length),
        |fd, buffer| packets::receive(fd, buffer),
    ];
    for receive in receive {
        let refused = receive(file.as_fd(), &mut [0; 8]).map_err(|error| error.raw_os_error());
        assert_eq!(refused, Err(Some(libc::ENOTSOCK)));
        assert!(took(|| drop(receive(file.as_fd(), &mut [0; 8]))) >= A_REST);
    }
}

#[test]
fn lines_that_cannot_be_moved_are_asked_for_again_after_a_rest() {
    let directory = File::open("/").expect("it is there");
    let mut reader = Reader::new(directory.as_fd()).expect("descriptors");
    assert!(took(|| assert!(reader.receive().is_empty())) >= A_REST);
    // A directory can be read, as poll has it.
    assert!(
        took(|| assert!(line_pipe::receive(directory.as_fd(), &mut Vec::new()).is_empty()))
            >= A_REST
    );
}

#[test]
fn that_there_is_nothing_is_no_refusal() {
    let [receive, _send] = fdpass::pair().expect("a pair");
    let [read, _write] = line_pipe::make().expect("a pipe");
    let mut reader = Reader::new(read.as_fd()).expect("descriptors");
    let took = took(|| {
        let nothing = fdpass::receive(receive.as_fd(), &mut [0; 8]).map(drop);
        assert_eq!(nothing.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        assert!(reader.receive().is_empty());
    });
    assert!(took < A_REST);
}
