//! What a process does with the register: its tunnels, its figures, its nonces.

use std::collections::BTreeSet;

use crate::activity::{Activity, Order};
use crate::entry::{About, Listed, Ordered};
use crate::labels::Timed;
use crate::names::Name;
use crate::orders::OrderNumber;
use crate::register::Register;
use crate::series::Metric;
use crate::slot::Slot;
use crate::slot_number::SlotNumber;
use crate::slots::Shared;
use crate::tunnel_entry::TunnelEntry;

impl<'a> Shared<'a> {
    /// The name of a virtual host.
    pub fn vhost_name(self, text: &[u8]) -> Name {
        self.register.map_or(Name::OTHER, |register| register.vhosts.name(register.key(), text))
    }

    /// The name of a back end.
    pub fn backend_name(self, text: &[u8]) -> Name {
        self.register.map_or(Name::OTHER, |register| register.backends.name(register.key(), text))
    }

    /// The virtual host that has a name.
    pub fn text_of_vhost(self, name: Name) -> Vec<u8> {
        self.register.map_or_else(Vec::new, |register| register.vhosts.text(name))
    }

    /// The back end that has a name.
    pub fn text_of_backend(self, name: Name) -> Vec<u8> {
        self.register.map_or_else(Vec::new, |register| register.backends.text(name))
    }

    /// Lists a tunnel that a thread carries, until [`Self::forget_tunnel`]. `None` if there is no
    /// room.
    pub fn register_tunnel(self, about: &About<'_>, slot: &Slot) -> Option<TunnelEntry> {
        self.register?.add(about, self.number(slot)?, self.processes.seconds())
    }

    /// Where a tunnel says what it does. Whoever has this carries the tunnel.
    pub fn activity(self, tunnel: TunnelEntry) -> Option<&'a Activity> {
        self.register?.activity(tunnel)
    }

    /// A tunnel goes from its thread to a relay.
    pub fn mark_relayed(self, tunnel: TunnelEntry) {
        if let Some(register) = self.register {
            register.mark_relayed(tunnel);
        }
    }

    /// A tunnel goes to another process, whose slot it is. `None` if it is not listed any more: it
    /// was cleared with its former process.
    pub fn move_tunnel(self, tunnel: TunnelEntry, to: &Slot) -> Option<TunnelEntry> {
        self.register?.pass(tunnel, self.number(to)?)
    }

    /// A tunnel ended. Nothing happens if it was cleared with its process.
    pub fn forget_tunnel(self, tunnel: TunnelEntry) {
        if let Some(register) = self.register {
            register.forget(tunnel);
        }
    }

    /// All open tunnels that are listed.
    pub fn tunnels(self) -> impl Iterator<Item = Listed> + use<'a> {
        self.clear_dead();
        let pid_of = move |number| self.slot_at(number)?.living_pid();
        self.register.into_iter().flat_map(move |register| {
            (0..register.used()).filter_map(move |index| register.listed(index, pid_of))
        })
    }

    /// Orders a tunnel to end, with this code. `false` if it has ended, has an order already, or would
    /// not be told of it.
    pub fn order_close(self, tunnel: &Listed, code: u16, number: OrderNumber) -> bool {
        self.order_close_all([tunnel], code, number) == 1
    }

    /// The same of many tunnels. Says how many it was. Their processes are woken once, when all have
    /// their orders.
    pub fn order_close_all<'t>(
        self,
        tunnels: impl IntoIterator<Item = &'t Listed>,
        code: u16,
        number: OrderNumber,
    ) -> usize {
        let Some(register) = self.register else { return 0 };
        let hears =
            |slot, is_relayed| self.slot_at(slot).is_some_and(|slot: &Slot| slot.hears(is_relayed));
        let mut slots = BTreeSet::new();
        let ordered = tunnels.into_iter().filter_map(|tunnel| {
            let slot = register.order(tunnel.entry, Order { code, number }, hears)?;
            slots.insert(slot.0);
            Some(slot)
        });
        let count = ordered.count();
        failpoint::step!("register.order");
        for slot in slots.into_iter().filter_map(|slot| self.slot_at(SlotNumber(slot))) {
            slot.raise_orders(self.processes);
        }
        count
    }

    /// The tunnels of a slot that have an order.
    pub fn ordered(self, slot: &Slot) -> impl Iterator<Item = Ordered> + use<'a> {
        self.register.into_iter().zip(self.number(slot)).flat_map(|(register, slot)| {
            (0..register.used()).filter_map(move |index| register.ordered(index, slot))
        })
    }

    /// Keeps the text of an order: at most 123 bytes of the reason, and 64 of who it is. It is kept
    /// until 64 more have come.
    pub fn new_order(self, reason: &[u8], who: &[u8]) -> OrderNumber {
        let add = |register: &Register| register.order_texts.add(reason, who);
        self.register.map_or(OrderNumber(0), add)
    }

    /// The reason of an order, and whose it is.
    pub fn order_text(self, number: OrderNumber) -> Option<(Vec<u8>, Vec<u8>)> {
        self.register?.order_texts.get(number)
    }

    /// Counts.
    pub fn count(self, metric: Metric, by: u64) {
        if let Some(register) = self.register {
            register.count(metric, by);
        }
    }

    /// Counts that something took so long.
    pub fn count_duration(self, of: Timed, micros: u64) {
        let bucket = of.bounds_micros().partition_point(|bound| *bound < micros);
        self.count(Metric::Durations { of, bucket: u8::try_from(bucket).unwrap_or(u8::MAX) }, 1);
        self.count(Metric::Micros { of }, micros);
    }

    /// All that was counted, and what it came to.
    pub fn series(self) -> impl Iterator<Item = (Metric, u64)> + use<'a> {
        self.register.into_iter().flat_map(|register| register.series.all())
    }

    /// What is to be shown of a figure whose value was found to be this: not less than was shown of
    /// it before, by any process.
    pub fn never_less(self, metric: Metric, value: u64) -> u64 {
        self.register
            .map_or(value, |register| register.series.never_less(register.key(), metric, value))
    }

    /// A text for the form on a page of this user. Empty where nothing is listed.
    pub fn new_nonce(self, user: &[u8]) -> String {
        let make = |one: &Register| one.nonces.make(one.key(), self.processes.seconds(), user);
        self.register.map_or_else(String::new, make)
    }

    /// Whether a text was made for this user, in the last hour, and was not used before. It is used
    /// then. One of a thousand that were not used is refused if one that was made later was used.
    pub fn use_nonce(self, text: &str, user: &[u8]) -> bool {
        let now = self.processes.seconds();
        self.register.is_some_and(|one| one.nonces.use_up(one.key(), now, text, user))
    }
}
