//! A network that swallows things, for tests. Outside of tests nothing sets it.

use std::sync::atomic::{AtomicBool, Ordering};

/// What is swallowed of one party's messages. Its connections stay as they are.
#[derive(Default)]
pub(crate) struct Faults {
    mute: AtomicBool,
    deaf: AtomicBool,
}

impl Faults {
    /// Nothing leaves.
    pub(crate) fn mute(&self) -> bool {
        self.mute.load(Ordering::Relaxed)
    }

    /// Nothing arrives.
    pub(crate) fn deaf(&self) -> bool {
        self.deaf.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn set(&self, mute: bool, deaf: bool) {
        self.mute.store(mute, Ordering::Relaxed);
        self.deaf.store(deaf, Ordering::Relaxed);
    }
}
