//! Where children leave few tunnels each, one drain process of their generation collects them: they
//! come to it through a queue.
//!
//! No tunnel is left in the queue. Whoever has the role empties it; who gives the role up does so
//! before a last look into the queue; who sends looks afterwards whether the role is held, and else
//! takes it.

use crate::collector::Role;
use crate::slots::Shared;

/// The role of the one that collects, in the process that has it, and in the one that is about to
/// fork that.
pub struct Claim<'a> {
    shared: Shared<'a>,
    role: Role,
}

/// What a child may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Something.
    Some,
    /// Nothing: it keeps all.
    Nothing,
}

impl<'a> Shared<'a> {
    /// The process that collects, 0 if none does.
    pub fn collector(self) -> u32 {
        self.memory.collector.load().pid()
    }

    /// Whether there is a process that empties the queue, or one that is about to fork it.
    pub fn is_collected(self) -> bool {
        self.memory.collector.load().is_held(self.processes)
    }

    /// Whether the process that has the role, if any, is of this process's configuration.
    pub fn is_collected_by_own(self) -> bool {
        self.memory.collector.load().generation() == self.generation
    }

    fn take_role(self, over: Role) -> Option<Claim<'a>> {
        let role = Role::of(self.processes.own(), self.generation);
        self.memory.collector.replace(over, role).then_some(Claim { shared: self, role })
    }

    /// A child leaves what it has to the process that collects: `send` sends, to the process with
    /// that id, if there is one and the child's are few enough to go there (`may_send`). Returns
    /// the claim if this process is to collect.
    pub fn leave(self, may_send: bool, mut send: impl FnMut(u32) -> Sent) -> Option<Claim<'a>> {
        /// What was found changes only if another process succeeds, which does not go on for long
        /// unless one means harm.
        const TRIES: usize = 1000;
        let mut sent = false;
        for _ in 0..TRIES {
            let role = self.memory.collector.load();
            let is_free = !role.is_held(self.processes);
            if is_free || (!sent && is_older(role.generation(), self.generation)) {
                match self.take_role(role) {
                    Some(claim) => return Some(claim),
                    None => continue,
                }
            }
            if sent || !may_send || role.generation() != self.generation {
                return None;
            }
            if send(role.pid()) == Sent::Nothing {
                return None;
            }
            sent = true;
        }
        None
    }
}

fn is_older(generation: u32, than: u32) -> bool {
    than.wrapping_sub(generation).cast_signed() > 0
}

impl Claim<'_> {
    /// In the process that claimed it, once it has forked the one that is to collect.
    pub fn pass_to(self, pid: u32) {
        self.replace(Role::of(pid, self.role.generation()));
    }

    /// In the forked process.
    pub fn take_over(&mut self) {
        let role = Role::of(self.shared.processes.own(), self.role.generation());
        self.replace(role);
        self.role = role;
    }

    /// Whether no other process has taken the role over; that one empties the queue then.
    pub fn is_held(&self) -> bool {
        self.shared.memory.collector.load() == self.role
    }

    /// Gives the role up. What is in the queue is still to be taken.
    pub fn give_up(self) {
        self.replace(Role::NOBODY);
    }

    fn replace(&self, with: Role) {
        self.shared.memory.collector.replace(self.role, with);
    }
}
