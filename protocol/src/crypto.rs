//! Which cryptography is used.

use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// The one place that says which cryptography is used.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
