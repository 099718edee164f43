//! Answers that the module makes itself, where `SetHandler` names it.

use std::ffi::{CStr, c_int};

use super::guard::guard;
use super::request::Request;
use super::sys;

/// What the module does as a handler.
pub(crate) trait ContentHooks {
    /// What `SetHandler` calls it.
    const HANDLER: &CStr;
    /// What a browser may do with its answers: their Content-Security-Policy.
    const SECURITY_POLICY: &str;

    /// The answer to a request that was set to the handler.
    fn content(r: Request<'_>, method: Method) -> Reply;
}

/// How the handler is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// GET; HEAD is one of which httpd leaves out the body.
    Get,
    /// POST.
    Post,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its Content-Type.
    pub(crate) content_type: &'static str,
    /// Its body.
    pub(crate) body: String,
}

const DECLINED: c_int = sys::DECLINED;

/// Of httpd.h: a body in chunks is taken too.
const REQUEST_CHUNKED_DECHUNK: c_int = 2;

/// Has the handler called.
pub(super) fn register<H: ContentHooks>() {
    let none = std::ptr::null();
    // SAFETY: a function of this library, which stays loaded for as long as its hooks.
    unsafe {
        sys::ap_hook_handler(Some(handler::<H>), none, none, sys::APR_HOOK_MIDDLE);
    }
}

unsafe extern "C" fn handler<H: ContentHooks>(r: *mut sys::request_rec) -> c_int {
    guard(sys::HTTP_INTERNAL_SERVER_ERROR, || {
        // SAFETY: httpd passes a live request for the length of the call.
        let Some(request) = (unsafe { Request::from_raw(r) }) else { return DECLINED };
        if request.handler() != Some(H::HANDLER) {
            return DECLINED;
        }
        let method = if request.is_method(sys::M_GET) {
            Method::Get
        } else if request.is_method(sys::M_POST) {
            Method::Post
        } else {
            request.allow_methods(&[sys::M_GET, sys::M_POST]);
            return sys::HTTP_METHOD_NOT_ALLOWED;
        };
        send(request, &H::content(request, method), H::SECURITY_POLICY);
        sys::OK
    })
}

/// Sends an answer, whatever its status, as it is: no ErrorDocument takes its place.
fn send(r: Request<'_>, reply: &Reply, security_policy: &str) {
    let Some(pool) = r.pool() else { return };
    let content_type = pool.copy(reply.content_type.as_bytes());
    r.set_status(reply.status);
    r.set_header(c"Cache-Control", "no-store");
    r.set_header(c"X-Content-Type-Options", "nosniff");
    r.set_header(c"Content-Security-Policy", security_policy);
    let record = r.as_ptr();
    let Ok(length) = c_int::try_from(reply.body.len()) else { return };
    // SAFETY: the request is alive; the type is in its pool, and the body readable for its length. A
    // client that is gone is httpd's business.
    unsafe {
        sys::ap_set_content_type(record, content_type.as_ptr());
        sys::ap_set_content_length(record, i64::from(length));
        if (*record).header_only == 0 {
            sys::ap_rwrite(reply.body.as_ptr().cast(), length, record);
        }
    }
}

/// Why the body of a request is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoBody {
    /// It is longer than that.
    TooLong,
    /// Its client is gone, or too slow, or it is malformed.
    Failed,
}

/// The body of a request, of at most `most` bytes.
///
/// # Errors
/// It cannot be had.
pub(crate) fn body(r: Request<'_>, most: usize) -> Result<Vec<u8>, NoBody> {
    let mut body = Vec::new();
    let mut buffer = [0_u8; 4096];
    let record = r.as_ptr();
    // SAFETY: the request is alive, and nobody has read its body yet.
    if unsafe { sys::ap_setup_client_block(record, REQUEST_CHUNKED_DECHUNK) } != 0 {
        return Err(NoBody::Failed);
    }
    // SAFETY: as above.
    if unsafe { sys::ap_should_client_block(record) } == 0 {
        return Ok(body);
    }
    loop {
        // SAFETY: as above; the buffer is writable for its length.
        let got =
            unsafe { sys::ap_get_client_block(record, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(got) {
            Ok(0) => return Ok(body),
            Ok(got) => body.extend_from_slice(buffer.get(..got).unwrap_or_default()),
            Err(_) => return Err(NoBody::Failed),
        }
        if body.len() > most {
            return Err(NoBody::TooLong);
        }
    }
}
