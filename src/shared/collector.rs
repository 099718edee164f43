//! Who collects, as it stands in shared memory; see role.rs.

use std::sync::atomic::Ordering::SeqCst;

use crate::bits::low_u32;
use crate::processes::Processes;
use crate::sync::AtomicU64;

/// A process and its generation. Zero is nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Role(u64);

impl Role {
    pub const NOBODY: Self = Self(0);

    pub fn of(pid: u32, generation: u32) -> Self {
        Self(u64::from(pid) << 32 | u64::from(generation))
    }

    pub const fn pid(self) -> u32 {
        low_u32(self.0 >> 32)
    }

    pub const fn generation(self) -> u32 {
        low_u32(self.0)
    }

    pub fn is_held(self, processes: &dyn Processes) -> bool {
        self != Self::NOBODY && processes.runs(self.pid())
    }
}

/// Who collects, as it is in shared memory.
#[repr(transparent)]
pub(crate) struct Collector(AtomicU64);

impl Collector {
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn load(&self) -> Role {
        Role(self.0.load(SeqCst))
    }

    pub fn replace(&self, role: Role, with: Role) -> bool {
        self.0.compare_exchange(role.0, with.0, SeqCst, SeqCst).is_ok()
    }
}
