//! The ciphers and key derivations of a libcrypto, looked for once per process.

use std::ffi::CStr;
use std::ptr;

use records::Suite;

use crate::native_symbols::{EvpCipher, EvpKdf, KdfFunctions, NativeFunctions, NativeTable};

pub(crate) const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::Chacha20Poly1305];

/// What a libcrypto has.
#[derive(Debug)]
pub(crate) struct Algorithms {
    pub functions: NativeFunctions,
    pub kdfs: Option<Kdfs>,
    ciphers: [*const EvpCipher; SUITES.len()],
}

/// Key derivations as 3.x has them; with 1.1.1 they go by `EVP_PKEY`, which takes 3.x ten times as
/// long.
#[derive(Debug)]
pub(crate) struct Kdfs {
    pub functions: KdfFunctions,
    pub hkdf: *mut EvpKdf,
    pub tls1_prf: *mut EvpKdf,
}

// SAFETY: addresses of functions, ciphers and derivations that nothing changes or frees.
unsafe impl Sync for Algorithms {}
// SAFETY: as above.
unsafe impl Send for Algorithms {}

impl Algorithms {
    /// Looks for them. What the library's configuration does not allow is missing, and what it has
    /// is not tried.
    pub(crate) fn new(table: &NativeTable) -> Self {
        let functions = table.functions;
        let ciphers = SUITES.map(|suite| {
            let (name, old): (&CStr, unsafe extern "C" fn() -> *const EvpCipher) = match suite {
                Suite::Aes128Gcm => (c"AES-128-GCM", functions.EVP_aes_128_gcm),
                Suite::Aes256Gcm => (c"AES-256-GCM", functions.EVP_aes_256_gcm),
                Suite::Chacha20Poly1305 => (c"ChaCha20-Poly1305", functions.EVP_chacha20_poly1305),
            };
            match table.fetch {
                // SAFETY: the default library context and properties; the name is a C string. The
                // reference is kept for as long as the process lives.
                Some(fetch) => unsafe { fetch(ptr::null_mut(), name.as_ptr(), ptr::null()) },
                // SAFETY: takes nothing, returns a static.
                None => unsafe { old() },
            }
        });
        let kdfs = table.kdf.map(|functions| {
            // SAFETY: as for the ciphers.
            let fetch = |name: &CStr| unsafe {
                (functions.EVP_KDF_fetch)(ptr::null_mut(), name.as_ptr(), ptr::null())
            };
            Kdfs { functions, hkdf: fetch(c"HKDF"), tls1_prf: fetch(c"TLS1-PRF") }
        });
        Algorithms { functions, kdfs, ciphers }
    }

    /// The cipher of a suite; null if there is none.
    pub(crate) fn cipher(&self, suite: Suite) -> *const EvpCipher {
        self.ciphers[suite as usize]
    }

    /// Whether a suite can be used.
    pub(crate) fn has(&self, suite: Suite) -> bool {
        !self.cipher(suite).is_null()
    }

    /// Has a suite not be used.
    pub(crate) fn forbid(&mut self, suite: Suite) {
        self.ciphers[suite as usize] = ptr::null();
    }
}
