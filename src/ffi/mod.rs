//! All of the C: httpd, APR and mod_proxy behind small safe wrappers. Nothing
//! outside of this folder names a C type or a raw pointer of theirs.

/// httpd's headers as bindgen reads them.
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    unsafe_op_in_unsafe_fn
)]
pub(crate) mod sys {
    include!(concat!(env!("OUT_DIR"), "/httpd_api.rs"));
}

pub mod apr_status;
pub mod brigade;
pub mod command;
pub mod conftree;
pub mod connection;
pub mod digest;
pub mod ending;
pub mod filter;
pub mod guard;
mod http2;
mod io;
pub mod log;
pub mod mod_status;
pub mod module;
mod optional;
pub mod orphans;
pub mod pool;
pub mod proxy;
pub mod release;
pub mod request;
pub mod retained;
pub mod role;
pub mod scope;
pub mod section;
pub mod server;
pub mod slots;
pub mod table;
pub mod tls;
