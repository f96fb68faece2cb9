//! The beginning of a guided generation, as a request carries it to the driver.

use super::error::GrammarError;
use super::guide::Guide;
use super::next::Next;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The beginning of a guided generation: what may come first, and the guide that knows what comes after.
///
/// Equal is who is the same.
#[derive(Clone)]
pub struct Guided {
    first: Next,
    guide: Arc<Mutex<Option<Guide>>>,
}

impl Guided {
    /// A generation that has no token yet.
    ///
    /// # Errors
    ///
    /// Nothing can come first.
    pub(super) fn new(mut guide: Guide) -> Result<Guided, GrammarError> {
        match guide.first() {
            Next::Fails(why) => Err(GrammarError(why)),
            first => Ok(Guided { first, guide: Arc::new(Mutex::new(Some(guide))) }),
        }
    }

    /// One that only knows what comes first, for tests of those who schedule.
    #[cfg(test)]
    pub(crate) fn scripted(first: Next) -> Guided {
        Guided { first, guide: Arc::default() }
    }

    /// What may come first.
    pub fn first(&self) -> &Next {
        &self.first
    }

    /// Another generation of the same grammar, from its beginning.
    pub fn again(&self) -> Guided {
        let guide =
            self.guide.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Guide::again);
        Guided { first: self.first.clone(), guide: Arc::new(Mutex::new(guide)) }
    }

    /// The guide, for whoever accepts the generation; `None` the second time.
    pub fn take(&self) -> Option<Guide> {
        self.guide.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Guided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guided").field("first", &self.first).finish_non_exhaustive()
    }
}

impl PartialEq for Guided {
    fn eq(&self, other: &Guided) -> bool {
        Arc::ptr_eq(&self.guide, &other.guide)
    }
}
