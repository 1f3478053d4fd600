//! Trouble with others, told once and again when it changes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many others are kept in mind; strangers may knock from many addresses.
const MOST: usize = 256;

/// What was told about whom last.
#[derive(Default)]
pub(crate) struct Reports {
    told: Mutex<HashMap<String, String>>,
}

impl Reports {
    /// Warns unless just this was said of them last.
    pub(crate) fn trouble(&self, whom: &str, what: String) {
        let mut told = self.lock();
        if told.get(whom) == Some(&what) {
            return;
        }
        if told.len() >= MOST {
            told.clear();
        }
        tracing::warn!("{what}");
        told.insert(whom.to_owned(), what);
    }

    /// Says so if there was trouble.
    pub(crate) fn well(&self, whom: &str, what: impl FnOnce() -> String) {
        if self.lock().remove(whom).is_some() {
            tracing::info!("{}", what());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
