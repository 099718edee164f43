//! Lines of several writers for several readers.

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use os::{line_pipe, poll};

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
