//! Lines in files and pipes.

use std::io::{PipeReader, Read, pipe};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use os::log_file::{write, write_now};

/// All that is there.
fn drained(mut reader: PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("the pipe is read");
    bytes
}

/// Writes lines of such lengths until none fits, and checks that what is there is whole lines.
fn fill(lengths: &[usize]) -> usize {
    let (reader, writer) = pipe().expect("a pipe");
    let mut written = Vec::new();
    for length in lengths.iter().cycle() {
        let mut line = vec![b'x'; length - 1];
        line.push(b'\n');
        if !write_now(writer.as_fd(), &line) {
            break;
        }
        written.push(*length);
    }
    drop(writer);
    let bytes = drained(reader);
    let lines: Vec<usize> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    assert_eq!(lines, written);
    bytes.len()
}

#[test]
fn a_pipe_that_nobody_reads_has_whole_lines_only() {
    for lengths in [
        &[100][..],
        &[4096],
        &[4097],
        &[5000],
        &[8190],
        &[20_000],
        &[1, 5000],
        &[4000, 4200, 90],
        &[3000, 9000, 2000],
        &[2049, 4097],
        &[50_000],
    ] {
        assert!(fill(lengths) >= 20_000, "{lengths:?}");
    }
}

/// A thread that writes waits before a long line, not within it: the process may end meanwhile.
#[test]
fn a_line_for_which_there_is_no_room_is_not_begun() {
    let (mut reader, writer) = pipe().expect("a pipe");
    let line = vec![b'x'; 10_017];
    while write_now(writer.as_fd(), &line) {}
    let before = rustix::io::ioctl_fionread(&reader).expect("its bytes");
    assert_eq!(before % line.len() as u64, 0);
    let writing = std::thread::spawn(move || {
        let line = vec![b'x'; 10_017];
        write(writer.as_fd(), &line).is_ok()
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rustix::io::ioctl_fionread(&reader).expect("its bytes"), before);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).expect("the pipe is read");
    assert!(writing.join().expect("no panic"));
    assert_eq!(all.len() as u64, before + line.len() as u64);
}

#[test]
fn a_line_that_is_longer_than_a_pipe_is_not_begun() {
    let (reader, writer) = pipe().expect("a pipe");
    assert!(!write_now(writer.as_fd(), &vec![b'x'; 70_000]));
    drop(writer);
    assert_eq!(drained(reader), b"");
}

/// Long lines wait for room that poll(2) does not tell of, but not for long where a program reads whatever
/// comes.
#[test]
fn long_lines_to_a_program_that_reads_go_at_its_pace() {
    const LINES: usize = 250;
    /// Half of what they take if each waits for 20 ms.
    const MOST: Duration = Duration::from_millis(LINES as u64 * 20 / 2);
    let all = || {
        let (mut reader, writer) = pipe().expect("a pipe");
        let reading = std::thread::spawn(move || {
            let (mut buffer, mut all) = ([0; 65_536], 0);
            while let Ok(bytes @ 1..) = reader.read(&mut buffer) {
                all += bytes;
                // It has something to do with each.
                std::thread::sleep(Duration::from_micros(200));
            }
            all
        });
        // Half of what the pipe holds: none fits beside another one.
        let line = [b'x'; 30_000];
        let begin = Instant::now();
        for _ in 0..LINES {
            write(writer.as_fd(), &line).expect("it is written");
        }
        let took = begin.elapsed();
        drop(writer);
        assert_eq!(reading.join().expect("no panic"), LINES * line.len());
        took
    };
    // A machine that is busy makes threads wait for their turn.
    assert!((0..3).any(|_| all() < MOST));
}
