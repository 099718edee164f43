//! Tunnels that are counted by client and by back end, within limits.

use crate::slot::Slot;
use crate::slots::Shared;
use crate::tally::{Full, Tally, TallyEntry};
use crate::tally_words::TallyKey;

impl Shared<'_> {
    /// What a client is counted under.
    pub fn client_key(self, network: &[u8]) -> TallyKey {
        self.memory.clients.key(network)
    }

    /// Counted tunnels of a client, in all processes.
    pub fn open_of_client(self, client: TallyKey) -> usize {
        self.memory.clients.count(client)
    }

    /// Counts a tunnel of a client, until [`Self::forget_client`], if there are not `most` already.
    /// `None` if it cannot be counted.
    ///
    /// # Errors
    /// There are.
    pub fn count_client(
        self,
        client: TallyKey,
        slot: &Slot,
        most: usize,
    ) -> Result<Option<TallyEntry>, Full> {
        self.count_in(&self.memory.clients, client, slot, most)
    }

    fn count_in(
        self,
        tally: &Tally,
        key: TallyKey,
        slot: &Slot,
        most: usize,
    ) -> Result<Option<TallyEntry>, Full> {
        let Some(number) = self.number(slot) else { return Ok(None) };
        // Those of dead processes are not its own any more.
        tally.join_within(key, number, most).or_else(|Full| {
            self.clear_dead();
            tally.join_within(key, number, most)
        })
    }

    /// A tunnel whose client is counted by an entry goes to another process, whose slot it is.
    /// It is counted once all the while; anew if its former process has ended meanwhile.
    pub fn move_client(self, entry: TallyEntry, to: &Slot) -> Option<TallyEntry> {
        self.memory.clients.pass(entry, self.number(to)?)
    }

    /// Undoes [`Self::count_client`]. Nothing happens if the entry is another tunnel's by now: it
    /// was cleared with the process that it was counted for.
    pub fn forget_client(self, entry: TallyEntry) {
        self.memory.clients.leave(entry);
    }

    /// What a back end is counted under: its name.
    pub fn backend_key(self, name: &[u8]) -> TallyKey {
        self.memory.backends.key(name)
    }

    /// Counted tunnels of a back end, in all processes.
    pub fn open_of_backend(self, backend: TallyKey) -> usize {
        self.memory.backends.count(backend)
    }

    /// Counts a tunnel of a back end, until [`Self::forget_backend`], as [`Self::count_client`].
    ///
    /// # Errors
    /// It has `most` already.
    pub fn count_backend(
        self,
        backend: TallyKey,
        slot: &Slot,
        most: usize,
    ) -> Result<Option<TallyEntry>, Full> {
        self.count_in(&self.memory.backends, backend, slot, most)
    }

    /// As [`Self::move_client`], of what counts its back end.
    pub fn move_backend(self, entry: TallyEntry, to: &Slot) -> Option<TallyEntry> {
        self.memory.backends.pass(entry, self.number(to)?)
    }

    /// Undoes [`Self::count_backend`], as [`Self::forget_client`] does for clients.
    pub fn forget_backend(self, entry: TallyEntry) {
        self.memory.backends.leave(entry);
    }
}
