//! The cluster's join tokens, with the pin of the CA that they carry.

use crate::trust::state::StateDir;
use std::time::{Duration, SystemTime};
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::certificate::KeyPin;
use woolly_protocol::token::{JoinToken, TokenId};
use woolly_protocol::token_store::{StoredToken, TokenOptions, TokenStore, TokenStoreError};

/// The tokens of one state directory. All calls block for as long as a small file takes, and see at
/// once what other processes change.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: TokenStore,
    pin: KeyPin,
}

impl Tokens {
    /// The tokens of the cluster whose CA is `ca`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds something else.
    pub fn open(state: &StateDir, ca: &ClusterCa) -> Result<Tokens, TokenStoreError> {
        Ok(Tokens { store: TokenStore::open(state.root())?, pin: ca.pin() })
    }

    /// Makes a token. Its secret is in the answer only.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or holds too many.
    pub fn create(&self, ttl: Duration, uses: Option<u32>) -> Result<JoinToken, TokenStoreError> {
        let options = TokenOptions { lifetime: Some(ttl), uses };
        self.store.create(self.pin, options, SystemTime::now())
    }

    /// The pin that this cluster's tokens carry.
    pub fn pin(&self) -> KeyPin {
        self.pin
    }

    /// What checks tokens of those who join.
    pub fn store(&self) -> &TokenStore {
        &self.store
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn list(&self) -> Result<Vec<StoredToken>, TokenStoreError> {
        self.store.list()
    }

    /// Refuses a token from now on; `false` if there is none with this id.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn revoke(&self, id: TokenId) -> Result<bool, TokenStoreError> {
        self.store.revoke(id)
    }
}
