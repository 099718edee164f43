//! Every text that this module logs, with its number and level. docs/messages.md gives cause and
//! cure of each; tests/test_docs.py reads the catalogue below and holds that page against it.
//!
//! A message is a line `Name(number) Level { fields } "text"`. Texts that stand in for its
//! `{why}` follow in braces. To log one, make its struct and give it to one of the functions of
//! `ffi::log`. Where the level depends on more than the text, the function takes another one.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

use std::fmt;

mod form;

use form::messages;
pub use form::{Level, Message, MessageId};

messages! {
    CannotStart(1) Error { why } "{why}" {
        HttpdTooOld { oldest, found } "mod_wsforward needs httpd {oldest} or later, this is {found}";
        NoProxy "WSForward On needs mod_proxy and mod_proxy_http: load both (LoadModule proxy_module, LoadModule proxy_http_module)";
        NoSharedMemory { error } "no shared memory: {error}";
    }

    NotUpgraded(100) Debug { why } "proxied without Upgrade: {why}" {
        TooOldForUpgrade "it is older than HTTP/1.1";
        NotInConnection "its Connection header does not name upgrade";
        NotInProtocols "its Upgrade header names no protocol of WSForwardProtocols";
        NotGet "its method is not GET";
        HasBody "it has a body";
        LeftToUpgradeParameter { why } "{why} (upgrade=websocket of ProxyPass or ProxySet sends such a request on)";
        Subrequest "a subrequest cannot switch protocols";
        ErrorDocument "it asks for an error document";
        ForcedToHttp10 "force-proxy-request-1.0 is set";
        NotInWorker "upgrade= of its worker (ProxyPass, ProxySet) does not allow this protocol";
    }

    Upgrading(101) Debug { protocol } "asking the back end for {protocol}"

    BadHead(102) Error { why } "{why}" {
        HeadTooLong { most } "the response head is longer than {most} bytes";
        TooManyFields { most } "the response head has more than {most} header lines";
        NoStatusLine "the answer does not begin with an HTTP/1.x status line";
        StatusOutOfRange { code } "the response status is {code}, expected 100 to 599";
        NulInHead "the response head contains a NUL byte";
        BareCrInHead "the response head contains a CR without LF";
        QuotedByProxy { message } "{message}; AH00898 repeats this, its HTTP/9.9 is not from the back end";
    }

    Wrong101(103) Error { why } "{why}" {
        Wrong { what } "wrong 101: {what}";
        WrongVersion "its version is HTTP/1.0, expected HTTP/1.1";
        BareLf "a line ends with LF alone, expected CRLF";
        MalformedFields { error } "its header fields are malformed ({error})";
        WrongUpgrade { seen, expected } "Upgrade is {seen}, expected {expected}";
        WrongConnection { seen } "Connection is {seen}, expected it to name \"upgrade\"";
        NoKey "it answers a request without Sec-WebSocket-Key";
        WrongAccept { seen, expected } "Sec-WebSocket-Accept is {seen}, expected {expected}";
        WrongProtocol { seen, offered } "Sec-WebSocket-Protocol is {seen}, offered were {offered}";
        WrongExtension { seen, offered } "Sec-WebSocket-Extensions has {seen}, offered were {offered}";
        Forgivable { wrong } "{wrong} (WSForwardCheck lenient passes it)";
    }

    HeadCut(104) Error { why } "{why}" {
        ClosedInHead { bytes } "the back end closed the connection after {bytes} bytes of a response head";
        FailedInHead { error, bytes } "{error} after {bytes} bytes of a response head";
    }

    HeadLate(105) Error { within, bytes } "no complete response head within {within} ({bytes} bytes of it came)"

    TlsLate(107) Error { within } "the back end's TLS handshake took longer than {within}"

    Refused(108) Error { why } "upgrade request refused with 503: {why}" {
        ProcessFull { open, most } "this process has {open} tunnels, its limit of descriptors (ulimit -n) allows {most}";
        MaxTunnels { most } "WSForwardMaxTunnels {most} is reached";
        MemoryFull { bound } "WSForwardMaxTunnels is not set, and no more tunnels fit the memory: {bound}";
        MaxTunnelsPerClient { most, client, network } "WSForwardMaxTunnelsPerClient {most} is reached by {client} ({network})";
        MaxTunnelsPerBackend { most, backend } "WSForwardMaxTunnelsPerBackend {most} is reached by {backend}";
        ReadyFileAbsent { file } "WSForwardReadyFile {file} is absent";
    }

    LeftToHttpd(110) Debug { why } "left to httpd, which sends it on with Upgrade: {why}"

    Forgiven(111) Info { wrong } "WSForwardCheck lenient passes a {wrong}"

    NotSwitched(112) Debug { status } "the back end answered {status}, no tunnel"

    UselessRelay(114) Warn { place } "WSForwardRelay On ({place}) does nothing without WSForward On: set both"

    MemoryBound(115) Info { bound } "relayed tunnels that fit the memory: {bound}" {
        HalfOfMemory { tunnels, mib, whose, kib } "{tunnels} (half of the {mib} MiB of the {whose}, at {kib} KiB each)";
    }

    Http2Streams(120) Warn { place } "H2WebSockets on ({place}): each WebSocket over HTTP/2 holds a thread until it ends, and with six of them the other requests of their connection wait; with H2WebSockets off, browsers use HTTP/1.1 for WebSockets, beside HTTP/2"

    MpmItk(121) Warn "WSForwardRelay On does nothing with mpm_itk, which has a process for each connection: tunnels stay there"

    AccessLinesLost(130) Warn { lines } "{lines} lines of access logs were lost: the logs did not take them in time"

    AccessLogGone(131) Error { log } "tunnels that ended have a line for the access log {log}, which is not in the configuration any more"

    AccessLogFailed(132) Error { log, error } "cannot write lines of tunnels to the access log {log}: {error}"

    ForeignLogWriter(133) Warn "another module writes the access logs: the line of a relayed tunnel comes when it leaves its worker thread (WSForwardAccessLog start)"

    LineTooLong(134) Info { log } "the line of a relayed tunnel for the access log {log} comes at its beginning: it is too long to be kept until the end"

    OriginRefused(140) Error { why } "upgrade request refused with 403 by WSForwardOrigin: {why}" {
        OriginMissing "it has no Origin";
        OriginTwice { seen } "its Origin is more than one: {seen}";
        OriginMalformed { seen } "its Origin is malformed: {seen}";
        OriginNotListed { seen } "its Origin {seen} is not among those allowed";
        OriginNotOwn { seen, own } "its Origin {seen} is not among those allowed, nor the same as {own}";
        OriginOwnUnknown { seen } "its Origin {seen} is not among those allowed, and its own is not known";
    }

    Expired(141) Info "upgrade request refused with 403: the time of WSFORWARD_EXPIRES has come already"

    WrongExpiry(142) Error { seen } "upgrade request refused with 500: WSFORWARD_EXPIRES is \"{seen}\", expected seconds since 1970, or + and seconds from now on"

    HandedOver(200) Debug { tunnel } "to the relay: {tunnel}"

    StaysInThread(201) Debug { why } "tunnel stays in its worker thread: {why}" {
        IsStream "it is a stream of HTTP/2";
        NoRelayHere "this process has no relay";
        NoPlace "it has no place among the relay's tunnels";
        HasFilter { whose, filter } "the {whose}'s connection has the filter {filter}";
        HasRateLimit "the request has the filter rate_limit";
        TlsOf { whose, why } "TLS of the {whose}: {why}";
        NotOfModSsl "mod_ssl does not give access to it";
        HasEnded "one side has already ended";
    }

    NoDescriptor(201) Error { error } "no descriptor for the relay: {error}"

    TunnelEnded(202) Info { tunnel, seconds, by, why, up, down } "tunnel {tunnel} ended after {seconds} s by the {by}: {why}, {up} bytes up, {down} bytes down" {
        ClientsCode { code } ", client's close code {code}";
        BackEndsCode { code } ", back end's close code {code}";
        InThread ", where=thread";
    }

    TunnelLost(203) Error { tunnel, why } "tunnel {tunnel} lost: {why}" {
        TlsNotTaken { error } "its TLS was not taken over: {error}";
        NotReleased "httpd did not release both of its sides";
        NeitherSentNorKept "it could neither be sent to another process nor go on in its own";
        NoRelayLeft "the process that was to carry it is gone, and no other has a relay any more";
    }

    OthersTunnelLost(203) Error { why } "a tunnel of another child lost: {why}" {
        NoRoom "no room for its descriptors";
        OtherVersion "it comes from another version of this module";
    }

    NoRelay(204) Error { why } "no relay in this process, tunnels stay in worker threads: {why}" {
        HttpdTooOldForRelay { oldest, found } "it needs httpd {oldest} or later, this is {found}";
        ThreadDiedAtStart "a relay thread died at its start";
    }

    OfRelay(205) Error { what } "{what}" {
        TaskPanicked "a panic in a tunnel's task: its tunnel is closed, the others go on";
        RecordPanicked "a panic while the end of a tunnel was recorded";
        ThreadDied "a relay thread died; its tunnels are closed";
        Panicked { thread, text } "thread '{thread}' {text}";
    }

    NotInTime(206) Info { why } "tunnel ended: {why} within Timeout" {
        AnswersNotTaken "the client did not take what was sent to it";
        TlsMessageIncomplete { whose } "a TLS message of the {whose} was not completed";
    }

    NoNativeTls(207) Warn { why } "WSForwardTLS native does nothing: {why}" {
        LacksFunction { name } "the OpenSSL of mod_ssl has no {name}";
    }

    TlsTaken(208) Debug { tunnel, whose, how } "{tunnel}: TLS of the {whose} {how}" {
        LeftOpenSsl "left OpenSSL";
        StaysInOpenSsl { why } "stays in OpenSSL: {why}";
    }

    NoDrain(300) Warn { error } "tunnels will not outlive this process: {error}"

    NoProcess(300) Error { count, within, error } "no drain process for {count} tunnels, they end here after {within}: {error}"

    NoThread(300) Error { count, error } "no drain process for {count} tunnels, they end now: {error}"

    NotCounted(300) Error { error } "a drain process is not counted: {error}"

    Evicted(301) Warn { most, evicted } "WSForwardMaxDrainProcesses {most}: tunnels of the {evicted} oldest drain processes end" {
        Automatic { number } "auto (here {number})";
    }

    LinesLost(305) Warn { lines } "{lines} lines about tunnels were lost: the error log did not take them in time"

    ProcessGone(310) Warn { pid, tunnels } "process {pid} is gone, and with it {tunnels} relayed tunnels that it did not end: it was killed, or crashed"

    ClosedByAdmin(400) Notice { count, who, which, code } "{count} tunnels told to close with {code} by \"{who}\": {which}"

    NoRegister(401) Warn { error } "open tunnels are not listed, and the status page has no totals by virtual host: {error}"

    StopWaits(480) Notice { processes, until } "graceful stop: {processes} processes carry tunnels on, {until}; SIGTERM ends them at once" {
        TunnelsUntil { seconds } "for at most {seconds} s";
        TunnelsForever "until these end";
    }

    StopOver(481) Notice { why } "graceful stop: the tunnels that are left end now, {why}" {
        TimeIsOver "their time is over";
        AskedToStop "the server was asked to stop at once";
    }

    StillEnding(482) Warn { processes, tunnels } "the server no longer waits for {processes} processes that end {tunnels} tunnels: their lines are missing in the logs"
}
