//! How much one tunnel may do before the others have their turn.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

/// About what one direction may cost in one poll of its task. Then it gives way to other tunnels.
const MAX_COST_PER_POLL: usize = 256 * 1024;

/// What one direction may still do in one poll of its task. The unit is what it costs to carry a
/// byte of a large message, roughly; whatever costs more for its size is charged for that too.
#[derive(Debug, Default)]
pub struct Budget {
    spent: usize,
}

impl Budget {
    /// Takes note of `cost`.
    #[inline]
    pub fn charge(&mut self, cost: usize) {
        self.spent = self.spent.saturating_add(cost);
    }

    /// Whether it is time to let others go on.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.spent >= MAX_COST_PER_POLL
    }

    /// What was charged so far.
    pub fn spent(&self) -> usize {
        self.spent
    }
}

/// Has the task polled again after all others that are ready, and after those that the kernel
/// says are. A task that just wakes itself is polled some 60 times before the kernel is asked.
pub(crate) fn give_way(cx: &mut Context<'_>) {
    // The first poll of it is what defers the task; that it is pending says nothing.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent() {
        let mut budget = Budget::default();
        budget.charge(MAX_COST_PER_POLL - 1);
        assert!(!budget.is_spent() && budget.spent() == MAX_COST_PER_POLL - 1);
        budget.charge(1);
        assert!(budget.is_spent());
        budget.charge(usize::MAX);
        assert!(budget.is_spent() && budget.spent() == usize::MAX);
    }
}
