//! Lines of several writers for several readers.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use os::line_pipe::Reader;
use os::{line_pipe, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

fn received(read: BorrowedFd<'_>) -> Vec<String> {
    let mut buffer = Vec::new();
    let text = line_pipe::receive(read, &mut buffer);
    String::from_utf8(text.to_vec()).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn lines_come_whole_and_in_order() {
    let [read, write] = line_pipe::make().expect("descriptors");
    assert!(received(read.as_fd()).is_empty());
    for line in ["one", "", "two\nlines are one"] {
        assert!(line_pipe::send(write.as_fd(), line.to_owned()));
    }
    assert_eq!(received(read.as_fd()), ["one", "", "twolines are one"]);
    assert!(received(read.as_fd()).is_empty());
}

#[test]
fn a_long_line_is_cut_where_a_letter_begins() {
    let [read, write] = line_pipe::make().expect("descriptors");
    assert!(line_pipe::send(write.as_fd(), "ä".repeat(10_000)));
    let [line] = &received(read.as_fd())[..] else { panic!("one line") };
    assert!(line.len() > 4000 && line.len() < 4096);
    assert!(line.chars().all(|letter| letter == 'ä'));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_torn() {
    let [read, write] = line_pipe::make().expect("descriptors");
    let line = "x".repeat(99);
    let taken = (0..100_000).take_while(|_| line_pipe::send(write.as_fd(), line.clone())).count();
    assert!((600..100_000).contains(&taken), "{taken} lines");
    let lines = received(read.as_fd());
    assert_eq!(lines.len(), taken);
    assert!(lines.iter().all(|one| *one == line));
}

#[test]
fn several_readers_get_each_line_once() {
    const LINES: usize = 5000;
    let [read, write] = line_pipe::make().expect("descriptors");
    let read_all = || {
        let (mut got, mut buffer) = (String::new(), Vec::new());
        while !got.contains("end") {
            poll::wait([Some(read.as_fd())], None);
            let text = line_pipe::receive(read.as_fd(), &mut buffer);
            got.push_str(str::from_utf8(text).expect("text"));
        }
        // For the other readers.
        for _ in 1..got.matches("end").count() {
            assert!(line_pipe::send(write.as_fd(), "end".to_owned()));
        }
        got
    };
    let got = thread::scope(|scope| {
        let readers = [(); 3].map(|()| scope.spawn(read_all));
        for number in 0..LINES {
            while !line_pipe::send(write.as_fd(), number.to_string()) {}
        }
        for _ in &readers {
            assert!(line_pipe::send(write.as_fd(), "end".to_owned()));
        }
        readers.map(|reader| reader.join().expect("no panic")).concat()
    });
    let mut numbers: Vec<usize> =
        got.lines().filter(|line| *line != "end").map(|line| line.parse().expect(line)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(0..LINES));
}

#[test]
fn a_reader_does_not_wait_although_another_process_cleared_the_flag() {
    let [read, write] = line_pipe::make().expect("descriptors");
    for end in [&read, &write] {
        let flags = fcntl_getfl(end).expect("flags");
        fcntl_setfl(end, flags.difference(OFlags::NONBLOCK)).expect("they can be set");
    }
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = Reader::new(read.as_fd()).expect("descriptors");
        say.send(reader.receive().to_vec()).expect("the test waits");
        assert!(line_pipe::send(write.as_fd(), "a line".to_owned()));
        say.send(reader.receive().to_vec()).expect("the test waits");
    });
    let next = || said.recv_timeout(Duration::from_secs(30)).expect("it does not wait");
    assert_eq!(next(), b"");
    assert_eq!(next(), b"a line\n");
}

#[test]
fn a_reader_gets_all_that_a_full_pipe_holds_in_whole_lines() {
    let [read, write] = line_pipe::make().expect("descriptors");
    // Of all lengths, so that they meet the ends of pages in all ways.
    let line = |number: usize| format!("{number}{}", "x".repeat(number % 4000));
    let taken = (0..100_000).take_while(|number| line_pipe::send(write.as_fd(), line(*number)));
    let count = taken.count();
    let mut reader = Reader::new(read.as_fd()).expect("descriptors");
    let mut got = Vec::new();
    loop {
        let text = str::from_utf8(reader.receive()).expect("text");
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines");
        if text.is_empty() {
            break;
        }
        got.extend(text.lines().map(str::to_owned));
    }
    assert!(count > 10);
    assert_eq!(got, Vec::from_iter((0..count).map(line)));
}
