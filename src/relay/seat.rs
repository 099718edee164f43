//! Where a tunnel is in its relay, in one number that other processes may keep.

/// How many bits the number of a task takes.
const TASK_BITS: u32 = 24;

/// A thread of the relay, and a task of that thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub thread: usize,
    pub task: usize,
}

impl Seat {
    /// The thread in the upper eight bits, and the number of the task plus 1. 0, which is nowhere,
    /// if one of them is too large.
    pub(crate) fn to_word(self) -> u32 {
        let thread = u32::try_from(self.thread).ok().filter(|thread| *thread < 1 << 8);
        let task = u32::try_from(self.task).ok().filter(|task| *task < (1 << TASK_BITS) - 1);
        thread.zip(task).map_or(0, |(thread, task)| thread << TASK_BITS | (task + 1))
    }

    /// What [`to_word`](Self::to_word) was called on.
    pub(crate) fn from_word(word: u32) -> Option<Self> {
        let task = (word & ((1 << TASK_BITS) - 1)).checked_sub(1)?;
        Some(Seat { thread: (word >> TASK_BITS) as usize, task: task as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::Seat;

    #[test]
    fn what_fits_comes_back() {
        for (thread, task) in [(0, 0), (0, 1), (63, 500_000), (255, (1 << 24) - 2)] {
            let seat = Seat { thread, task };
            assert_ne!(seat.to_word(), 0);
            assert_eq!(Seat::from_word(seat.to_word()), Some(seat));
        }
        for (thread, task) in [(256, 0), (0, (1 << 24) - 1), (usize::MAX, 0), (0, usize::MAX)] {
            assert_eq!(Seat { thread, task }.to_word(), 0);
        }
        assert_eq!(Seat::from_word(0), None);
        assert_eq!(Seat::from_word(3 << 24), None);
    }
}
