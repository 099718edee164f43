//! The numbers of this module's messages. docs/messages.md gives cause and cure
//! of each.

use crate::ffi::log::MessageId;

/// The server cannot start like this.
pub const CANNOT_START: MessageId = MessageId(1);

/// A request with Upgrade is proxied as plain HTTP.
pub const NOT_UPGRADED: MessageId = MessageId(100);
/// A request is sent on as an upgrade request.
pub const UPGRADING: MessageId = MessageId(101);
/// The back end's answer is not clean HTTP/1.x.
pub const BAD_HEAD: MessageId = MessageId(102);
/// The back end's `101` is wrong.
pub const WRONG_101: MessageId = MessageId(103);
/// The back end closed the connection before its answer was complete.
pub const HEAD_CUT: MessageId = MessageId(104);
/// The back end's answer was not complete in time.
pub const HEAD_LATE: MessageId = MessageId(105);
/// The back end's TLS handshake was not complete in time.
pub const TLS_LATE: MessageId = MessageId(107);
/// An upgrade request is refused by a limit.
pub const REFUSED: MessageId = MessageId(108);
/// A request with Upgrade is none of ours, and httpd passes it on.
pub const LEFT_TO_HTTPD: MessageId = MessageId(110);
/// A wrong 101 passes, since the configuration says so.
pub const FORGIVEN: MessageId = MessageId(111);
/// The back end answered an upgrade request without a switch.
pub const NOT_SWITCHED: MessageId = MessageId(112);
/// `WSForwardRelay On` where no upgrade request is taken.
pub const USELESS_RELAY: MessageId = MessageId(114);
/// The bound of tunnels that the server found for itself.
pub const BOUND: MessageId = MessageId(115);
/// WebSockets over HTTP/2 are on.
pub const STREAMS_STAY: MessageId = MessageId(120);
/// A relay is wanted with mpm_itk.
pub const ITK_KEEPS: MessageId = MessageId(121);

/// A tunnel was handed over to the relay.
pub const HANDED_OVER: MessageId = MessageId(200);
/// A tunnel stays in its worker thread.
pub const NOT_DETACHED: MessageId = MessageId(201);
/// A relayed tunnel ended.
pub const TUNNEL_ENDED: MessageId = MessageId(202);
/// A tunnel was lost between its worker thread and the relay.
pub const TUNNEL_LOST: MessageId = MessageId(203);
/// The relay could not be started.
pub const NO_RELAY: MessageId = MessageId(204);
/// What the relay itself has to say.
pub const RELAY: MessageId = MessageId(205);
/// A tunnel that could not leave its worker thread in time is ended.
pub const NOT_IN_TIME: MessageId = MessageId(206);

/// Tunnels cannot outlive their child process.
pub const NO_DRAIN: MessageId = MessageId(300);
/// Drain processes end because there are too many.
pub const DRAIN_EVICTED: MessageId = MessageId(301);
/// The log did not take what there was to say of tunnels.
pub const LINES_LOST: MessageId = MessageId(305);
