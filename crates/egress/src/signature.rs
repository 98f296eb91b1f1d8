//! The signature of what is sent, as GitHub's webhooks carry it: receivers know how to check it.
//!
//! Owns: its form. Refuses to know: what is signed.

use hmac::{Hmac, KeyInit, Mac};
use settings::Secret;
use sha2::Sha256;

/// The header that it stands in.
pub(crate) const SIGNATURE: &str = "x-hub-signature-256";

/// HMAC-SHA256 over the body, as `sha256=` and hexadecimal digits.
pub(crate) fn signature(key: &Secret, body: &[u8]) -> String {
    // Any key is a key: one that is longer than a block is hashed first.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()) else {
        return String::new();
    };
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    digest.iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
