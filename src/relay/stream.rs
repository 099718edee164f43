//! One side of a tunnel while a relay thread carries it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::socket;
use crate::tls::Tls;

/// A registered descriptor, plain or with a TLS session on it.
pub(crate) struct Stream {
    // Before the descriptor it works on, so that it is dropped first.
    tls: Option<Box<dyn Tls>>,
    io: AsyncFd<OwnedFd>,
    /// A read may bring something even if the descriptor is not known to be readable: the last
    /// one filled its buffer, or a TLS session holds bytes.
    pending: bool,
    /// The peer hung up without an error: nothing more to watch for.
    hung_up: bool,
}

impl Stream {
    /// Registers `fd` with the runtime of this thread.
    ///
    /// # Errors
    /// The kernel's refusal, with what was given.
    #[expect(clippy::type_complexity, reason = "what was given, given back")]
    pub fn new(
        fd: OwnedFd,
        tls: Option<Box<dyn Tls>>,
    ) -> Result<Self, (OwnedFd, Option<Box<dyn Tls>>, io::Error)> {
        let both = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the AsyncFd owns the descriptor, and nobody else closes an OwnedFd: it stays
        // open, and the same, until it is dropped or taken out of the AsyncFd.
        match unsafe { AsyncFd::register_with_interest(fd, both) } {
            Ok(io) => Ok(Stream { pending: tls.is_some(), tls, io, hung_up: false }),
            Err(refused) => {
                let (fd, error) = refused.into_parts();
                Err((fd, tls, error))
            }
        }
    }

    /// Undoes [`new`](Self::new).
    pub fn into_parts(self) -> (OwnedFd, Option<Box<dyn Tls>>) {
        (self.io.into_inner(), self.tls)
    }

    /// To be called when a poll of the task begins: events may have come since the last.
    pub fn recheck(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.recheck();
        }
    }

    /// Whether an end of this side's bytes was announced by its TLS; true without TLS.
    pub fn closed_cleanly(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.closed_cleanly())
    }

    /// Whether TLS keeps ciphertext that the socket did not take.
    pub fn has_kept(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.kept() > 0)
    }

    /// Reads. `Ok(0)` is the end.
    ///
    /// A read that leaves room in the buffer has emptied the socket; as readiness is told by
    /// its edges (EPOLLET), no second call is needed to learn that.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = match self.io.poll_read_ready(cx)? {
                Poll::Ready(guard) => Some(guard),
                Poll::Pending if self.pending => None,
                Poll::Pending => return Poll::Pending,
            };
            let result = match &mut self.tls {
                None => socket::receive(self.io.get_ref().as_fd(), buffer),
                Some(tls) => tls.read(buffer),
            };
            match result {
                Ok(n) => {
                    self.pending = n > 0 && (n == buffer.len() || self.tls.is_some());
                    if let Some(guard) = guard.as_mut().filter(|_| !self.pending) {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending = false;
                    // Without a guard the waker is registered, and any byte since wakes it.
                    let Some(guard) = guard.as_mut() else {
                        return Poll::Pending;
                    };
                    if self.tls.is_none() && guard.ready().is_read_closed() {
                        // The end was announced, so the kernel has it; never spin on it.
                        return Poll::Ready(Ok(0));
                    }
                    guard.clear_ready();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.pending = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends at once, without asking whether the socket has room. Returns how much was taken;
    /// with TLS always everything.
    pub fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            return tls.write(bytes).map(|()| bytes.len());
        }
        let n = socket::send(self.io.get_ref().as_fd(), bytes)?;
        if n < bytes.len() {
            // The socket is full, and an edge will say when it no longer is.
            if let Poll::Ready(Ok(mut guard)) = self.io.poll_write_ready(cx) {
                guard.clear_ready();
            }
        }
        Ok(n)
    }

    /// Sends at least one byte as soon as the socket has room.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(tls) = &mut self.tls {
            return Poll::Ready(tls.write(bytes).map(|()| bytes.len()));
        }
        loop {
            let mut guard = ready!(self.io.poll_write_ready(cx))?;
            match socket::send(self.io.get_ref().as_fd(), bytes)? {
                0 => guard.clear_ready(),
                n => return Poll::Ready(Ok(n)),
            }
        }
    }

    /// Sends the ciphertext that TLS keeps.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = self.tls.as_mut().filter(|tls| tls.kept() > 0) else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let mut guard = ready!(self.io.poll_write_ready(cx))?;
            match tls.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                result => return Poll::Ready(result),
            }
        }
    }

    /// Queues close_notify. Failing to is no reason not to close.
    pub fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.close();
        }
    }

    /// Sends a FIN.
    pub fn shutdown(&self) {
        socket::shutdown_write(self.fd());
    }

    /// Has the task woken when the peer resets, while neither reading from it nor waiting for
    /// room in its socket would tell. Returns the error once it is there.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while !self.hung_up {
            let mut guard = match ready!(self.io.poll_write_ready(cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(error),
            };
            if guard.ready().is_write_closed() {
                if let Some(error) = socket::take_error(self.io.get_ref().as_fd()) {
                    return Poll::Ready(error);
                }
                // Closed in both directions, as it may be: bytes that came before still count.
                self.hung_up = true;
            } else {
                // Room is of no interest: whoever writes tries first and asks later.
                guard.clear_ready();
            }
        }
        Poll::Pending
    }

    /// Tries once to send what TLS has to say (an alert), before a close.
    pub fn try_flush(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.flush();
        }
    }

    /// Makes the close that follows a reset.
    pub fn reset_on_close(&self) {
        socket::reset_on_close(self.fd());
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}
