//! What threads of the relay have to say without being asked: through the `log` facade, by which
//! the crates below this one speak, and by a panic. Neither may hold the thread up.

use std::{fmt, panic};

use log::{LevelFilter, Log, Metadata, Record};
use messages::{Level, Message, OfRelay, Panicked};
use once_cell::sync::OnceCell;

use crate::ffi::log::Server;
use crate::ffi::server::Process;
use crate::processes::line_kind::Kind;
use crate::processes::lines;

/// Set once, by a child when it starts.
static LOGGER: OnceCell<Logger> = OnceCell::new();

struct Logger(Server<'static>);

/// Sends the facade's records, and panics of relay threads, to the error log of this child.
pub(super) fn install(child: &Process<'_>) {
    let logger = LOGGER.get_or_init(|| Logger(child.main_server()));
    // Fails if it was installed before, by this very function.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Debug);
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Standard error is the error log, which may stand still.
            if !is_of_relay() {
                return before(info);
            }
            let text = info.to_string().replace('\n', " ");
            let thread = name().unwrap_or_default();
            say(Level::Error, &Panicked { thread: &thread, text: &text });
        }));
    }
}

fn name() -> Option<String> {
    std::thread::current().name().map(str::to_owned)
}

/// Whether this thread must not wait: it is the relay's, or has no log.
fn is_of_relay() -> bool {
    lines::is_drain_process() || name().is_some_and(|name| name.starts_with("relay-"))
}

fn say(level: Level, text: &dyn fmt::Display) {
    if lines::is_drain_process() {
        lines::say(Kind::Relay, text);
    } else {
        lines::log_at(level, OfRelay::ID, text);
    }
}

fn level(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug | log::Level::Trace => Level::Debug,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The scheduler's own records are not for operators.
        let ours = ["relay", "tls", "mod_wsforward"];
        let target = metadata.target().split("::").next().unwrap_or_default();
        let level = level(metadata.level());
        // A drain process calls nothing of httpd, and says what matters.
        let is_logged =
            if lines::is_drain_process() { level <= Level::Error } else { self.0.is_logged(level) };
        ours.contains(&target) && is_logged
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            say(level(record.level()), record.args());
        }
    }

    fn flush(&self) {}
}
