//! The queue of lines. It is a file of its own because the module's symbols come from httpd, so
//! that no test can link it.

#[path = "../src/processes/line_queue.rs"]
mod lines;

use lines::{Pushed, Queue};

fn push(queue: &Queue<()>, line: &str) -> Pushed {
    queue.push((), line.to_owned())
}

#[test]
fn lines_come_in_their_order_and_the_writer_is_woken_for_the_first() {
    let queue = Queue::new(3, 100);
    let pushed = ["a", "b", "c"].map(|line| push(&queue, line));
    assert_eq!(pushed, [Pushed::First, Pushed::Behind, Pushed::Behind]);
    assert_eq!(queue.pop().expect("a line").1.as_ref(), "a");
    assert_eq!((queue.len(), queue.take_lost()), (2, 0));
    let left = [queue.pop(), queue.pop(), queue.pop()].map(|line| line.map(|(_, line)| line));
    assert_eq!(left, [Some("b".into()), Some("c".into()), None]);
    assert_eq!(push(&queue, "d"), Pushed::First);
}

#[test]
fn it_holds_so_many_lines_and_says_how_many_were_lost() {
    let queue = Queue::new(3, 100);
    let lost = (0..10).filter(|_| push(&queue, "x") == Pushed::Lost).count();
    assert_eq!((queue.len(), lost), (3, 7));
    assert_eq!((queue.take_lost(), queue.take_lost()), (7, 0));
    queue.pop();
    assert_eq!([push(&queue, "x"), push(&queue, "x")], [Pushed::Behind, Pushed::Lost]);
    assert_eq!(queue.take_lost(), 1);
}

#[test]
fn it_holds_so_many_bytes() {
    let queue = Queue::new(100, 10);
    assert_eq!(push(&queue, &"x".repeat(11)), Pushed::Lost);
    assert_eq!([push(&queue, "123456"), push(&queue, "12345")], [Pushed::First, Pushed::Lost]);
    assert_eq!(push(&queue, "1234"), Pushed::Behind);
    queue.pop();
    assert_eq!(push(&queue, "123456"), Pushed::Behind);
}

#[test]
fn it_is_over_when_it_is_closed_and_empty() {
    let queue = Queue::new(10, 100);
    push(&queue, "x");
    queue.close();
    assert!(!queue.is_over());
    assert_eq!(push(&queue, "y"), Pushed::Lost);
    assert!(!queue.is_open());
    // The writer had taken one from somewhere else.
    assert_eq!(queue.push_own((), "z".to_owned()), Pushed::Behind);
    assert!(queue.pop().is_some() && queue.pop().is_some());
    assert!(queue.is_over());
}

#[test]
fn what_is_put_back_is_the_oldest_again() {
    let queue: Queue<(), [u8]> = Queue::new(10, 4);
    for line in [b"ab", b"cd"] {
        assert_ne!(queue.push((), line.to_vec()), Pushed::Lost);
    }
    let ((), first) = queue.pop().expect("a line");
    queue.put_back((), first);
    // Its bytes count again.
    assert_eq!(queue.push((), b"e".to_vec()), Pushed::Lost);
    assert_eq!(queue.pop().map(|((), line)| line), Some(b"ab".to_vec().into()));
}
