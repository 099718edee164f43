//! The `log` facade, through which the crates below this one speak: to httpd's
//! error log in a child, to nobody in a drain process.

use log::{LevelFilter, Log, Metadata, Record};
use once_cell::sync::OnceCell;

use crate::drain;
use crate::ffi::log::{Level, Server};
use crate::message::RELAY;

static LOGGER: OnceCell<Logger> = OnceCell::new();

struct Logger(Server);

/// Sends the facade's records to the error log of this child.
pub fn install(server: Server) {
    let logger = LOGGER.get_or_init(|| Logger(server));
    // Fails if it was installed before, by this very function.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Debug);
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
        !drain::is_here() && ours.contains(&target) && self.0.is_logged(level(metadata.level()))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(level(record.level()), RELAY, format_args!("{}", record.args()));
        }
    }

    fn flush(&self) {}
}
