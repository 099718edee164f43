//! Everything that is C: httpd, APR, mod_proxy and mod_ssl behind small safe wrappers. No C type
//! and no raw pointer of theirs leaves this folder. A file here uses only files below it: on the
//! ground are pools, tables and brigades, above them connections and requests, then one file for
//! each kind of hook, each with a small trait for what the module does there. `module` is the roof.

/// httpd's headers as bindgen reads them.
#[allow(
    clippy::all,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
pub(crate) mod sys {
    include!(concat!(env!("OUT_DIR"), "/httpd_api.rs"));
}

pub(crate) mod access_log;
pub(crate) mod apr_status;
pub(crate) mod balancer;
pub(crate) mod brigade;
pub(crate) mod command;
pub(crate) mod conftree;
pub(crate) mod connection;
pub(crate) mod content;
pub(crate) mod digest;
pub(crate) mod ending;
pub(crate) mod filter;
pub(crate) mod guard;
mod http2;
mod io;
pub(crate) mod log;
mod log_config;
pub(crate) mod log_files;
pub(crate) mod log_items;
pub(crate) mod mod_status;
pub(crate) mod module;
pub(crate) mod noted;
pub(crate) mod openssl;
mod optional;
pub(crate) mod orphans;
pub(crate) mod pool;
pub(crate) mod proxy;
pub(crate) mod release;
pub(crate) mod request;
pub(crate) mod retained;
pub(crate) mod role;
pub(crate) mod scope;
pub(crate) mod section;
pub(crate) mod server;
pub(crate) mod slots;
pub(crate) mod table;
pub(crate) mod tls;
pub(crate) mod tls_contexts;
