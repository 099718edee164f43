//! What is read from and written to a connection, through the filters that it has.

use std::ffi::CStr;

use super::apr_status::Status;
use super::brigade::Brigade;
use super::connection::Connection;
use super::filter::{self, Mode, Read};
use super::sys;

impl Connection<'_> {
    /// Writes of [`Self::has_pending_output`] what its socket takes now. An error aborts the
    /// connection.
    pub(crate) fn write_pending(self) {
        // SAFETY: the connection's own chain.
        if let Some(mut core) = unsafe { filter::find(self.conn_rec().output_filters, c"core") } {
            core.write_pending();
        }
    }

    /// A filter of the connection, input or output, whose name, in lower case, is not
    /// known.
    pub(crate) fn unknown_filter(&self, is_known: fn(&[u8]) -> bool) -> Option<String> {
        let record = self.conn_rec();
        // SAFETY: the connection's own chains.
        let unknown = |chain| unsafe { filter::unknown(chain, is_known) };
        let unknown = unknown(record.input_filters).or_else(|| unknown(record.output_filters))?;
        Some(unknown.to_string_lossy().into_owned())
    }

    /// Whether it has an input filter of that name.
    pub(crate) fn has_filter(&self, name: &CStr) -> bool {
        // SAFETY: the connection's own chain.
        unsafe { filter::find(self.conn_rec().input_filters, name) }.is_some()
    }

    /// Reads what has arrived, without waiting, through all of the input filters.
    pub(crate) fn read_available(self, to: &mut Vec<u8>, bytes: usize) -> Result<(), Status> {
        let read = Read { mode: Mode::ReadBytes, block: false, bytes };
        self.with_brigade(|out| {
            // SAFETY: the connection's own chain.
            unsafe { filter::first(self.conn_rec().input_filters) }.read(out, read)?;
            out.drain_into(to)
        })
    }

    /// Takes what httpd has read of the socket and not passed on, as it came (with
    /// TLS: ciphertext), without reading more. To httpd the connection has ended then
    /// (core_filters.c, AP_MODE_EXHAUSTIVE).
    pub(crate) fn take_unread(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // SAFETY: the connection's own chain.
        let core = unsafe { filter::find(self.conn_rec().input_filters, c"core_in") };
        let Some(mut core) = core else { return bytes };
        let _ = self.with_brigade(|out| {
            let read = Read { mode: Mode::Exhaustive, block: false, bytes: 0 };
            // An error is the end of the connection, with which nothing is left.
            core.read(out, read)?;
            out.keep_data();
            out.drain_into(&mut bytes)
        });
        bytes
    }

    /// Writes bytes to the peer, through all of the output filters; waits for the peer as
    /// long as the socket's timeout allows.
    pub(crate) fn pass(self, bytes: &[u8]) -> Result<(), Status> {
        self.with_brigade(|out| {
            out.append(bytes);
            self.flush(out)
        })
    }

    /// Ends the response of a stream of HTTP/2: the client sees the end of the stream.
    pub(crate) fn pass_end(self) -> Result<(), Status> {
        self.with_brigade(|out| {
            out.append_end();
            self.flush(out)
        })
    }

    /// Tells the output filters that the connection ends, as httpd does before it closes one.
    pub(super) fn pass_close(self) -> Result<(), Status> {
        self.with_brigade(|out| {
            out.append_close();
            self.flush(out)
        })
    }

    fn flush(self, out: &mut Brigade<'_>) -> Result<(), Status> {
        // SAFETY: the connection is alive, with its output filters; the brigade is ours.
        Status::check(unsafe { sys::ap_fflush(self.conn_rec().output_filters, out.as_ptr()) })
    }

    /// Runs `body` with a brigade of its own.
    fn with_brigade(
        self,
        body: impl FnOnce(&mut Brigade<'_>) -> Result<(), Status>,
    ) -> Result<(), Status> {
        // SAFETY: pool and allocator live as long as the connection.
        let bb =
            unsafe { sys::apr_brigade_create(self.conn_rec().pool, self.conn_rec().bucket_alloc) };
        // SAFETY: just made, and ours.
        let mut brigade = unsafe { Brigade::from_raw(bb) }.ok_or(Status::GENERAL)?;
        let result = body(&mut brigade);
        // SAFETY: ours, and not used again.
        unsafe { sys::apr_brigade_destroy(bb) };
        result
    }
}
