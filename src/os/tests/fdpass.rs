//! Messages with two descriptors, from socket to socket.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use os::fdpass::{self, MESSAGE};

#[test]
fn a_message_brings_copies_of_both_descriptors() {
    let [receive, send] = fdpass::pair().expect("a pair");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let null = File::open("/dev/null").expect("it is there");
    fdpass::send(send.as_fd(), b"tunnel", [theirs.as_fd(), null.as_fd()]).expect("room");
    drop(theirs);

    let mut buffer = [0; MESSAGE];
    let (length, descriptors) = fdpass::receive(receive.as_fd(), &mut buffer).expect("a message");
    let [first, _second] = descriptors.expect("there is room");
    assert_eq!(&buffer[..length], b"tunnel");
    UnixStream::from(first).write_all(b"through the copy").expect("it is open");
    let mut text = String::new();
    (&ours).read_to_string(&mut text).expect("it ends with the copy");
    assert_eq!(text, "through the copy");
    let nothing = fdpass::receive(receive.as_fd(), &mut buffer).map(drop);
    assert_eq!(nothing.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}

#[test]
fn what_does_not_come_whole_is_an_error_and_gone() {
    let [receive, send] = fdpass::pair().expect("a pair");
    let null = File::open("/dev/null").expect("it is there");
    for message in [&b"much too long"[..], b"short"] {
        fdpass::send(send.as_fd(), message, [null.as_fd(); 2]).expect("room");
    }
    let mut buffer = [0; 5];
    let cut = fdpass::receive(receive.as_fd(), &mut buffer).map(drop);
    assert_eq!(cut.map_err(|error| error.kind()), Err(ErrorKind::InvalidData));
    assert!(fdpass::receive(receive.as_fd(), &mut buffer).is_ok());
    assert_eq!(&buffer, b"short");
}

#[test]
fn the_queue_is_bounded() {
    let [_receive, send] = fdpass::pair().expect("a pair");
    let null = File::open("/dev/null").expect("it is there");
    let full = (0..1000)
        .find_map(|_| fdpass::send(send.as_fd(), &[0; 100], [null.as_fd(); 2]).err())
        .expect("it is full at some time");
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
}
