//! A queue of lines between threads that must not wait and the one that writes them: it holds so
//! many and no more, however long that one takes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines that wait for their writer.
pub(super) struct Queue<T, L: ?Sized = str> {
    waiting: Mutex<Waiting<T, L>>,
    /// Bounds.
    max_lines: usize,
    max_bytes: usize,
}

struct Waiting<T, L: ?Sized> {
    lines: VecDeque<(T, Box<L>)>,
    bytes: usize,
    /// Refused since the writer was told last.
    lost: u64,
    is_closed: bool,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, and it is alone: the writer may be asleep.
    First,
    /// It waits behind others.
    Behind,
    /// There is no room.
    Lost,
}

impl<T, L: AsRef<[u8]> + ?Sized> Queue<T, L> {
    /// A queue of at most so many lines, and so many bytes of them. It has no memory before it
    /// has lines, and none after them.
    pub(super) fn new(max_lines: usize, max_bytes: usize) -> Self {
        let waiting = Waiting { lines: VecDeque::new(), bytes: 0, lost: 0, is_closed: false };
        Self { waiting: Mutex::new(waiting), max_lines, max_bytes }
    }

    /// Held for as long as it takes to move a line, never while one is written.
    fn waiting(&self) -> MutexGuard<'_, Waiting<T, L>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, if there is room and it is not closed.
    pub(super) fn push(&self, about: T, line: impl Into<Box<L>>) -> Pushed {
        self.add(about, line.into(), false)
    }

    /// The same for the writer itself, which may yet have lines when others may not.
    pub(super) fn push_own(&self, about: T, line: impl Into<Box<L>>) -> Pushed {
        self.add(about, line.into(), true)
    }

    fn add(&self, about: T, line: Box<L>, is_own: bool) -> Pushed {
        let length = (*line).as_ref().len();
        let mut waiting = self.waiting();
        let has_room = waiting.lines.len() < self.max_lines
            && waiting.bytes.saturating_add(length) <= self.max_bytes;
        if (waiting.is_closed && !is_own) || !has_room {
            waiting.lost += 1;
            return Pushed::Lost;
        }
        waiting.bytes += length;
        waiting.lines.push_back((about, line));
        if waiting.lines.len() == 1 { Pushed::First } else { Pushed::Behind }
    }

    /// The oldest line.
    pub(super) fn pop(&self) -> Option<(T, Box<L>)> {
        let mut waiting = self.waiting();
        let (about, line) = waiting.lines.pop_front()?;
        waiting.bytes -= (*line).as_ref().len();
        if waiting.lines.is_empty() {
            // The memory that many lines needed is given back.
            waiting.lines = VecDeque::new();
        }
        Some((about, line))
    }

    /// Puts back what was just taken, so that it is the oldest again.
    pub(super) fn put_back(&self, about: T, line: Box<L>) {
        let mut waiting = self.waiting();
        waiting.bytes += (*line).as_ref().len();
        waiting.lines.push_front((about, line));
    }

    /// How many lines were refused since this was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.waiting().lost)
    }

    /// No line is taken any more.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
    }

    /// Whether lines are still taken.
    pub(super) fn is_open(&self) -> bool {
        !self.waiting().is_closed
    }

    /// Whether it was closed, and has nothing left.
    pub(super) fn is_over(&self) -> bool {
        let waiting = self.waiting();
        waiting.is_closed && waiting.lines.is_empty()
    }

    /// How many lines wait.
    pub(super) fn len(&self) -> usize {
        self.waiting().lines.len()
    }
}
