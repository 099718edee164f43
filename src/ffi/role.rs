//! Which process a hook runs in. Only the hooks of this layer make these: a function that takes one
//! runs there and nowhere else. In a child that is also said by what only a child has: a
//! [`Process`](super::server::Process), a request, a connection.

/// httpd's parent, which may be root: it has one thread, and nothing that a child can write makes it
/// wait, signal or trust. It reads the configuration, also for `configtest`.
#[derive(Debug)]
pub(crate) struct Parent(());

impl Parent {
    pub(super) const fn new() -> Self {
        Self(())
    }
}

/// The handler of a signal in a child: it takes no lock and no memory, and calls nothing that may.
#[derive(Debug)]
pub(crate) struct SignalHandler(());

impl SignalHandler {
    pub(super) const fn new() -> Self {
        Self(())
    }
}
