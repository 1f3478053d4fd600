//! The crate against a real PostgreSQL, found in `PRIMACY_TEST_PG_BIN`, else in the newest
//! `/usr/lib/postgresql/<version>/bin` or, if there is none, in `PATH`. PostgreSQL refuses to run as root: a test that root started runs itself again as `postgres`.

mod bootstrap;
mod encryption;
mod following;
mod hanging;
mod life;
mod rewinding;
mod scratch;
mod watching;
