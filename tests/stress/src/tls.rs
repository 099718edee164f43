//! TLS contexts: none, 1.2 and 1.3.

use std::io;

use openssl::ssl::{
    SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode, SslVerifyMode, SslVersion,
};

const VERSIONS: [Option<SslVersion>; 3] =
    [None, Some(SslVersion::TLS1_2), Some(SslVersion::TLS1_3)];

fn each(
    set: impl Fn(&mut SslContextBuilder) -> Result<(), openssl::error::ErrorStack>,
) -> io::Result<[Option<SslContext>; 3]> {
    let mut contexts = [None, None, None];
    for (context, version) in contexts.iter_mut().zip(VERSIONS) {
        let Some(version) = version else { continue };
        let mut builder = SslContext::builder(SslMethod::tls())?;
        builder.set_min_proto_version(Some(version))?;
        builder.set_max_proto_version(Some(version))?;
        builder.set_mode(SslMode::RELEASE_BUFFERS);
        set(&mut builder)?;
        *context = Some(builder.build());
    }
    Ok(contexts)
}

/// Of clients. Whom they talk to is not the question here.
pub fn clients() -> io::Result<[Option<SslContext>; 3]> {
    each(|builder| {
        builder.set_verify(SslVerifyMode::NONE);
        Ok(())
    })
}

/// Of back ends.
pub fn origins(certificate: &str, key: &str) -> io::Result<[Option<SslContext>; 3]> {
    each(|builder| {
        builder.set_certificate_file(certificate, SslFiletype::PEM)?;
        builder.set_private_key_file(key, SslFiletype::PEM)
    })
}
