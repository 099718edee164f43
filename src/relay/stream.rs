//! One side of a tunnel while a relay thread carries it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::budget::{Budget, give_way};
use crate::pipe::Pipe;
use crate::side::Socket;
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
    /// It may have room although the descriptor is not known to be writable: it is new here, or the
    /// room was of no interest when that was said.
    has_room: bool,
    /// Its TLS failed, and is not asked again.
    failed: bool,
    /// The peer hung up without an error: nothing more to watch for.
    hung_up: bool,
    /// So it cannot be written to any more, though no write was refused.
    is_gone: bool,
}

impl Stream {
    /// Registers a socket with the runtime of this thread.
    ///
    /// # Errors
    /// The kernel's refusal, with what was given.
    pub(crate) fn new(socket: Socket) -> Result<Self, (Socket, io::Error)> {
        let Socket { tls, fd, failed } = socket;
        // Of urgent bytes only that there was one: see `poll_read`.
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        // SAFETY: the AsyncFd owns the descriptor, and nobody else closes an OwnedFd: it stays
        // open, and the same, until it is dropped or taken out of the AsyncFd.
        match unsafe { AsyncFd::register_with_interest(fd, all) } {
            Ok(io) => Ok(Stream {
                pending: true,
                has_room: true,
                failed,
                tls,
                io,
                hung_up: false,
                is_gone: false,
            }),
            Err(refused) => {
                let (fd, error) = refused.into_parts();
                Err((Socket { tls, fd, failed }, error))
            }
        }
    }

    /// Undoes [`new`](Self::new).
    pub(crate) fn into_socket(self) -> Socket {
        Socket { tls: self.tls, fd: self.io.into_inner(), failed: self.failed }
    }

    /// To be called when a poll of the task begins: events may have come since the last.
    pub(crate) fn recheck(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.recheck();
        }
    }

    /// Whether an end of this side's bytes was announced by its TLS; true without TLS.
    pub(crate) fn closed_cleanly(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.closed_cleanly())
    }

    /// Whether its bytes are those of the tunnel.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// Whether its TLS has the first part of a message of its own.
    pub(crate) fn is_within_message(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_within_message())
    }

    /// Ciphertext that TLS keeps because the socket did not take it, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.kept())
    }

    /// Reads. `Ok(0)` is the end. What TLS costs is charged to `budget`.
    ///
    /// A read that leaves room in the buffer has emptied the socket; as readiness is told by
    /// its edges (EPOLLET), no second call is needed to learn that. Only where an urgent byte came a
    /// read stops before it (tcp(7)), and no edge tells of what is behind.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        budget: &mut Budget,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.len();
        self.poll_take(cx, |fd, tls| match tls {
            None => socket::receive(fd, buffer).map(|n| (n, n == room)),
            Some(tls) => tls.read(buffer, budget).map(|n| (n, true)),
        })
    }

    /// Moves at most `most` bytes into a pipe that has room for them. Only without TLS. `Ok(0)`: a read
    /// has to tell whether this is the end, as splice(2) does not get past an urgent byte.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let is_doubtful = self.may_be_cut();
        let filled = self.poll_take(cx, |fd, _| match pipe.fill(fd, most) {
            Err(error) if is_doubtful && error.kind() == io::ErrorKind::WouldBlock => Ok((0, true)),
            // Less than was asked for says nothing: a pipe counts pages.
            filled => filled.map(|n| (n, true)),
        });
        self.pending |= matches!(filled, Poll::Ready(Ok(0)));
        filled
    }

    /// Whether a read may have stopped at an urgent byte, or the end was announced, since the last read that
    /// found nothing. Without asking the kernel.
    fn may_be_cut(&self) -> bool {
        self.io.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    /// The same, and forgets urgent bytes.
    fn take_cut(&self) -> bool {
        let mut may_be_cut = false;
        let _ = self.io.try_io(Interest::PRIORITY, |_| {
            may_be_cut = true;
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
        may_be_cut
    }

    /// Takes what the descriptor has, in a way that tells how much it was and whether there may
    /// be more.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(BorrowedFd<'_>, Option<&mut Box<dyn Tls>>) -> io::Result<(usize, bool)>,
    ) -> Poll<io::Result<usize>> {
        if self.failed {
            return Poll::Ready(Ok(0));
        }
        let mut is_sure = self.tls.is_none();
        loop {
            let mut guard = match self.io.poll_read_ready(cx)? {
                Poll::Ready(guard) => Some(guard),
                Poll::Pending if self.pending => None,
                Poll::Pending => return Poll::Pending,
            };
            match take(self.io.get_ref().as_fd(), self.tls.as_mut()) {
                Ok((n, may_have_more)) => {
                    self.pending = n > 0 && (may_have_more || self.may_be_cut());
                    if let Some(guard) = guard.as_mut().filter(|_| !self.pending) {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending = false;
                    // TLS may go by a short read: it asks anew when it is called again.
                    if self.take_cut() && !is_sure {
                        (is_sure, self.pending) = (true, true);
                        continue;
                    }
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
                    give_way(cx);
                    return Poll::Pending;
                }
                Err(error) => {
                    self.failed = self.tls.is_some();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Whether something has come of the peer, as far as that is known without asking the kernel.
    pub(crate) fn has_news(&self, cx: &mut Context<'_>) -> bool {
        matches!(self.io.poll_read_ready(cx), Poll::Ready(Ok(_)))
    }

    /// Whether the next read may bring something although nothing more comes.
    pub(crate) fn may_have_more(&self) -> bool {
        self.pending && !self.failed
    }

    /// Has the next read ask the kernel: what came just now may not have been told yet.
    pub(crate) fn ask_again(&mut self) {
        self.pending = !self.failed;
    }

    /// Nothing comes of its peer but what is there, unless its TLS failed, of which the peer is to read why.
    pub(crate) fn take_no_more(&self) {
        if !self.failed {
            socket::shutdown_read(self.fd());
        }
    }

    /// Whether its peer has not got all that was sent, as far as the kernel knows.
    pub(crate) fn is_awaited(&self) -> bool {
        socket::is_awaited(self.fd())
    }

    /// Whether the end has come, and nothing before it. With TLS a read would have to tell.
    pub(crate) fn has_ended(&self) -> bool {
        self.tls.is_none() && socket::has_ended(self.fd())
    }

    /// Sends at once, without asking whether the socket has room. Returns how much was taken;
    /// with TLS always everything. If `more` follows at once the kernel may wait for it.
    pub(crate) fn write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        more: bool,
    ) -> io::Result<usize> {
        if let Some(written) = self.write_tls(bytes, more) {
            return written;
        }
        let n = socket::send(self.fd(), bytes, more)?;
        if n < bytes.len() {
            self.is_full(cx);
        }
        Ok(n)
    }

    /// Encrypts all of `bytes`, where there is TLS.
    fn write_tls(&mut self, bytes: &[u8], more: bool) -> Option<io::Result<usize>> {
        let tls = self.tls.as_mut()?;
        if self.failed {
            return Some(Err(io::ErrorKind::NotConnected.into()));
        }
        Some(tls.write(bytes, more).map(|()| bytes.len()))
    }

    /// Moves out of a pipe what the socket takes, without asking whether it has room. Only
    /// without TLS.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> io::Result<usize> {
        let mut total = 0;
        while !pipe.is_empty() {
            // Less than there is says nothing, as at the other end.
            match pipe.drain(self.fd()) {
                Ok(0) => {
                    self.is_full(cx);
                    break;
                }
                Ok(n) => total += n,
                // The next call tells. What was moved before counts.
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// The socket was found full: an edge will say when it no longer is.
    fn is_full(&mut self, cx: &mut Context<'_>) {
        self.has_room = false;
        if let Poll::Ready(Ok(mut guard)) = self.io.poll_write_ready(cx) {
            guard.clear_ready();
        }
    }

    /// Sends at least one byte as soon as the socket has room.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = self.write_tls(bytes, false) {
            return Poll::Ready(written);
        }
        self.poll_give(cx, |fd, _| socket::send(fd, bytes, false).map(sent))
    }

    /// Has `give` send something as soon as the socket has room. It returns `None` if there was
    /// none.
    fn poll_give<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut give: impl FnMut(BorrowedFd<'_>, Option<&mut Box<dyn Tls>>) -> io::Result<Option<T>>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut guard = match self.io.poll_write_ready(cx)? {
                Poll::Ready(guard) => Some(guard),
                Poll::Pending if self.has_room => None,
                Poll::Pending => return Poll::Pending,
            };
            if let Some(given) = give(self.io.get_ref().as_fd(), self.tls.as_mut())? {
                return Poll::Ready(Ok(given));
            }
            self.has_room = false;
            match guard.as_mut() {
                Some(guard) => guard.clear_ready(),
                // The waker is registered, and an edge follows a refusal.
                None => return Poll::Pending,
            }
        }
    }

    /// To be called before bytes are moved: splice(2) goes by what the descriptor says, where
    /// other calls say for themselves that they do not wait.
    pub(crate) fn set_nonblocking(&self) {
        socket::set_nonblocking(self.fd());
    }

    /// Moves at least one byte out of a pipe as soon as the socket has room. Only without TLS.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        self.poll_give(cx, |fd, _| pipe.drain(fd).map(sent))
    }

    /// Sends the ciphertext that TLS keeps.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kept() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_give(cx, |_, tls| match tls.map_or(Ok(()), |tls| tls.flush()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            result => result.map(Some),
        })
    }

    /// Queues close_notify. Failing to is no reason not to close.
    pub(crate) fn close_notify(&mut self) {
        if let Some(tls) = self.tls.as_mut().filter(|_| !self.failed) {
            let _ = tls.close();
        }
    }

    /// Sends a FIN.
    pub(crate) fn shutdown(&self) {
        socket::shutdown_write(self.fd());
    }

    /// Has the task woken when the peer resets, while neither reading from it nor waiting for
    /// room in its socket would tell. Returns the error once it is there.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while !self.hung_up {
            let mut guard = match ready!(self.io.poll_write_ready(cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(error),
            };
            if guard.ready().is_write_closed() {
                if let Some(error) = socket::take_error(self.io.get_ref().as_fd()) {
                    return Poll::Ready(error);
                }
                // Closed in both directions, as it may be: bytes that came before still count. Of TCP that
                // is when each side has sent a FIN. Of a unix socket the peer alone can have done it.
                self.hung_up = true;
                self.is_gone = socket::peer_has_ended(self.fd()).is_none();
            } else {
                // Room is of no interest now. No edge tells of it again.
                guard.clear_ready();
                self.has_room = true;
            }
        }
        Poll::Pending
    }

    /// Whether [`poll_reset`](Self::poll_reset) found that the peer can neither send nor be sent anything.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Tries once to send what TLS has to say (an alert), before a close.
    pub(crate) fn try_flush(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.flush();
        }
    }

    /// Makes the close that follows a reset.
    pub(crate) fn reset_on_close(&self) {
        socket::reset_on_close(self.fd());
    }

    /// The descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}

/// What a call sent; none if there was no room.
fn sent(count: usize) -> Option<usize> {
    (count > 0).then_some(count)
}
