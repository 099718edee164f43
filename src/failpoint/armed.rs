//! What a step does in a build for tests.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;
use std::time::Duration;

/// How long `delay` takes.
const DELAY: Duration = Duration::from_millis(300);
/// N of `STEP@N` is at most this.
const MAX_COUNT: u32 = 9;
/// No file says more, no name is longer: in bytes.
const TEXT_BYTES: usize = 32;
const COMM: &CStr = c"/proc/self/comm";

/// Where files of armed steps are; `None` if no step is to fail. httpd's parent comes to the first step
/// before there is any other thread or process, so that nobody ever waits for this.
static DIRECTORY: OnceLock<Option<CString>> = OnceLock::new();

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Error,
    Panic,
    Delay,
    Kill,
}

/// See [`crate::step!`].
pub fn step(name: &str) {
    // Whoever cannot fail leaves that to somebody else.
    if let Some(fault) = take(name, |fault| fault != Fault::Error) {
        happen(name, fault);
    }
}

/// See [`crate::check!`].
///
/// # Errors
/// If a test wants it.
pub fn check(name: &str) -> io::Result<()> {
    match take(name, |_| true) {
        Some(Fault::Error) => Err(io::Error::other(format!("failpoint {name}"))),
        Some(fault) => {
            happen(name, fault);
            Ok(())
        }
        None => Ok(()),
    }
}

fn happen(name: &str, fault: Fault) {
    match fault {
        Fault::Error => {}
        Fault::Panic => panic!("failpoint {name}"),
        Fault::Delay => std::thread::sleep(DELAY),
        Fault::Kill => {
            // SAFETY: signals this process alone.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            loop {
                std::thread::park();
            }
        }
    }
}

/// The fault that this process is to have now. It is this one's alone.
fn take(name: &str, can_be: impl Fn(Fault) -> bool) -> Option<Fault> {
    let directory = DIRECTORY.get_or_init(|| {
        let directory = std::env::var_os("WSF_FAILPOINTS")?;
        CString::new(directory.into_vec()).ok()
    });
    let directory = directory.as_ref()?.to_str().ok()?;
    let file = |count: u32| CString::new(format!("{directory}/{name}@{count}")).ok();
    for count in 1..=MAX_COUNT {
        let armed = file(count)?;
        let Some(text) = read(&armed) else { continue };
        let mut words = text.split_ascii_whitespace();
        let fault = match words.next()? {
            "error" => Fault::Error,
            "panic" => Fault::Panic,
            "delay" => Fault::Delay,
            "kill" => Fault::Kill,
            _ => return None,
        };
        let is_here = words.next().is_none_or(|kind| (kind == "drain") == is_drain());
        if !is_here || !can_be(fault) {
            return None;
        }
        if count == 1 {
            // SAFETY: a text that ends with NUL.
            return (unsafe { libc::unlink(armed.as_ptr()) } == 0).then_some(fault);
        }
        let next = file(count - 1)?;
        // SAFETY: likewise.
        unsafe { libc::rename(armed.as_ptr(), next.as_ptr()) };
        return None;
    }
    None
}

fn is_drain() -> bool {
    read(COMM).is_some_and(|name| name.starts_with("wsforward-drain"))
}

/// The beginning of a file.
fn read(path: &CStr) -> Option<String> {
    let mut text = [0u8; TEXT_BYTES];
    // SAFETY: a text that ends with NUL; as many bytes as there is room for; its own descriptor.
    let length = unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return None;
        }
        let length = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        length
    };
    String::from_utf8(text.get(..usize::try_from(length).ok()?)?.to_vec()).ok()
}
