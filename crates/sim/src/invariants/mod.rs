//! What must hold, one property per file, named as in the list of invariants (I1 to I7).

pub(crate) mod bounded_loss;
pub(crate) mod explained;
pub(crate) mod failsafe_return;
pub(crate) mod last_copy;
pub(crate) mod liveness;
pub(crate) mod no_lost_commit;
pub(crate) mod published_first;
pub(crate) mod single_writer;

use crate::world::Instant;

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// When, in true time.
    pub at: Instant,
    /// What was seen.
    pub text: String,
}
