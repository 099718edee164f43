//! What the tunnels of a thread use by turns.

use crate::pipe::Pipes;

/// What a thread lends to the tunnel that is being polled.
pub(crate) struct ThreadBuffers {
    /// What every read goes into.
    pub buffer: Box<[u8]>,
    pub pipes: Pipes,
}
