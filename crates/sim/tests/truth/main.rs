//! The modelled PostgreSQL against the truth. `scripts` says what is done, to real servers and to modelled ones; what
//! the real ones showed after each step is stored in `traces/`, and the modelled ones must show the same.
//!
//! With `PRIMACY_TRACES=DIRECTORY` the tests in `real` write what they see there, for user postgres to write to, instead of
//! comparing it. A script that was changed is recorded again that way.

mod modelled;
mod real;
#[path = "../../../postgres/tests/server/scratch.rs"]
#[allow(dead_code)]
mod scratch;
mod scripts;
mod trace;
